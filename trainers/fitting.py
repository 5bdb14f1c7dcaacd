"""The micro-batch of --micro-batch auto: the largest that fits the memory, tried before the run is written.

    config = fitting.fitted(config, packed, runtime)    # with its grad_accum_steps

Micro-batches of growing size are taken, a forward and a backward pass each, by a model that is thrown away.
On a GPU the first that finds no memory is too large. A CPU finds memory until the kernel ends the process: so
what the next size will take is foreseen from what the last two took.
"""

from __future__ import annotations

import dataclasses
import os
import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from relaunch.data_prep import limits
from relaunch.data_prep.errors import HARDWARE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers import shards
from relaunch.trainers.build import make_batches, make_model, make_optimizer
from relaunch.trainers.config import RunConfig
from relaunch.trainers.group.process import Lost, fits
from relaunch.trainers.workloads import own

ROOM = 0.9  # share of the memory that is taken: what is freed and asked for again leaves gaps
ROUNDING = 32e6  # bytes that a process takes at a time, whatever a batch needs


def fitted(config: RunConfig, packed, runtime) -> RunConfig:
    """The config with as few micro-batches as fit on every rank; a line says what was found.

    Failure 64 where the batch does not divide by the ranks, 69 where its smallest part does not fit.
    """
    if problem := shards.problem(config, runtime.world):
        raise problem
    with runtime.trial(), all_but_a_rest(runtime.device):
        found, why = largest(Trial(config, packed, runtime))
    parts = shards.micro_batch(config, runtime.world) // found  # as yet in one
    if runtime.main:
        each = "a shard" if config.elastic_exact else "a step"
        said = f"--micro-batch auto: {found} at a time, {parts} micro-batch{'es' * (parts > 1)} {each}"
        tell(f"{said}; {why}" if why else said)
    return dataclasses.replace(config, grad_accum_steps=parts)


def largest(trial: Trial) -> tuple[int, str]:
    """The largest micro-batch that fits on every rank, and why it is no larger."""
    runtime, found = trial.runtime, 0
    for size in shards.micro_batches(trial.config, runtime.world):
        tried = runtime.on_every_rank(partial(trial.take, size))
        failure = next(filter(None, runtime.broadcast(runtime.gather(tried))), None)
        if failure and not found:
            raise failure
        if failure:
            return found, failure.what
        found = size
    unknown = runtime.device.type == "cpu" and trial.room is None
    return found, "how much memory there is cannot be told here" if unknown else ""


class Trial:
    """A training on this rank alone, whose micro-batches have any size."""

    def __init__(self, config: RunConfig, packed, runtime):
        # what is trained is as large whoever reads it
        self.config = dataclasses.replace(config, input="packed", workers=0, raw=None)
        self.packed, self.runtime = packed, runtime
        self.model = self.optimizer = None
        self.room = room() if runtime.device.type == "cpu" else None  # bytes
        self.took = [(0, peak())]  # (size, bytes) of the last two

    def take(self, size: int) -> Failure | None:
        """Why a micro-batch of this size does not fit; None if it does."""
        what = f"{size} at a time do not fit"
        fix = "choose a smaller model or batch, or more processes"
        if self.room and (needs := self.foreseen(size)) > self.room:
            which = f"about {needs / 1e9:.1f} GB, and a process has {self.room / 1e9:.1f} GB here"
            return Failure(HARDWARE, f"{what} ({which})", fix)
        try:
            with own.blamed(), fits(fix):
                parts = shards.micro_batch(self.config, self.runtime.world) // size
                self.step(dataclasses.replace(self.config, grad_accum_steps=parts))
        except Lost as lost:
            return Failure(lost.code, f"{what}: {lost.what}", fix)  # without the tensors of its traceback
        self.took = [self.took[-1], (size, peak())]
        return None

    def foreseen(self, size: int) -> float:
        """Bytes that the process will have taken after a micro-batch of this size."""
        if len(self.took) < 2:
            return 0.0
        (one, small), (two, large) = self.took
        return large + (large - small + ROUNDING) / (two - one) * (size - two)

    def step(self, config: RunConfig) -> None:
        """A forward and a backward pass, with gradients and the optimizer's state there as in a training."""
        runtime, device = self.runtime, self.runtime.device
        torch.cuda.empty_cache()  # or what is kept of the size before looks taken to `make_batches`
        if self.model is None:
            self.model = make_model(config, self.packed.sizes).to(device)
            self.optimizer = make_optimizer(config, self.model)
            copies = shards.copies(config, runtime.world)
            self.kept = [torch.zeros_like(p) for p in self.model.parameters() for _ in range(copies)]
            self.trained = runtime.alone(self.model)
        batches = make_batches(config, self.packed, device, runtime.rank, runtime.world)
        loss, _ = batches.loss(self.trained, batches.batch(0, 0))
        loss.backward()
        if not self.optimizer.state:
            self.optimizer.step()
        runtime.wait_for_device()


@contextmanager
def all_but_a_rest(device: torch.device):
    """A GPU's allocator gives ROOM of its memory and no more. A CPU's is foreseen: see `room`."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(ROOM, device)
    yield
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def room() -> float | None:
    """Bytes that this process may take in all, beside others that take as much; None where nobody says it."""
    available, granted = limits.available(), limits.memory()
    if available is None:
        return None
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return ROOM * min(available / local + resident("VmRSS"), granted / local if granted else available)


def peak() -> int:
    """Bytes that this process had in memory at most."""
    return resident("VmHWM")


def resident(name: str) -> int:
    """A size of this process in bytes, as Linux calls it; 0 where it does not tell."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
