"""An .npy, whatever is in it: numpy's own reader says in many ways that a header is damaged."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

DAMAGED = (SyntaxError, tokenize.TokenError, RecursionError, MemoryError, OverflowError, EOFError, TypeError)


def load(source: Path | BinaryIO, mmap: Literal["r", "c"] | None = None) -> np.ndarray:
    """The array, never unpickled. ValueError where it is none, OSError where it cannot be read."""
    try:
        return np.load(source, mmap_mode=mmap, allow_pickle=False)
    except DAMAGED as error:
        raise ValueError(f"its header is damaged: {error}") from error
