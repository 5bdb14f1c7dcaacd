"""No number that is not finite reaches the weights: a step's losses and gradients are seen before its update.

guard.admits(training, losses)    # in a step, after its last backward pass: whether to take the update
guard.refuse(training)            # at its boundary, on every rank: NotFinite says where it came from

On a CPU that is one pass over the gradients, and the update is not called. On a GPU it would cost each step a
wait for the device: there the kernels of SGD, Adam and AdamW are given a flag with which they pass the step
by, and the host reads the numbers a step later, or before anything is logged or saved. Other optimizers have
no such kernel; what they make of the weights until then goes nowhere, because the training ends or takes up a
checkpoint. An fp16 scaler passes by gradients that overflow, as it is there for: with one it is the losses
that are looked at, for which its step waits anyway.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NoReturn

import torch
from torch import Tensor

from relaunch.data_prep.errors import DIVERGED, Failure
from relaunch.trainers import records
from relaunch.trainers.group.missing import named

PASS_BY = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)  # `step` of these takes `found_inf`
# a loss so many times the largest of so many before is far outside: what went wrong in an update shows there,
# and the norms of all gradients cost 5 % of a small step. Healthy ones came to 1.2 (cifar10) and 2.4 (mnist)
FAR, BEFORE = 8.0, 32
LOSS = "the loss"
ONE = torch.ones(1)
FIX = "lower --lr, set --clip, or add --on-nan rollback"


class NotFinite(Failure):
    """Code 70, on every rank: at `step` something (`about`) was not finite, and its update was not taken."""

    def __init__(self, step: int, about: str, kept: str):
        super().__init__(DIVERGED, f"{about} not finite at step {step}, which was not taken; {kept}", FIX)
        self.step, self.about = step, f"{about} not finite"


class Guard:
    """Of one training, in this rank."""

    def __init__(self, training):
        named = [(name, p) for name, p in training.module.named_parameters() if p.requires_grad]
        self.names, self.parameters = zip(*named) if named else ((), ())
        config, cuda = training.config, training.runtime.device.type == "cuda"
        self.repeats = not config.code and (config.deterministic or not cuda)  # a step that is computed twice
        self.on_device = cuda and not training.runtime.accelerator.scaler
        self.forget()

    def forget(self) -> None:
        """As if there had been no step."""
        self.found: tuple[int, str] | None = None  # a step, and what was not finite in it
        self.unread: deque[tuple] = deque()  # what `judge` is given, on its way here, and when it came
        self.losses: deque[float] = deque(maxlen=BEFORE)
        self.far = False  # whether the last one read was far outside
        self.suspects = False  # whether one was, on any rank, and no step has been checked since

    def checks(self, config, step: int) -> bool:
        """Whether a step is to be computed twice, on all ranks alike."""
        if due := self.suspects or bool(config.check_every and step % config.check_every == 0):
            self.far = self.suspects = False
        return due

    def admits(self, training, losses: list[Tensor]) -> bool:
        """Whether this step's update is to be taken; `losses`: of its micro-batches, one number each."""
        step, scaled = training.step + 1, training.runtime.accelerator.scaler
        gradients = [] if scaled else [g for p in self.parameters if (g := p.grad) is not None]
        if not self.on_device and finite(gradients):
            return self.judge(step, [], [loss.item() for loss in losses]) or bool(scaled)
        whose = [name for name, p in zip(self.names, self.parameters) if p.grad is not None]
        numbers = torch.stack([*torch._foreach_norm(gradients), *(loss.view(()) for loss in losses)])
        if not self.on_device:
            return self.judge(step, whose, numbers.tolist())
        if type(training.optimizer) in PASS_BY:
            training.optimizer.found_inf = numbers.isfinite().all().logical_not().float()
        here = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=numbers.is_cuda)
        here.copy_(numbers, non_blocking=True)
        (came := torch.cuda.Event()).record()
        self.unread.append((step, whose, here, came))
        self.read(leave=1)
        return True

    def read(self, leave: int = 0) -> None:
        """Look at the numbers of the steps before the last `leave`. Waits for the device."""
        while len(self.unread) > leave:
            step, whose, here, came = self.unread.popleft()
            came.synchronize()
            self.judge(step, whose, here.tolist())

    def judge(self, step: int, whose: list[str], numbers: list[float]) -> bool:
        """Whether a step's numbers are finite: norms of these parameters' gradients, and the losses."""
        if all(map(math.isfinite, numbers)):
            loss = sum(numbers[len(whose) :])
            self.far = self.repeats and len(self.losses) == BEFORE and loss > FAR * max(self.losses)
            self.losses.append(loss)
            return True
        if not self.found:
            odd = {name for name, n in zip([*whose, *[LOSS] * len(numbers)], numbers) if not math.isfinite(n)}
            self.found = (
                step,
                LOSS if LOSS in odd else f"the gradient of {next(n for n in whose if n in odd)}",
            )
        return False

    def refuse(self, training) -> NoReturn:
        """On every rank, as one of them found something: raise a NotFinite that says where it came from."""
        with training.runtime.waiting():
            self.read()
        told, hosts = training.runtime.gather(self.found), training.runtime.peers.group.hosts
        training.saver.settle()

        def why() -> tuple[int, str, str]:
            step = min(found[0] for found in told if found)
            about = {rank: found[1] for rank, found in enumerate(told) if found and found[0] == step}
            what = f"{next(iter(about.values()))} is"
            if own := {rank for rank in about if about[rank] == LOSS}:  # the others have its gradients
                what = f"the loss of {named(own, hosts)}" if len(hosts) > 1 else f"{LOSS} is"
            saved = records.newest(training.run)
            kept = f"step {saved} is saved" if saved else "nothing is saved yet"
            return step, what, kept

        raise NotFinite(*training.runtime.on_rank_0(why))


def finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers of tensors on a CPU are finite, by the kernel of scalers, which multiplies by 1."""
    tensors = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
    if tensors:
        torch._amp_foreach_non_finite_check_and_unscale_(tensors, odd := torch.zeros(1), ONE)
    return not tensors or not odd.item()
