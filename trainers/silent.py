"""Hardware that computes wrong without a word: a step run twice, and replicas compared.

first = silent.before(training, forward_backward)    # in a step that is checked, before its passes
silent.after(training, first, losses)                 # Failure 76 if the two differ in a bit
silent.digest(training)                               # of this rank's weights and optimizer state, at a save
silent.refuse_unless_equal(digests, hosts, step)      # on rank 0: Failure 76 names the ranks in the minority

What is compared is bits, so that a fault in the last place counts like one in an exponent.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from relaunch.data_prep.errors import HUNG, Failure
from relaunch.trainers import hardware
from relaunch.trainers.group.faults import fault
from relaunch.trainers.group.missing import named
from relaunch.trainers.guard import LOSS
from relaunch.trainers.weights.state import optimizer_state

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
FIX = "test its memory and processors; --resume auto goes on, best on another machine"


# a step run twice -----------------------------------------------------------------------------------------


def before(training, forward_backward: Callable) -> dict[str, Tensor]:
    """What the step to come computes, if it is one to check; its own passes find everything as it was.

    A single process compares that with what the step itself computes, in `after`. Where the step sums the
    gradients of several, or runs compiled code, two passes without that are compared.
    """
    if not training.guard.checks(training.config, training.step + 1):
        return {}
    found = computed(training, forward_backward)
    if training.runtime.world > 1 or training.elastic or training.model is not training.module:
        compare(training, found, computed(training, forward_backward))
        return {}
    return found


def after(training, first: dict[str, Tensor], losses: list[Tensor]) -> None:
    """Compare what `before` returned with the step's own losses and gradients. Failure 76."""
    if first:
        compare(training, first, results(training, losses))


def results(training, losses: list[Tensor]) -> dict[str, Tensor]:
    """The losses of a step's micro-batches, and the gradients that there are."""
    given = {name: p.grad for name, p in training.module.named_parameters() if p.grad is not None}
    return {LOSS: torch.stack(losses), **{f"the gradient of {name}": g for name, g in given.items()}}


def computed(training, forward_backward: Callable) -> dict[str, Tensor]:
    """The results of this rank's passes for the step to come, without the other ranks.

    Buffers, such as BatchNorm's statistics, are put back; each pass sets the generators that it draws from.
    """
    module = training.module
    named = [(m, name) for m in module.modules() for name, b in m._buffers.items() if b is not None]
    kept = [(m, name, m._buffers[name], m._buffers[name].clone()) for m, name in named]
    count = training.config.grad_accum_steps * training.shards
    losses = [forward_backward(training, module, micro)[0] for micro in range(count)]
    fault("gradient", training.step + 1, module)
    found = results(training, losses)
    training.optimizer.zero_grad()  # by letting go of them: `found` has them
    with torch.no_grad():
        for m, name, buffer, value in kept:
            m._buffers[name] = buffer
            buffer.copy_(value)
    return found


def compare(training, one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    """On every rank: Failure 76 names the first in which the two differ, and what does."""
    runtime, step = training.runtime, training.step + 1

    def alike():
        with runtime.waiting():
            odd = next((name for name in one if not torch.equal(bits(one[name]), bits(two[name]))), None)
        if odd:
            where = named({runtime.rank}, runtime.peers.group.hosts)
            what = f"{where} not to be trusted: step {step} computed twice differs in {odd}"
            raise Failure(HUNG, what, FIX)

    runtime.on_every_rank(alike)


# replicas -------------------------------------------------------------------------------------------------


def digest(training) -> tuple[str, int] | None:
    """(kind of this rank's processor, digest of its weights and optimizer state); None for a single process.

    BatchNorm's statistics are each rank's own, and not in it.
    """
    if training.runtime.world == 1:
        return None
    value, optimizer = 0, optimizer_state(training.optimizer, training.module)
    for tensor in [*training.module.parameters(), *optimizer.values()]:
        part = bits(tensor.detach())
        value = zlib.crc32((ledger(part) if part.is_cuda else part).contiguous().numpy(), value)
    return kind(training.runtime.device.type), value


def bits(tensor: Tensor) -> Tensor:
    """A tensor's bits as integers [n], in the order in which they lie in memory if they lie dense."""
    dims = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return tensor.permute(dims).reshape(-1).view(INTEGERS.get(tensor.element_size(), torch.int64))


def ledger(numbers: Tensor) -> Tensor:
    """Sums of the rows and columns of integers [n], written as a square, and what is left over: on the host.

    They are made where the numbers are; two faults that leave one sum alone do not leave the other.
    """
    width = max(1, math.isqrt(len(numbers)))
    square, rest = numbers[: width * width].view(width, width), numbers[width * width :]
    return torch.cat([square.sum(0), square.sum(1), rest.long()]).cpu()


@functools.cache
def kind(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else hardware.cpu()


def refuse_unless_equal(digests: Sequence[tuple[str, int] | None], hosts: list[str], step: int) -> None:
    """Failure 76 unless all ranks hold equal numbers; another kind of processor may round in another way."""
    for kind in {found[0] for found in digests if found}:
        ranks = {rank: found[1] for rank, found in enumerate(digests) if found and found[0] == kind}
        votes = Counter(ranks.values())
        (right, most), *others = votes.most_common()
        if others:
            tie = others[0][1] == most
            odd = {rank for rank, value in ranks.items() if tie or value != right}
            what = (
                f"{named(odd, hosts)} not to be trusted: the weights of all ranks should be equal and are not"
            )
            raise Failure(HUNG, f"{what} at step {step}, which is not saved", FIX)
