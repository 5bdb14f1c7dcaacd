"""How a run judges a split: its newest predictions, with the data that they are about.

found = newest(Told.of(RunDir("runs/first")), None)
blocks = judgement(found, images=96)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.names import quoted
from relaunch.data_prep.packed import Packed, data_root, open_packed
from relaunch.trainers import records
from relaunch.trainers.compare import predictions
from relaunch.trainers.compare.predictions import Predictions
from relaunch.trainers.pages.blocks import Note
from relaunch.trainers.pages.told import Told

NAME = re.compile(r"(\w+)-(\d{9})\.parquet")


@dataclass
class Judged:
    """The predictions of a run on a split, and the data that they are about, where it is here."""

    run: Told
    p: Predictions
    packed: Packed | None
    names: list[str]  # of the classes or words
    passed: list[Note]  # newer predictions that cannot be read

    @property
    def split(self) -> str:
        return self.p.facts["split"]


def newest(run: Told, root: str | None, split: str = "") -> Judged | Note:
    """Its predictions of the newest step, on the evaluation split rather than another; or what is missing."""
    found = [
        (m[1], int(m[2]), path) for path in records.predictions(run.run) if (m := NAME.fullmatch(path.name))
    ]
    found = [f for f in found if not split or f[0] == split]
    order = {"val": 2, "test": 1}
    passed: list[Note] = []
    for _, _, path in sorted(found, key=lambda f: (f[1], order.get(f[0], 0)), reverse=True):
        try:
            p = predictions.read(path)
        except Failure as failure:
            passed.append(Note(f"{failure.what}: passed by"))
            continue
        packed = data_of(p, root)
        return Judged(run, p, packed, names_of(p, packed), passed)
    command = f"relaunch evaluate {run.run.argument}" + f" --split {quoted(split)}" * bool(split)
    if run.step and records.newest(run.run) is None:
        return Note(f"{run.name} has no predictions and no checkpoint to make them with.")
    return Note(f"{run.name} has no predictions yet: {command}")


def data_of(p: Predictions, root: str | None) -> Packed | None:
    """The set that predictions are about: under the data root, or where it was when they were made."""
    for path in (data_root(root) / p.facts["data"], p.data_path()):
        try:
            packed = path and open_packed(path.resolve(), ".")
        except Failure:
            continue
        if packed and packed.hash == p.facts["data_hash"]:
            return packed
    return None


def names_of(p: Predictions, packed: Packed | None) -> list[str]:
    """What classes, or words, are called; numbers where that is not known."""
    if not p.roles.classes or p.truth is None or p.guess is None:
        return []
    names = packed.names() if packed else []
    return names + [str(i) for i in range(len(names), 1 + int(max(p.truth.max(), p.guess.max())))]


def judgement(found: Judged, images: int) -> list:
    """Blocks on one run's predictions; `images`: how many pictures of mistakes at most."""
    from relaunch.trainers.pages import classes, guesses

    p, blocks = found.p, [*found.passed]
    behind = found.run.step - (p.facts["step"] or found.run.step)
    if behind > 0:
        command = f"relaunch evaluate {found.run.run.argument}"
        told = f"These are of step {p.facts['step']:,}, and the run is at step {found.run.step:,}"
        blocks.append(Note(f"{told}: {command}"))
    if p.roles.view == "text":
        return [*blocks, *guesses.words(found)]
    if p.roles.classes:
        return [*blocks, *classes.classes(found), *classes.mistakes(found, images)]
    if p.roles.numbers:
        return [*blocks, *guesses.residuals(found, images)]
    return [*blocks, *guesses.worst(found, images)]
