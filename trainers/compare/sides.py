"""Where the predictions of a comparison come from: a file, or a checkpoint that is evaluated first.

side = open_side("first@best", root=None, config=None, given=frozenset())
code = score(side, "test", Path("diffs/x/a"), root=None, foreign=[])
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.data_prep.packed import Packed, data_root, open_packed
from relaunch.data_prep.recipes import ensure
from relaunch.data_prep.talk import tell
from relaunch.trainers import PROGRAM
from relaunch.trainers.compare import predictions
from relaunch.trainers.compare.predictions import Predictions
from relaunch.trainers.config import RunConfig
from relaunch.trainers.group import process
from relaunch.trainers.weights.source import Source, config_for, open_source


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


def check(a: Side, b: Side, split: str, names: tuple[str, str] = ("A", "B")) -> None:
    """Refuse, before anything is evaluated, what cannot be compared sample by sample."""
    one, other = names
    if a.data[1] != b.data[1]:
        what = (
            f"{one} is about {a.data[0]}, {other} about {b.data[0]}"
            if a.data[0] != b.data[0]
            else f"{one} and {other} are about two different sets named {a.data[0]}"
        )
        raise Failure(
            USAGE,
            what,
            "evaluate both on one set (relaunch evaluate SOURCE --data NAME) and compare the .parquet files",
        )
    for letter, side in ((one, a), (other, b)):
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
                found = predictions.found(path, source, side.data[1], split)
            except Failure as failure:
                tell(f"{failure.what}: evaluating again", sys.stderr)
                continue
            if (
                found and not {"resize", "crop", "views"} & found.facts.get("inputs", {}).keys()
            ):  # by flags not here
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
    tell(f"evaluating {name} …")
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
