"""Batches of separate samples by index arithmetic over arrays, and their scored rows.

batches = ImageTask().batches(config, packed, device, rank=0, world=1)
x, target = batches.batch(step=0, micro=0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relaunch.data_prep.packed import Packed
from relaunch.trainers.config import RunConfig
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.ahead import STEPS, Ahead
from relaunch.trainers.tasks.hooks import check_arguments, in_float32, of_each, prepared, scored
from relaunch.trainers.tasks.meters import Classes, Loss, Numbers
from relaunch.trainers.tasks.regression import Regression
from relaunch.trainers.tasks.samples import SampleTask

RESIDENT = 0.25  # share of a GPU's free memory that the whole set may take
TOGETHER = 1 << 20  # bytes of small steps' inputs that are made at once: most of a step's would be calls


def moved(x: Tensor, device: torch.device) -> Tensor:
    """`x` on the device. A GPU takes it from pinned memory while it computes; from other memory it waits."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()  # torch keeps it, and gives it to nobody else before it has arrived
    return x.to(device, non_blocking=True)


class Samples:
    """One split: inputs [N,…] and targets [N] as they are packed, on the device if they fit, else mapped."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, device: torch.device):
        self.device = device
        self.inputs, self.targets = map(torch.from_numpy, (inputs, targets))
        if device.type == "cuda" and inputs.nbytes < RESIDENT * torch.cuda.mem_get_info(device)[0]:
            self.inputs = self.inputs.to(device)
        self.mapped = inputs if self.inputs.device.type == "cpu" else None  # of it, what is read is asked for
        self.targets = self.targets.to(self.inputs.device)

    def __len__(self) -> int:
        return len(self.inputs)

    def normalise(self, x: Tensor) -> Tensor:
        """Packed inputs as the model gets them, on the device."""
        return moved(x, self.device)


class Arrays(Samples):
    """Inputs float32 [N,…] and their labels: int64 [N], or numbers float32 [N] or [N,K]."""

    def __init__(self, packed: Packed, split: str, device: torch.device):
        super().__init__(packed.inputs(split), packed.labels(split), device)
        self.mean, self.std = (
            torch.tensor(v, dtype=torch.float32, device=device) for v in (packed.mean, packed.std)
        )

    def normalise(self, x: Tensor) -> Tensor:
        """With the training set's mean 0 and deviation 1: of each feature of [B,F], else of all together."""
        return (moved(x, self.device) - self.mean) / self.std


class SampleBatches:
    """The training split (see task.Batches)."""

    separate: tuple = (Arrays.normalise,)  # what normalises each sample by itself

    def __init__(
        self, task: SampleTask, config: RunConfig, packed: Packed, device: torch.device, rank: int, world: int
    ):
        check_arguments(task, mixed=bool(task.kind == "images" and getattr(config.options, "cutmix", 0)))
        self.task, self.config, self.device, self.rank, self.world = task, config, device, rank, world
        self.data = self.opened(packed)
        self.steps_per_epoch = task.steps_per_epoch(config, packed.sizes)
        self.scale = task.scale(packed.sizes, device)
        self.meter: Loss = Classes() if task.facts.classes else Loss()
        if isinstance(task, Regression):
            self.meter = Numbers(partial(task.like, config), self.scale)
        self.sums = self.meter.sums
        self.epoch = -1
        self.ahead = Ahead.of(getattr(self.data, "mapped", None))  # of one's own, it may lack it
        self.due = -1  # the step of the first of `made`
        self.made: Iterator[tuple[Tensor, ...]] = iter(())
        self.together = self.steps_together(packed)

    def steps_together(self, packed: Packed) -> int:
        """How many steps' inputs are made at once: several only where each sample's are its own affair."""
        alone = self.world == self.config.grad_accum_steps == 1 and not self.ahead
        if not alone or type(self.data).normalise not in self.separate:
            return 1
        size = 4 * self.config.batch_size * math.prod(packed.sizes.shape)
        return max(1, TOGETHER // size)

    def opened(self, packed: Packed) -> Samples:
        return self.task.open(packed, "train", self.device)

    def start_epoch(self, epoch: int) -> None:
        """Draw the epoch's order: a function of (seed, epoch) alone."""
        ids = order.permutation(self.config.seed, epoch, len(self.data))
        self.epoch, self.ids = epoch, torch.from_numpy(ids).to(self.data.inputs.device)
        self.asked = 0  # steps of the epoch whose rows were asked for

    def ask(self, ahead: Ahead, i: int) -> None:
        """Ask for this rank's rows of the epoch's step `i` and some after it."""
        batch, own = self.config.batch_size, self.config.batch_size // self.world
        for later in range(max(self.asked, i), min(i + 1 + STEPS, self.steps_per_epoch)):
            first = later * batch + self.rank * own
            ahead.want(self.ids[first : first + own].numpy())
            self.asked = later + 1

    def batch(self, step: int, micro: int) -> tuple[Tensor, ...]:
        """What the model gets [B,…], and what `task.loss` compares its outputs with."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if epoch != self.epoch:
            self.start_epoch(epoch)
        if self.ahead:
            self.ask(self.ahead, i)
        batch = self.config.batch_size
        part = order.share(batch, self.world, self.config.grad_accum_steps, self.rank, micro)
        rows = slice(i * batch + part.start, i * batch + part.stop)
        if step != self.due or not (made := next(self.made, None)):
            self.made = self.make(step, rows, part)
            made = next(self.made)
        self.due = step + 1
        x, labels, *mix = made
        random = draw(self.ids, rows, self.device, self.config.seed, epoch)
        x, target = prepared(self.task, self.config, x, labels, random, True)
        if self.scale:
            target, mix[:1] = (
                self.scale.to(target),
                map(self.scale.to, mix[:1]),
            )  # of CutMix the other targets
        return x, target, *mix

    def make(self, step: int, rows: slice, part: slice) -> Iterator[tuple[Tensor, ...]]:
        """Normalised inputs and targets of these rows, and of the steps after them that are made at once."""
        size, left = rows.stop - rows.start, self.steps_per_epoch - step % self.steps_per_epoch
        rows = slice(rows.start, rows.start + size * min(self.together, left))
        inputs, *targets = self.picked(step, rows, part)
        made = self.data.normalise(inputs), *(moved(t, self.device) for t in targets)
        if self.together == 1:
            yield made
        else:  # copies: a view's place in memory may decide a product's bits
            for parts in zip(*(t.split(size) for t in made)):
                yield tuple(part.clone() for part in parts)

    def picked(self, step: int, rows: slice, part: slice) -> tuple[Tensor, ...]:
        """Packed inputs and targets of these rows of the epoch's order, which are `part` of the batch."""
        ids = self.ids[rows]
        return self.data.inputs.index_select(0, ids), self.data.targets[ids]

    def loss(self, model: Callable, batch: tuple[Tensor, ...]) -> tuple[Tensor, tuple]:
        x, *target = batch
        outputs = model(x)
        loss = self.task.loss(self.config, outputs, *target)
        return loss, self.meter.keep(loss, x, outputs, target[0])

    def add(self, sums: list[float], seen: list[tuple]) -> None:
        self.meter.add(sums, seen)

    def metrics(self, sums: list[float]) -> dict[str, float]:
        return self.meter.metrics(sums)

    def look(self) -> dict:
        return {}


class SampleScorer:
    """A split to score, a row for each sample (see task.Scorer)."""

    def __init__(self, task: SampleTask, config: RunConfig, packed: Packed, split: str, device: torch.device):
        check_arguments(task)
        self.task, self.config, self.device = task, config, device
        self.data = self.opened(packed, split)
        self.scale = task.scale(packed.sizes, device)
        self.rows = len(self.data)
        self.batches = -(-self.rows // config.eval_batch_size)

    def opened(self, packed: Packed, split: str) -> Samples:
        return self.task.open(packed, split, self.device)

    def answers(self, model: Callable, x: Tensor) -> Any:
        return model(x)

    def score(self, model: Callable, k: int) -> dict[str, np.ndarray]:
        ids = torch.arange(self.rows)[k * self.config.eval_batch_size :][: self.config.eval_batch_size]
        rows = slice(int(ids[0]), int(ids[-1]) + 1)
        x, target = self.data.normalise(self.data.inputs[rows]), self.data.targets[rows].to(self.device)
        random = draw(ids, slice(None), self.device, self.config.seed)
        x, target = prepared(self.task, self.config, x, target, random, False)
        outputs = in_float32(self.answers(model, x))
        columns = scored(self.task, self.config, outputs, target, self.scale)
        columns |= named(outputs, len(ids))
        return {"id": ids.numpy()} | {name: column.cpu().numpy() for name, column in columns.items()}


def named(outputs: Any, count: int, name: str = "outputs") -> dict[str, Tensor]:
    """The tensors with a row for each sample that a model said: `outputs`, of several `outputs.0`, ….mean."""
    if isinstance(outputs, Tensor):
        return {name: outputs} if of_each(outputs, count) else {}
    if not isinstance(outputs, (tuple, list, dict)):
        return {}
    parts = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
    return {n: t for key, part in parts for n, t in named(part, count, f"{name}.{key}").items()}


def draw(ids: Tensor, rows: slice, device: torch.device, *numbers: int) -> Callable[[int], Tensor]:
    """`random(n)`: numbers in [0,1), of each id in ids[rows] under seed and epoch, float32 [B,n]."""

    def random(count: int) -> Tensor:
        key = order.key("prepare", *numbers)
        drawn = order.uniforms(key, ids[rows].cpu().numpy(), count).astype(np.float32)
        return moved(torch.from_numpy(drawn), device)

    return random


def class_columns(logits: Tensor, labels: Tensor, used_up: bool = False) -> dict[str, Tensor]:
    """Of logits [N,classes] and labels [N]: label, pred (int32), pred's confidence, label's nll (float32).

    `used_up`: nobody needs the logits any more, whose memory may be taken.
    """
    log_p = torch.log_softmax(logits, 1, out=logits if used_up and logits.device.type == "cpu" else None)
    # of a CPU's two numpy's is the fast one, five times: a vocabulary's took as long as all else
    pred = torch.from_numpy(log_p.numpy().argmax(1)) if log_p.device.type == "cpu" else log_p.max(1).indices
    best, right = (log_p.gather(1, at[:, None])[:, 0] for at in (pred, labels))
    return {"label": labels.int(), "pred": pred.int(), "confidence": best.exp(), "nll": -right}
