"""What is scored of a split, batch by batch, in whole columns."""

from __future__ import annotations

import numpy as np


class Columns:
    """Parts {name: [B,…]}, together at most `rows` long: many small ones would cut up a model's memory."""

    def __init__(self, rows: int):
        self.rows, self.count = rows, 0
        self.whole: dict[str, np.ndarray] = {}

    def add(self, part: dict[str, np.ndarray]) -> None:
        """ValueError if one has another shape than in the first part, KeyError if one is missing."""
        if not self.whole:
            self.whole = {n: np.empty((self.rows, *x.shape[1:]), x.dtype) for n, x in part.items()}
        begin, self.count = self.count, self.count + len(part["id"])
        for name, column in self.whole.items():
            np.concatenate([part[name]], out=column[begin : self.count])

    def filled(self) -> dict[str, np.ndarray]:
        return {name: column[: self.count] for name, column in self.whole.items()}


def by_id(of_ranks: list[dict[str, np.ndarray]], rows: int) -> dict[str, np.ndarray]:
    """The columns of all ranks, of which some may have none, in the order of `id`: 0 to rows - 1."""
    parts = [columns for columns in of_ranks if columns]
    joined = {name: np.concatenate([columns[name] for columns in parts]) for name in parts[0]}
    sorting = np.argsort(joined["id"], kind="stable")
    joined = {name: column[sorting] for name, column in joined.items()}
    assert np.array_equal(joined["id"], np.arange(rows)), "every sample exactly once"
    return joined
