"""Which predictions changed between two checkpoints, and whether that is more than chance.

python -m trainers.diff first@best second --split test
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.packed import Packed, data_root, open_packed
from relaunch.data_prep.talk import tell
from relaunch.trainers import rundir
from relaunch.trainers.compare import causes, changes, results, words
from relaunch.trainers.compare.predictions import Predictions
from relaunch.trainers.compare.sides import Side, check, open_side, score
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.weights.source import parse_described


def parser() -> Parser:
    p = Parser(
        prog="relaunch diff",
        description=(
            "Say which predictions changed from A to B, how many each way, and whether that is chance.\n"
            "What has not been evaluated yet is evaluated first.\n\n"
            "  relaunch diff first@best second             two runs, on the evaluation split\n"
            "  relaunch diff first@1000 first@2000 --fail-under 99 --max-nfr 0.5\n"
            "  relaunch diff first second --twin first-seed2    beside what another seed alone changes\n"
            "  relaunch diff old.parquet new.parquet       two files that relaunch evaluate wrote\n"
            "  relaunch diff first model.pth.tar --workload tiny_imagenet --normalise imagenet"
        ),
    )
    for name in ("A", "B"):
        p.add_argument(
            name.lower(),
            metavar=name,
            help="RUN, RUN@best, RUN@STEP, a checkpoint's folder, a weights file or a predictions .parquet",
        )
    p.add_argument(
        "--split", help="the split to compare on (default: that of a .parquet, else val, else test)"
    )
    p.add_argument("--data-root", help="where packed data is kept (default: $RELAUNCH_DATA, else data)")
    p.add_argument("--out", help="folder of the results (default: diffs/A-vs-B)")
    p.add_argument(
        "--top", type=int, default=10, metavar="N", help="changed samples, classes and passages to show [10]"
    )
    p.add_argument(
        "--fail-under", type=float, metavar="PERCENT", help="exit with 1 if fewer of the predictions agree"
    )
    p.add_argument(
        "--max-nfr",
        type=float,
        metavar="PERCENT",
        help="exit with 1 if more of the samples are right in A and wrong in B (negative flip rate)",
    )
    p.add_argument(
        "--twin",
        metavar="RUN",
        help="A's recipe with another seed: what differs between A and it is chance, and stands beside B's",
    )
    return p


def run(argv: list[str]) -> tuple[int, str | None]:
    args, config, foreign = parse_described(parser(), argv)
    if args.top < 1:
        raise Failure(USAGE, f"--top {args.top} is too small", "it must be at least 1")
    for flag, percent in (("--fail-under", args.fail_under), ("--max-nfr", args.max_nfr)):
        if percent is not None and not 0 <= percent <= 100:
            raise Failure(USAGE, f"{flag} {percent:g} is not a percentage", "it is between 0 and 100")
    out = Path(args.out or default_out(args.a, args.b, args.split))

    sides = [open_side(name, args.data_root, config, args.given) for name in (args.a, args.b)]
    split = (
        args.split
        or next((s.predictions.facts["split"] for s in sides if s.predictions), None)
        or sides[0].packed.eval_split
    )
    check(*sides, split)
    if args.twin:
        # its newest checkpoint says whether it is A's recipe; where it is not, nobody misses A's step in it
        for named in dict.fromkeys((args.twin, twin_of(args.twin, args.a, sides[0]))):
            twin = open_side(named, args.data_root, config, args.given)
            known = (causes.settings_of(side.source, side.predictions) for side in (sides[0], twin))
            causes.check_twin(args.twin, *known)
        check(sides[0], twin, split, ("A", "its twin"))
        sides.append(twin)
    for side, folder in zip(sides, ("a", "b", "twin")):
        if not side.predictions:
            code = score(side, split, out / folder, args.data_root, foreign)
            if code:
                return code, None
    a, b, *twins = (side.predictions for side in sides)
    for other in (b, *twins):
        check_alike(a, other)
    if args.max_nfr is not None and not a.roles.classes:
        what = f"--max-nfr is about right and wrong, and these {a.roles.rows} have no classes"
        raise Failure(USAGE, what, "leave it out")

    packed = find_packed(a, b, args.data_root)
    names = names_of(packed, a, b)
    numbers, changed = changes.compare(a, b, names)
    result = {
        "schema": 1,
        **{
            letter: {"name": side.name, "predictions": str(p.path), **p.facts, **changes.quality(p)}
            for letter, side, p in zip("ab", sides, (a, b))
        },
        **numbers,
        **(words.of_classes(a, b, outputs_of(a, b)) if a.roles.classes else {}),
        **causes.between(*((side.source, side.predictions) for side in sides[:2])),
    }
    for twin in twins:
        result["twin"] = words.of_twin(sides[2].name, a, twin)
    tell("\n".join(["", *changes.report(result, a, b, changed, names, args.top), ""]))
    with files.storage(out, "--out FOLDER"):
        out.mkdir(parents=True, exist_ok=True)
        written = results.write(out, result, a, b, changed, packed, names, args.top)
    tell(f"written: {', '.join(written)} in {out}")
    if args.fail_under is not None and 100 * result["agree"] < args.fail_under * result["n"]:
        raise Failure(
            1,
            f"{result['n'] - result['agree']:,} of {result['n']:,} predictions differ: "
            f"{result['agreement']:.2f} % agree, which is under --fail-under {args.fail_under:g}",
        )
    if args.max_nfr is not None and 100 * result["right_to_wrong"] > args.max_nfr * result["n"]:
        raise Failure(
            1,
            f"{result['right_to_wrong']:,} of {result['n']:,} are right in A and wrong in B: a negative flip "
            f"rate of {result['negative_flip_rate']:.2f} %, which is over --max-nfr {args.max_nfr:g}",
        )
    return 0, None


def twin_of(typed: str, a_typed: str, a: Side) -> str:
    """The twin's checkpoint that was chosen as A's was: its best, or the one of A's step."""
    if "@" in typed or typed.endswith(".parquet") or not (rundir.find(typed)[0] / "config.json").exists():
        return typed
    if a_typed.endswith("@best"):
        return f"{typed}@best"
    step = a.source.step if a.source else a.predictions.facts["step"]
    return typed if step is None else f"{typed}@{step}"


def check_alike(a: Predictions, b: Predictions) -> None:
    """Failure 64 or 65 unless both predict the same thing of the same samples."""
    if a.roles != b.roles:
        raise Failure(
            USAGE, f"{a.path} and {b.path} do not predict the same thing", "compare two of one workload"
        )
    if a.truth is not None and not np.array_equal(a.truth, b.truth):
        raise Failure(
            DATA, f"{a.path} and {b.path} do not have the same labels", "write them again: relaunch evaluate"
        )


def outputs_of(a: Predictions, b: Predictions) -> tuple[np.ndarray, np.ndarray] | None:
    """What both models said, logits [N,classes], where both files are there and are of these predictions."""
    found = a.outputs(), b.outputs()
    if any(x is None or x.ndim != 2 for x in found) or found[0].shape != found[1].shape:
        return None
    own = all(np.array_equal(x.argmax(1), p.guess) for x, p in zip(found, (a, b)))
    return found if own else None


def default_out(a: str, b: str, split: str | None) -> Path:
    """`diffs/first-best-vs-second`: the last parts of what was typed that say something."""

    def short(name: str) -> str:
        parts = [
            p
            for p in Path(name.removesuffix(".parquet")).parts
            if p not in ("/", ".", "..", "runs", "checkpoints", "predictions")
        ]
        return re.sub(r"[^\w.]+", "-", "-".join(parts[-2:])).strip("-.") or "here"

    return Path("diffs") / (f"{short(a)}-vs-{short(b)}" + f"-{split}" * bool(split))


def find_packed(a: Predictions, b: Predictions, root: str | None) -> Packed | None:
    """The data that predictions are about: under the data root, or where it was when they were made."""
    for path in (data_root(root) / a.facts["data"], a.data_path(), b.data_path()):
        try:
            packed = path and open_packed(path.resolve(), ".")
        except Failure:
            continue
        if packed and packed.hash == a.facts["data_hash"]:
            return packed
    return None


def names_of(packed: Packed | None, a: Predictions, b: Predictions) -> list[str]:
    """What classes (text: words) are called; numbers where that is not known."""
    if not a.roles.classes:
        return []
    names = packed.names() if packed else []
    return names + [
        str(i) for i in range(len(names), 1 + max(int(c.max()) for c in (a.truth, a.guess, b.guess)))
    ]


if __name__ == "__main__":
    sys.exit(process.main(run))
