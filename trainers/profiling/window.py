"""Steps of a training as they are taken: with a clock alone, or with torch's profiler around them.

window = Window(training)
window.start(); window.advance(); window.stop()    # real steps of this training, which change no other bit
window.found()                                     # what a step takes, and what it is made of
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function

from relaunch.trainers import summary
from relaunch.trainers.profiling import figures


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Took(NamedTuple):
    """Seconds of a step: on the wall, and of this process's processors."""

    wall: float
    busy: float


def clocked(call: Callable[[], None]) -> Took:
    wall, busy = time.perf_counter(), time.process_time()
    call()
    return Took(time.perf_counter() - wall, time.process_time() - busy)


def wait(took: list[Took], device: torch.device) -> None:
    """On a GPU, wait until all steps are done: this is the time of the last one, too."""
    more = clocked(lambda: synchronize(device))
    took[-1:] = [Took(last.wall + more.wall, last.busy + more.busy) for last in took[-1:]]


def timed(training, advance: Callable[[], None], steps: int) -> list[Took]:
    """What each of some steps takes."""
    synchronize(training.runtime.device)
    took = [clocked(advance) for _ in range(steps)]
    wait(took, training.runtime.device)
    return took


def typical(took: list[Took], device: torch.device) -> float:
    """Seconds of a step: the median, as what else runs here disturbs some; on a GPU, where the end of a
    single step is not seen, the mean.
    """
    walls = [t.wall for t in took]
    return statistics.fmean(walls) if device.type == "cuda" else statistics.median(walls)


def overhead(profiled: list[Took], plain: list[Took], device: torch.device) -> float | None:
    """How much longer a step is under the profiler, as a share. On a CPU in its processors' time, which is
    the same whatever else they have to do.
    """
    if not plain:
        return None
    clock = (lambda t: t.wall) if device.type == "cuda" else (lambda t: t.busy)
    one, other = (statistics.fmean(map(clock, took)) for took in (profiled, plain))
    return one / other - 1 if other else None


class Window:
    """Consecutive steps of this process under the profiler."""

    def __init__(self, training):
        self.training = training
        self.example = training.task.example(training.config, training.packed.sizes).numel()
        self.took: list[Took] = []
        self.shapes: Counter[tuple[int, ...]] = Counter()  # of what reached the model
        self.samples: Counter[float] = Counter()  # in a step of this process
        self.batch: tuple[Tensor, ...] = ()  # the last micro-batch
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it writes of its own doings to stderr
        activities = [ProfilerActivity.CPU]
        if training.runtime.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        # there is one cycle: `acc_events` only spares the warning of torch 2.11 that others were cleared
        self.profiler = profile(activities=activities, profile_memory=True, acc_events=True)
        self.open = contextlib.ExitStack()

    def start(self) -> None:
        synchronize(self.training.runtime.device)
        self.open.enter_context(self.ranges())
        self.profiler.start()

    def advance(self, advance: Callable[[], None] | None = None) -> None:
        """One step of the training, by its own `advance`."""
        self.reached = 0.0
        self.took.append(clocked(lambda: self.step(advance or self.training.advance)))
        self.samples[self.reached] += 1

    @staticmethod
    def step(advance: Callable[[], None]) -> None:
        with record_function(figures.STEP):
            advance()

    def stop(self) -> None:
        """End it; on a GPU, when all that was begun is done."""
        with record_function(figures.WAIT):
            wait(self.took, self.training.runtime.device)
        self.profiler.stop()
        self.open.close()

    @contextlib.contextmanager
    def ranges(self) -> Iterator[None]:
        """Within it the phases of a step are ranges of the trace, and what reaches the model is noted."""
        training, runtime = self.training, self.training.runtime
        calls = (
            (training.batches, "batch", "input"),
            (training.batches, "loss", "forward"),
            (runtime, "backward", "backward"),
            (runtime.accelerator, "clip_grad_norm_", "optimizer"),
            (training.optimizer, "step", "optimizer"),
        )
        before = [(of, name, vars(of).get(name)) for of, name, _ in calls]
        for of, name, phase in calls:
            setattr(of, name, self.ranged(phase, getattr(of, name)))
        hook = training.module.register_forward_pre_hook(self.note, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
            for of, name, own in before:
                setattr(of, name, own) if own else delattr(of, name)

    def ranged(self, phase: str, call: Callable) -> Callable:
        def within(*args, **kwargs):
            with record_function(phase):
                result = call(*args, **kwargs)
            if phase == "input":
                self.batch, self.noted = result, False
            return result

        return within

    def note(self, module, args: tuple, kwargs: dict) -> None:
        """Note the shape of what the model got of a micro-batch, and how many examples that is."""
        got = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if got is not None and not self.noted:  # a loss may call the model twice
            self.reached += got.numel() / self.example
            self.shapes[tuple(got.shape)] += 1
        self.noted = True

    def found(self, plain: list[Took]) -> dict:
        """What a step takes and is made of. `plain`: steps without the profiler, if there are any.

        `batch_size` counts what reached the models of all processes; all else is of this process.
        """
        runtime, steps = self.training.runtime, len(self.took)
        step = typical(plain or self.took, runtime.device)
        samples = round(self.samples.most_common(1)[0][0] * runtime.world)
        count = flops(self.training, self.batch)
        return {
            "batch_size": samples or self.training.config.batch_size,
            "inputs": [list(shape) for shape, _ in self.shapes.most_common(3)],
            "steps": steps,
            "step_ms": step * 1e3,
            "sample_us": step * 1e6 / (samples or self.training.config.batch_size),
            "independent_ms": sum(t.wall for t in self.took) * 1e3 / steps,
            "overhead": overhead(self.took, plain, runtime.device),
            "flops_per_step": count,
            "flops_per_s": count and count / step,
            **figures.read(self.profiler.events(), steps),
        }

    def write_trace(self, path: Path) -> None:
        """The trace as Perfetto and chrome://tracing read it, gzipped. OSError."""
        part = path.with_name(f".{os.getpid()}.part.{path.name}")
        try:
            self.profiler.export_chrome_trace(str(part))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def flops(training, batch: tuple[Tensor, ...]) -> int | None:
    """FLOPs of a step of this process, forward and backward (see summary.NOTE); None if they cannot be had:
    memory is short, or the model's layers wait for other processes.

    Computes it once more, on what shares the model's weights and leaves no gradient, state or random number
    behind; attention as plain products, as some versions of torch do not count its fused forms.
    """
    module, device = training.module, training.runtime.device
    if training.runtime.world > 1 and any(isinstance(m, torch.nn.SyncBatchNorm) for m in module.modules()):
        return None
    weights = {name: p.detach().requires_grad_(p.requires_grad) for name, p in module.named_parameters()}
    tensors = weights | {name: buffer.clone() for name, buffer in module.named_buffers()}

    def model(*args, **kwargs):
        return torch.func.functional_call(module, tensors, args, kwargs)

    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    counter = summary.flop_counter()
    try:
        with torch.random.fork_rng(devices), counter, sdpa_kernel(SDPBackend.MATH):
            loss, _ = training.batches.loss(model, batch)
            trained = [p for p in weights.values() if p.requires_grad]
            torch.autograd.grad(loss, trained, allow_unused=True)
    except torch.OutOfMemoryError:
        return None
    return counter.get_total_flops() * training.config.grad_accum_steps * training.shards
