"""Rows of a memory map, asked of the kernel some steps before they are read: for sets larger than the memory.

    ahead = Ahead.of(array)     # None where it can
    ahead.want(ids)             # returns at once

Each row of a shuffled epoch is otherwise a page fault, in which the training waits for the disk, and for ten
times the row: the kernel reads the neighbourhood, too, which nobody wants by the time it is thrown out.
"""

from __future__ import annotations

import os
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from relaunch.data_prep import limits

STEPS = 4  # between asking and reading: as fast as eight, where one and two still wait for the disk


class Ahead:
    """One mapped array."""

    def __init__(self, array: np.memmap):
        self.offset, self.bytes = array.offset, array[0].nbytes
        self.file = os.open(str(array.filename), os.O_RDONLY)
        weakref.finalize(self, os.close, self.file)
        self.helper = ThreadPoolExecutor(1)  # a request for a row takes 20 us

    @staticmethod
    def of(array: np.ndarray | None) -> Ahead | None:
        """For an array that is mapped and larger than the memory that is free here; None for any other."""
        if not isinstance(array, np.memmap) or not hasattr(os, "posix_fadvise"):
            return None
        known = [size for size in (limits.available(), limits.memory()) if size is not None]
        return Ahead(array) if known and array.nbytes > min(known) else None

    def want(self, ids: np.ndarray) -> None:
        """These rows int64 [B] will be read soon."""
        self.helper.submit(self.ask, ids)

    def ask(self, ids: np.ndarray) -> None:
        for row in np.sort(ids).tolist():
            os.posix_fadvise(self.file, self.offset + row * self.bytes, self.bytes, os.POSIX_FADV_WILLNEED)
