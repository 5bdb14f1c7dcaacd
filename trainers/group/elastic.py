"""Gradients that are the same bits on 1, 2, 4 and 8 processes (--elastic-exact).

    for micro in elastic.micro_batches(each=1, spent=spent):
        ...                                  # forward and back, which adds to `.grad`
    # here `.grad` is the mean over the SHARDS shards of the batch, equal on all processes

What a shard computes depends on nothing else: it begins with the buffers of the step before. Its gradient is
added to the others' in a fixed tree, ((0+1)+(2+3))+((4+5)+(6+7)): a process has whole branches of it, and the
branches are added up in the same tree. So do EasyScale's virtual workers (Li et al., SC'23).

Memory of a process beside its gradients, in their size: 3 on one process, 2 on several.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.shards import SHARDS
from relaunch.trainers.spent import Spent

TIMED = 64  # on a GPU one step in so many is timed: its end has to be waited for


def branch(kept: list[list[Tensor]], i: int, tensors: list[Tensor]) -> None:
    """Add list `i` (0, 1, 2, …) of some lists of tensors to the tree of those before it, in place.

    `kept` holds its finished branches, at most one of each height; after 2^n lists one is left, their sum.
    """
    while i & 1:
        below = kept.pop()
        torch._foreach_add_(below, tensors)
        tensors, i = below, i >> 1
    kept.append(tensors)


class Elastic:
    """The gradients and buffers of a model, on one of the processes that train it."""

    def __init__(self, runtime, model: nn.Module):
        """All processes take rank 0's model, which is on its device already.

        Failure 64 for a layer that speaks to other processes itself.
        """
        if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
            what = "--elastic-exact keeps the shards of a batch apart, and SyncBatchNorm mixes them"
            raise Failure(USAGE, what, "use BatchNorm, or leave --elastic-exact out")
        self.runtime, self.shards = runtime, SHARDS // runtime.world
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        constant = set(runtime.constant(model))
        self.buffers = [buffer for name, buffer in model.named_buffers() if name not in constant]
        self.steps = self.timed = 0
        self.seconds = 0.0  # of the timed steps, beside forward and back
        self.first = 0.0  # of the first step, in which a model may be compiled
        self.from_rank_0([*model.parameters(), *model.buffers()])

    def micro_batches(self, each: int, spent: Spent) -> Iterator[int]:
        """The numbers of this process's micro-batches of a step, `each` of a shard: see above."""
        kept: list[list[Tensor]] = []
        before, first = copies(self.buffers), self.buffers
        used = [False] * len(self.parameters)  # by a shard
        for shard in range(self.shards):
            if shard:
                fill(self.buffers, before)
            yield from range(shard * each, (shard + 1) * each)
            spent.switch("communication")
            began = self.clock()
            used = [was or p.grad is not None for was, p in zip(used, self.parameters)]
            branch(kept, shard, self.taken())
            if not shard:
                first = copies(self.buffers)
            self.seconds += self.clock() - began
        began = self.clock()
        fill(self.buffers, first)
        self.from_rank_0(self.buffers)  # whose first shard is that of the batch
        self.finish(kept.pop(), used)
        self.seconds += self.clock() - began
        self.first = self.first or spent.of_rank()["steps"]
        self.timed += self.times
        self.steps += 1

    def taken(self) -> list[Tensor]:
        """The gradients, which are let go of."""
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        for p in self.parameters:
            p.grad = None
        return found

    def finish(self, sums: list[Tensor], used: list[bool]) -> None:
        """From this rank's sums to the mean over all shards."""
        self.exchange(sums)
        torch._foreach_mul_(sums, 1 / SHARDS)  # a power of two: it rounds nothing
        if self.runtime.unused:  # of such a model what no shard used is left alone, as it is on one process
            used = [bool(n) for n in self.runtime.sum(list(map(float, used)))]
        for p, gradient, was in zip(self.parameters, sums, used):
            p.grad = gradient if was or not self.runtime.unused else None

    def exchange(self, sums: list[Tensor]) -> None:
        """Put the sum over all ranks in place of each rank's. Each rank adds up a piece of it."""
        world = self.runtime.world
        for some in alike(sums) if world > 1 else ():
            flat = packed(some, world)
            pieces = torch.empty_like(flat)
            with self.runtime.peers.waiting("exchange of the gradients"):
                dist.all_to_all_single(pieces, flat)  # its own piece, of each rank
                of_rank, kept = pieces.view(world, -1), list[list[Tensor]]()
                for rank, piece in enumerate(of_rank):
                    branch(kept, rank, [piece])
                of_rank[1:] = of_rank[0].clone()  # in which the sum is
                dist.all_to_all_single(flat, pieces)  # gloo's all_gather takes 1.5 times as long
            unpack(flat, some)

    def from_rank_0(self, tensors: list[Tensor]) -> None:
        for some in alike(tensors) if self.runtime.world > 1 else ():
            flat = packed(some)
            with self.runtime.peers.waiting("broadcast of the weights"):
                dist.broadcast(flat, src=0)
            unpack(flat, some)

    # what it costs ------------------------------------------------------------------------------------------

    @property
    def times(self) -> bool:
        """Whether this step is timed. Not the first: NCCL connects in it."""
        return self.steps % TIMED == 1 if self.runtime.device.type == "cuda" else self.steps > 0

    def clock(self) -> float:
        """Seconds, by which what was begun is done; 0 in a step that is not timed."""
        if not self.times:
            return 0.0
        self.runtime.wait_for_device()
        return time.perf_counter()

    def cost(self, spent: Spent) -> str:
        """A line of it, when the steps of this start are done; empty if none was timed."""
        if not self.timed:
            return ""
        step = (spent.of_rank()["steps"] - self.first) / (self.steps - 1)
        share = 100 * self.seconds / self.timed / step
        return f"--elastic-exact: adding up the gradients of {SHARDS} shards took {share:.1f} % of a step"


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def alike(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors, by type."""
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.dtype, []).append(tensor)
    return list(found.values())


def packed(tensors: list[Tensor], world: int = 1) -> Tensor:
    """All in one [N], which `world` divides."""
    rest = -sum(tensor.numel() for tensor in tensors) % world
    return torch.cat([*(tensor.detach().reshape(-1) for tensor in tensors), tensors[0].new_zeros(rest)])


def unpack(flat: Tensor, tensors: list[Tensor]) -> None:
    parts = flat.split([*(tensor.numel() for tensor in tensors), len(flat) - sum(map(Tensor.numel, tensors))])
    fill(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors)])


@torch.no_grad()
def fill(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values):
        tensor.copy_(value)
