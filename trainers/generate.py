"""Let a trained language model write.

python -m trainers.generate runs/first --words 200 --temperature 0.8 --seed 1
"""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.talk import give
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.tasks import order

if TYPE_CHECKING:
    from torch import nn


def sample_text(
    module: nn.Module,
    packed: Packed,
    words: int,
    temperature: float,
    seed: int,
    prompt: str = "",
    bptt: int = 35,
) -> str:
    """The prompt, and `words` words drawn from softmax(logits / temperature) of the last `bptt` before each.

    Equal arguments give an equal text, and other random numbers stay as they were. What the vocabulary lacks
    of the prompt becomes <unk>. The text begins as a new line does.
    """
    import torch

    vocab = packed.vocab()
    index = {word: i for i, word in enumerate(vocab)}
    ids = [index[word if word in index else "<unk>"] for word in ("<eos> " + prompt).split()]
    device, training = next(module.parameters()).device, module.training
    generator = torch.Generator().manual_seed(order.key("generate", seed))
    module.eval()
    with torch.no_grad():
        for _ in range(words):
            logits = (
                module(torch.tensor(ids[-bptt:], device=device)[:, None], last=True)[-1, 0].double().cpu()
            )
            p = ((logits - logits.max()) / temperature).softmax(0)
            ids.append(int(torch.multinomial(p, 1, generator=generator)))
    module.train(training)
    return re.sub(" ?<eos> ?", "\n", " ".join(vocab[i] for i in ids[1:]))


def parser() -> Parser:
    p = Parser(
        prog="relaunch generate",
        description=(
            "Let a trained language model write.\n\n"
            "  relaunch generate first --words 200 --temperature 0.8 --seed 1\n"
            "  relaunch generate first@best --prompt 'The history of'"
        ),
    )
    p.add_argument(
        "source", metavar="RUN|CHECKPOINT", help="RUN, RUN@best, RUN@STEP or a checkpoint's folder"
    )
    p.add_argument("--words", type=int, default=200, help="words to write [200]")
    p.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="below 1 the likely words get likelier, above 1 less so [0.8]",
    )
    p.add_argument("--seed", type=int, default=1, help="another seed, another text [1]")
    p.add_argument("--prompt", default="", help="words to begin with, with spaces between them and the signs")
    p.add_argument("--data", help="the packed data set it was trained on, if it has moved")
    p.add_argument("--data-root", help="where packed data is kept (default: $RELAUNCH_DATA, else data)")
    return p


def run(argv: list[str]) -> tuple[int, str | None]:
    args = parser().parse_args(argv)
    if not 0 < args.temperature < math.inf:
        raise Failure(
            USAGE,
            f"--temperature {args.temperature} is out of range",
            "it must be above 0; 0.8 is a good start",
        )
    if args.words < 1:
        raise Failure(USAGE, f"--words {args.words} is too small", "it must be at least 1")
    import torch

    from relaunch.data_prep.packed import data_root, open_packed
    from relaunch.data_prep.recipes import ensure
    from relaunch.trainers import workloads
    from relaunch.trainers.build import make_model
    from relaunch.trainers.weights.source import open_source
    from relaunch.trainers.weights.state import load_weights

    source = open_source(args.source)
    if source.config is None:
        raise Failure(
            USAGE, f"{source.path} says nothing of its model and words", "name a run or a checkpoint"
        )
    if workloads.load(source.config.workload).kind != "text":
        raise Failure(
            USAGE,
            f"{args.source} trains {source.config.workload}, and only language models write",
            "name a run of wikitext2",
        )
    data, root = args.data or source.config.data, data_root(args.data_root)
    ensure(data, root)
    packed = open_packed(data, root)
    if packed.hash != source.meta["data_hash"]:
        raise Failure(
            DATA, f"{packed.path} is not the data that {args.source} was trained on", "give that with --data"
        )
    vocab = set(packed.vocab())
    unknown = [word for word in args.prompt.split() if word not in vocab]
    if unknown:
        what = f"the model does not know {', '.join(map(repr, unknown))}"
        if "<unk>" not in vocab:
            raise Failure(USAGE, what, "leave it out of --prompt")
        process.tell(f"relaunch: {what}; read as <unk>", sys.stderr)
    torch.set_num_threads(1)  # a word is little work, and the text must not depend on the machine's cores
    model = make_model(source.config, packed)
    load_weights(model, source.weights(), str(source.path))
    give(
        sample_text(
            model, packed, args.words, args.temperature, args.seed, args.prompt, source.config.options.bptt
        )
    )
    return 0, None


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
