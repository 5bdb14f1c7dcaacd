"""Which predictions changed between two checkpoints, and whether that is more than chance.

python -m trainers.diff first@best second --split test
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.data_prep.packed import Packed, data_root, open_packed
from relaunch.data_prep.recipes import ensure
from relaunch.trainers import PROGRAM
from relaunch.trainers.compare import changes, predictions, results
from relaunch.trainers.compare.predictions import Predictions
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.weights.source import Source, config_for, open_source, parse_described


def parser() -> Parser:
    p = Parser(
        prog="relaunch diff",
        description=(
            "Say which predictions changed from A to B, how many each way, and whether that is chance.\n"
            "What has not been evaluated yet is evaluated first.\n\n"
            "  relaunch diff first@best second             two runs, on the evaluation split\n"
            "  relaunch diff first@1000 first@2000 --fail-under 99\n"
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
    return p


@dataclass
class Side:
    """A or B: predictions, or a source that is to be evaluated on `packed` first."""

    name: str
    predictions: Predictions | None = None
    source: Source | None = None
    packed: Packed | None = None

    @property
    def data(self) -> tuple[str, str]:
        """(name, hash) of the data: a checkpoint's are those that it was trained on."""
        if self.predictions:
            return self.predictions.facts["data"], self.predictions.facts["data_hash"]
        return self.packed.name, self.source.meta.get("data_hash", self.packed.hash)


def run(argv: list[str]) -> tuple[int, str | None]:
    args, config, foreign = parse_described(parser(), argv)
    if args.top < 1:
        raise Failure(USAGE, f"--top {args.top} is too small", "it must be at least 1")
    if args.fail_under is not None and not 0 <= args.fail_under <= 100:
        raise Failure(
            USAGE, f"--fail-under {args.fail_under:g} is not a percentage", "it is between 0 and 100"
        )
    out = Path(args.out or default_out(args.a, args.b, args.split))

    sides = [open_side(name, args.data_root, config, args.given) for name in (args.a, args.b)]
    split = (
        args.split
        or next((s.predictions.facts["split"] for s in sides if s.predictions), None)
        or sides[0].packed.eval_split
    )
    check(sides, split)
    for side, folder in zip(sides, ("a", "b")):
        if not side.predictions:
            code = score(side, split, out / folder, args.data_root, foreign)
            if code:
                return code, None
    a, b = (side.predictions for side in sides)
    if a.roles != b.roles:
        raise Failure(
            USAGE, f"{a.path} and {b.path} do not predict the same thing", "compare two of one workload"
        )
    if a.truth is not None and not np.array_equal(a.truth, b.truth):
        raise Failure(
            DATA, f"{a.path} and {b.path} do not have the same labels", "write them again: relaunch evaluate"
        )

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
    }
    process.tell("\n".join(["", *changes.report(result, a, b, changed, names, args.top), ""]))
    with files.storage(out, "--out FOLDER"):
        out.mkdir(parents=True, exist_ok=True)
        written = results.write(out, result, a, b, changed, packed, names, args.top)
    process.tell(f"written: {', '.join(written)} in {out}")
    if args.fail_under is not None and 100 * result["agree"] < args.fail_under * result["n"]:
        raise Failure(
            1,
            f"{result['n'] - result['agree']:,} of {result['n']:,} predictions differ: "
            f"{result['agreement']:.2f} % agree, which is under --fail-under {args.fail_under:g}",
        )
    return 0, None


# where predictions come from ----------------------------------------------------------------------


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


def open_side(name: str, root: str | None, config: RunConfig | None, given: Set[str]) -> Side:
    if name.endswith(".parquet"):
        found = predictions.read(name)
        if found.roles.view == "images" and found.facts["step"] is None and "inputs" not in found.facts:
            what = f"{name} is of foreign weights and does not say how their images were normalised"
            raise Failure(DATA, what, "write it again: relaunch evaluate FILE … --normalise")
        return Side(name, found)
    source = open_source(name)
    data = config_for(source, config, given).data
    ensure(data, data_root(root))
    return Side(name, source=source, packed=open_packed(data, data_root(root)))


def check(sides: list[Side], split: str) -> None:
    """Refuse, before anything is evaluated, what cannot be compared sample by sample."""
    a, b = sides
    if a.data[1] != b.data[1]:
        what = (
            f"A is about {a.data[0]}, B about {b.data[0]}"
            if a.data[0] != b.data[0]
            else f"A and B are about two different sets named {a.data[0]}"
        )
        raise Failure(
            USAGE,
            what,
            "evaluate both on one set (relaunch evaluate SOURCE --data NAME) and compare the .parquet files",
        )
    for letter, side in zip("AB", sides):
        if side.packed:
            side.packed.check_split(split)
        elif side.predictions.facts["split"] != split:
            raise Failure(
                USAGE,
                f"{letter} is about the split {side.predictions.facts['split']}, not {split}",
                "compare predictions of one split",
            )


def score(side: Side, split: str, folder: Path, root: str | None, foreign: list[str]) -> int:
    """Find the predictions of this very checkpoint, or evaluate it, in a process whose exit code is returned.

    They go into the checkpoint's run if that can be written to, else into `folder`.
    """
    source = side.source
    inside = source.run.predictions if source.run else folder
    home = (
        inside
        if source.run and os.access(inside if inside.exists() else source.run.path, os.W_OK)
        else folder
    )
    for path in {predictions.place(f, split, source): None for f in (inside, folder)}:
        if source.config and path.exists():  # a foreign file's predictions depend on the flags given with it
            try:
                found = predictions.read(path)
            except Failure as failure:
                process.tell(f"{failure.what}: evaluating again", sys.stderr)
                continue
            facts = found.facts
            resized = {"resize", "crop"} & facts.get("inputs", {}).keys()  # by flags that are not here
            this = (facts["model_sha256"], facts["data_hash"], facts["split"])
            if this == (source.sha256, side.data[1], split) and not resized:
                side.predictions = found
                return 0
    command = [sys.executable, PROGRAM, "evaluate", str(source.path), "--split", split, "--out", str(home)]
    command += ["--data-root", root] if root else []
    code = wait([*command, *([] if source.config else foreign)], side.name)
    if code == 0:
        side.predictions = predictions.read(predictions.place(home, split, source))
    return code


def wait(command: list[str], name: str) -> int:
    """Run an evaluation to its end, which a signal to us hastens; its exit code."""
    process.tell(f"evaluating {name} …")
    child = subprocess.Popen(
        command, env={k: v for k, v in os.environ.items() if k != "RELAUNCH_OUTCOME"}
    )  # that file is for ours
    while True:
        try:
            code = child.wait(0.2)
            break
        except subprocess.TimeoutExpired:
            if process.asked_to_stop():
                child.terminate()
    if code < 0 and process.asked_to_stop():  # it died before it could listen
        raise Failure(PREEMPTED, "stopped before the comparison", "run it again")
    if code < 0:
        raise Failure(
            128 - code, f"the evaluation of {name} was killed by signal {-code}", "see whether memory ran out"
        )
    return code


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
