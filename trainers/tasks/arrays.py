"""Arrays and their classes: rows of a table, signals, anything that is float32 [N,…]."""

from __future__ import annotations

from dataclasses import dataclass

from relaunch.trainers.tasks.samples import SampleTask


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """For a workload without settings of its own."""


class ArrayTask(SampleTask):
    """Inputs with the training set's mean 0 and deviation 1, and their classes.

    Of inputs [N,F] each feature is normalised, of all others the whole.
    """

    kind = "arrays"

    def open(self, packed, split, device):
        from relaunch.trainers.tasks.sample_batches import Arrays

        return Arrays(packed, split, device)
