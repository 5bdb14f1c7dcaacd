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

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from relaunch.trainers.profiling import figures


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(training, advance: Callable[[], None], steps: int) -> list[float]:
    """Seconds that each of some steps takes; on a GPU the last one waits for all of them."""
    took = []
    synchronize(training.runtime.device)
    for step in range(steps):
        began = time.perf_counter()
        advance()
        if step == steps - 1:
            synchronize(training.runtime.device)
        took.append(time.perf_counter() - began)
    return took


def typical(took: list[float], device: torch.device) -> float:
    """Seconds of a step: the median, as what else runs here disturbs some; on a GPU, where the end of a
    single step is not seen, the mean.
    """
    return statistics.fmean(took) if device.type == "cuda" else statistics.median(took)


class Window:
    """Consecutive steps of this process under the profiler."""

    def __init__(self, training):
        self.training, self.took = training, []
        self.shapes: Counter[tuple[int, ...]] = Counter()  # of what reached the model
        self.samples: Counter[float] = Counter()  # in a step of this process
        self.batch: tuple[Tensor, ...] = ()  # the last micro-batch
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it writes of its own doings to stderr
        activities = [ProfilerActivity.CPU]
        if training.runtime.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(activities=activities, profile_memory=True)
        self.open = contextlib.ExitStack()

    def start(self) -> None:
        synchronize(self.training.runtime.device)
        self.open.enter_context(self.ranges())
        self.profiler.start()

    def advance(self, advance: Callable[[], None] | None = None) -> None:
        """One step of the training, by its own `advance`."""
        began, self.reached = time.perf_counter(), 0.0
        with record_function(figures.STEP):
            (advance or self.training.advance)()
        self.took.append(time.perf_counter() - began)
        self.samples[self.reached] += 1

    def stop(self) -> None:
        """End it; on a GPU, when all that was begun is done."""
        if self.training.runtime.device.type == "cuda":
            began = time.perf_counter()
            with record_function(figures.WAIT):
                synchronize(self.training.runtime.device)
            self.took[-1:] = [took + time.perf_counter() - began for took in self.took[-1:]]
        self.profiler.stop()
        self.open.close()

    @contextlib.contextmanager
    def ranges(self) -> Iterator[None]:
        """Within it the phases of a step are ranges of the trace, and what reaches the model is noted."""
        training, accelerator = self.training, self.training.runtime.accelerator
        calls = (
            (training.batches, "batch", "input"),
            (training.batches, "loss", "forward"),
            (accelerator, "backward", "backward"),
            (accelerator, "clip_grad_norm_", "optimizer"),
            (training.optimizer, "step", "optimizer"),
            (training.optimizer, "zero_grad", "optimizer"),
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
            task, packed = self.training.task, self.training.packed
            self.reached += got.numel() / task.example(self.training.config, packed.sizes).numel()
            self.shapes[tuple(got.shape)] += 1
        self.noted = True

    def found(self, plain: list[float]) -> dict:
        """What a step takes and is made of. `plain`: seconds of steps without the profiler, if there are any.

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
            "independent_ms": sum(self.took) * 1e3 / steps,
            "overhead": self.overhead(plain),
            "flops_per_step": count,
            "flops_per_s": count and count / step,
            **figures.read(self.profiler.events(), steps),
        }

    def overhead(self, plain: list[float]) -> float | None:
        """How much longer a step is under the profiler, as a share. On a CPU the quickest of each are
        compared: what else runs here disturbs the others.
        """
        if not plain:
            return None
        device = self.training.runtime.device
        one, other = ((typical(t, device) if device.type == "cuda" else min(t)) for t in (self.took, plain))
        return one / other - 1

    def write_trace(self, path: Path) -> None:
        """The trace as Perfetto and chrome://tracing read it, gzipped. OSError."""
        part = path.with_name(f".{os.getpid()}.part.{path.name}")
        try:
            self.profiler.export_chrome_trace(str(part))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def flops(training, batch: tuple[Tensor, ...]) -> int | None:
    """FLOPs of a step of this process, forward and backward (see summary.NOTE); None if memory is short.

    Computes it once more, on what shares the model's weights and leaves no gradient, state or random number
    behind; attention as plain products, as some versions of torch do not count its fused forms.
    """
    module, device = training.module, training.runtime.device
    weights = {name: p.detach().requires_grad_(p.requires_grad) for name, p in module.named_parameters()}
    tensors = weights | {name: buffer.clone() for name, buffer in module.named_buffers()}

    def model(*args, **kwargs):
        return torch.func.functional_call(module, tensors, args, kwargs)

    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    counter = FlopCounterMode(display=False)
    try:
        with torch.random.fork_rng(devices), counter, sdpa_kernel(SDPBackend.MATH):
            loss, _ = training.batches.loss(model, batch)
            trained = [p for p in weights.values() if p.requires_grad]
            torch.autograd.grad(loss, trained, allow_unused=True)
    except torch.OutOfMemoryError:
        return None
    return counter.get_total_flops() * training.config.grad_accum_steps
