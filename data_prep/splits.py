"""Splits: the names that people give them, and validation that is taken out of train.

    Holdout(fraction=0.1).rows(labels)    # which of the train rows become val

Which rows is a pure function of the labels in the source's order: stratified by class, the same on every
machine and with every version of NumPy (RandomState is frozen).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import nearest, quoted, some

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLITS = {name: split for split, names in NAMES.items() for name in names}
SEED = 0  # of every holdout ever made: another one would be another set under the same options
TAKE = "add --val-fraction 0.1, which takes a tenth of train"  # the fix where a source has no validation


def split_of(name: str) -> str | None:
    """`train`, `val` or `test` for a folder or split of any usual name and case, else None."""
    return SPLITS.get(name.lower())


def like_splits(names: Iterable[str]) -> list[str]:
    """Names that seem to mean different splits without being one: seg_train and seg_test."""
    parts = {name: {split_of(part) for part in re.split(r"[^A-Za-z]+", name)} - {None} for name in names}
    return sorted(name for name in parts if parts[name]) if len(set().union(*parts.values())) > 1 else []


def one_name_each(names: Any, source: str) -> dict[str, str]:
    """Name -> split for those that are one. Failure 65 if two names mean the same split."""
    found: dict[str, str] = {}
    for name in names:
        if split := split_of(name):
            if same := [other for other, known in found.items() if known == split]:
                raise Failure(
                    DATA,
                    f"{source} has both '{same[0]}' and '{name}': which one is {split}?",
                    "pass a source that has only one of them",
                )
            found[name] = split
    return found


@dataclass(frozen=True)
class Holdout:
    """How much of train becomes val: a fraction, or a number of images (of words, for texts)."""

    fraction: float | None = None
    count: int | None = None

    def size(self, total: int) -> int:
        """How many of `total`. Failure 64 if none would be left on either side."""
        size = round(total * self.fraction) if self.fraction is not None else self.count or 0
        if not 0 < size < total:
            asked = f"--holdout {self.count}" if self.fraction is None else f"--val-fraction {self.fraction}"
            raise Failure(USAGE, f"{asked} takes {size:,} of {total:,} from train", "choose another share")
        return size

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """bool [N] for labels int64 [N]: each class gives its share, the parts of a unit go to the largest
        remainders, and a class keeps at least one train image."""
        counts = np.bincount(labels)
        size = self.size(len(labels))
        if size > (spare := int(np.maximum(counts - 1, 0).sum())):
            raise Failure(
                USAGE,
                f"{size:,} of {len(labels):,} for val would leave a class without train images",
                f"choose at most {spare:,}",
            )
        exact = counts * (size / len(labels))
        taken = np.minimum(np.floor(exact).astype(int), np.maximum(counts - 1, 0))
        while short := size - int(taken.sum()):
            room = np.flatnonzero(taken < counts - 1)
            taken[room[np.argsort((taken - exact)[room], kind="stable")][:short]] += 1
        held, random = np.zeros(len(labels), bool), np.random.RandomState(SEED)
        for label, number in enumerate(taken):
            rows = np.flatnonzero(labels == label)
            held[rows[random.permutation(len(rows))[:number]]] = True
        return held

    def cut(self, tokens: np.ndarray, end_of_line: int) -> int:
        """Where val begins in a stream of token ids [N]: its last part, from the beginning of a line."""
        at = len(tokens) - self.size(len(tokens))
        ends = np.flatnonzero(tokens[at - 1 : -1] == end_of_line)
        return at + int(ends[0]) if len(ends) else at


def refuse_unknown(unknown: Any, known: Iterable[str], source: str, what: str = "images") -> None:
    """Failure 65 for classes of val or test, written `split/class`, that are none of train's, the `known`."""
    if unknown:
        first = min(unknown)
        near = nearest(first.partition("/")[2], known)
        raise Failure(
            DATA,
            f"{source}: no train {what} for {some(unknown)}",
            (f"is {quoted(first)} train's {quoted(near)}? " if near else "")
            + "give every class of val and test train images too, under the same name",
        )
