"""Let a trained language model write.

python -m trainers.generate runs/first --words 200 --temperature 0.8 --seed 1
"""

from __future__ import annotations

import math
import sys

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.talk import give, tell
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process


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
    from relaunch.trainers.tasks.text import seen
    from relaunch.trainers.tasks.text_batches import sample_text
    from relaunch.trainers.weights.source import open_source
    from relaunch.trainers.weights.state import load_weights

    source = open_source(args.source, execute=True)
    if source.config is None:
        raise Failure(
            USAGE, f"{source.path} says nothing of its model and words", "name a run or a checkpoint"
        )
    if workloads.load(source.config.workload).task.facts.view != "text":
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
        tell(f"relaunch: {what}; read as <unk>", sys.stderr)
    torch.set_num_threads(1)  # a word is little work, and the text must not depend on the machine's cores
    model = make_model(source.config, packed.sizes)
    load_weights(model, source.weights(), str(source.path))
    give(
        sample_text(model, packed, args.words, args.temperature, args.seed, args.prompt, seen(source.config))
    )
    return 0, None


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
