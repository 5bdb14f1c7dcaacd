"""Mean and deviation of train's inputs and of its numbers to predict, computed once, when a set is packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROWS = 1 << 16  # at a time: float64 copies of this many


def of_inputs(folder: Path, notes: list[str]) -> tuple[list[float], list[float]]:
    """Of each feature of inputs [N,F]; of any others, of all their numbers together."""
    inputs = np.load(folder / "train" / "inputs.npy", mmap_mode="r")
    return moments(inputs if inputs.ndim == 2 else inputs.reshape(-1, 1), "inputs", notes)


def of_targets(folder: Path, notes: list[str]) -> dict[str, list[float]] | None:
    """Of each of the K numbers to predict; None where labels are classes, or there are none."""
    path = folder / "train" / "labels.npy"
    labels = np.load(path, mmap_mode="r") if path.exists() else np.zeros(0, np.int64)
    if labels.dtype.kind != "f":
        return None
    mean, std = moments(labels.reshape(len(labels), -1), "targets", notes)
    return {"mean": mean, "std": std}


def moments(columns: np.ndarray, what: str, notes: list[str]) -> tuple[list[float], list[float]]:
    """Of each column of [N,F], in float64. A constant one gets the deviation 1, and a line in `notes`."""
    blocks = [columns[first : first + ROWS] for first in range(0, len(columns), ROWS)]
    mean = sum(block.sum(0, dtype=float) for block in blocks) / len(columns)
    std = np.sqrt(sum(((block - mean) ** 2).sum(0) for block in blocks) / len(columns))
    constant = std <= 1e-7 * np.abs(mean)  # float32 knows no smaller differences
    if constant.any():
        notes.append(
            f"{constant.sum():,} of {len(std):,} columns of train's {what} are constant, the first is column "
            f"{constant.argmax()}: they are divided by 1"
        )
    return mean.tolist(), np.where(constant, 1.0, std).tolist()
