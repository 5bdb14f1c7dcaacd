"""What position t of a trained Transformer reads: its attention weights, as JSON, for a page to draw.

python -m trainers.attention runs/wiki --out attention.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process

WINDOWS = 64  # over which distances are averaged: 64 x 35 words
SHOWN = 13  # words of the map that is drawn: two maps stand beside each other


def parser() -> Parser:
    p = Parser(
        prog="python -m trainers.attention",
        description="Write the attention weights of a trained Transformer on the text that it is scored on.",
    )
    p.add_argument("source", metavar="RUN|CHECKPOINT", help="RUN, RUN@best, RUN@STEP")
    p.add_argument("--out", required=True, metavar="FILE", help="where to write them, as JSON")
    p.add_argument("--data-root", help="where packed data is kept (default: $RELAUNCH_DATA, else data)")
    return p


def run(argv: list[str]) -> tuple[int, str | None]:
    args = parser().parse_args(argv)
    import torch

    from relaunch.data_prep.packed import data_root, open_packed
    from relaunch.trainers.build import make_model
    from relaunch.trainers.tasks.text import seen
    from relaunch.trainers.weights.source import open_source
    from relaunch.trainers.weights.state import load_weights

    source = open_source(args.source, execute=True)
    if source.config is None or source.config.workload != "wikitext2":
        raise Failure(USAGE, f"{args.source} is no Transformer of wikitext2", "name a run of wikitext2")
    packed = open_packed(source.config.data, data_root(args.data_root))
    if packed.hash != source.meta["data_hash"]:
        raise Failure(DATA, f"{packed.path} is not the data that {args.source} was trained on")
    model = make_model(source.config, packed.sizes)
    load_weights(model, source.weights(), str(source.path))
    if not hasattr(model, "attention"):
        raise Failure(USAGE, f"{source.config.arch} does not show its attention", "name a run of transformer")
    tokens, bptt = packed.tokens(packed.eval_split), seen(source.config)
    count = min(WINDOWS, len(tokens) // bptt)
    if not count:
        raise Failure(DATA, f"{packed.eval_split} of {packed.name} has fewer than {bptt} words")
    windows = torch.tensor(tokens[: count * bptt].astype("int64")).view(count, bptt).T  # [T,B]
    found = {
        "schema": 1,
        "source": source.name,
        "words": [packed.vocab()[i] for i in windows[:SHOWN, 0].tolist()],
        "windows": count,
        "bptt": bptt,
        "layers": [layer(weights) for weights in model.attention(windows)],
    }
    out = Path(args.out)
    with files.storage(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(out, files.dump_json(found))
    tell(f"written: {out}")
    return 0, None


def layer(weights) -> dict:
    """One layer's weights [B,heads,T,T]: the first window's map, and the weight at each distance back.

    Distances are those of the last position, which alone could reach all of them: [heads][T], 0 is itself.
    """
    return {
        "maps": weights[0, :, :SHOWN, :SHOWN].tolist(),
        "distance": weights[:, :, -1].flip(-1).mean(0).tolist(),
    }


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
