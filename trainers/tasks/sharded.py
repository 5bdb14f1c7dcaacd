"""Batches in the shards of --elastic-exact: each has sums of its own, whichever process took it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from relaunch.trainers.shards import SHARDS
from relaunch.trainers.tasks.task import Batches


class Sharded:
    """A rank's batches (see task.Batches), one after the other those of its shards, which are consecutive.

    Sums of numbers depend on their order: here each shard has its own, SHARDS x those of a task, and those of
    other ranks are 0 on this one. What is made of them is added up in the order of the shards.
    """

    def __init__(self, batches: Batches, rank: int, world: int, each: int):
        """`batches`: this rank's; `each`: micro-batches of a shard."""
        self.batches, self.each = batches, each
        self.own = range(SHARDS // world * rank, SHARDS // world * (rank + 1))  # this rank's shards
        self.sums = SHARDS * batches.sums

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)

    def batch(self, step: int, micro: int) -> tuple[Tensor, ...]:
        return self.batches.batch(step, micro)

    def loss(self, model: Callable, batch: tuple[Tensor, ...]) -> tuple[Tensor, tuple]:
        return self.batches.loss(model, batch)

    def add(self, sums: list[float], seen: list[tuple]) -> None:
        """Of whole steps, in order."""
        for i, shard in enumerate(self.own):
            at, step = self.place(shard), self.each * len(self.own)
            mine = [metrics for n, metrics in enumerate(seen) if n % step // self.each == i]
            part = sums[at]
            if mine:
                self.batches.add(part, mine)
            sums[at] = part

    def metrics(self, sums: list[float]) -> dict[str, float]:
        return self.batches.metrics([sum(sums[i :: self.batches.sums]) for i in range(self.batches.sums)])

    def look(self) -> dict[str, Any]:
        return self.batches.look()

    def mine(self, sums: list[float]) -> list[float]:
        """Of the sums of all ranks, added up, those of this rank's shards; 0 for the others."""
        kept = range(self.place(self.own[0]).start, self.place(self.own[-1]).stop)
        return [value if i in kept else 0.0 for i, value in enumerate(sums)]

    def place(self, shard: int) -> slice:
        return slice(shard * self.batches.sums, (shard + 1) * self.batches.sums)
