"""Batches of separate samples by index arithmetic over arrays, and their scored rows.

batches = ImageTask().batches(config, packed, device, rank=0, world=1)
x, target = batches.batch(step=0, micro=0)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from relaunch.data_prep.packed import Packed
from relaunch.trainers.config import RunConfig
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.samples import SampleTask

RESIDENT = 0.25  # share of a GPU's free memory that the whole set may take


class Samples:
    """One split: inputs [N,…] and targets [N] as they are packed, on the device if they fit, else mapped."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, device: torch.device):
        self.device = device
        self.inputs, self.targets = map(torch.from_numpy, (inputs, targets))
        if device.type == "cuda" and inputs.nbytes < RESIDENT * torch.cuda.mem_get_info(device)[0]:
            self.inputs = self.inputs.to(device)
        self.targets = self.targets.to(self.inputs.device)

    def __len__(self) -> int:
        return len(self.inputs)

    def normalise(self, x: Tensor) -> Tensor:
        """Packed inputs as the model gets them, on the device."""
        return x.to(self.device, non_blocking=True)


class SampleBatches:
    """The training split (see task.Batches)."""

    def __init__(
        self, task: SampleTask, config: RunConfig, packed: Packed, device: torch.device, rank: int, world: int
    ):
        self.task, self.config, self.device, self.rank, self.world = task, config, device, rank, world
        self.data = task.open(packed, "train", device)
        self.steps_per_epoch = task.steps_per_epoch(config, packed.sizes)
        self.sums = 4 if task.facts.classes else 2
        self.epoch = -1

    def start_epoch(self, epoch: int) -> None:
        """Draw the epoch's order: a function of (seed, epoch) alone."""
        ids = order.permutation(self.config.seed, epoch, len(self.data))
        self.epoch, self.ids = epoch, torch.from_numpy(ids).to(self.data.inputs.device)

    def batch(self, step: int, micro: int) -> tuple[Tensor, ...]:
        """What the model gets [B,…], and what `task.loss` compares its outputs with."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if epoch != self.epoch:
            self.start_epoch(epoch)
        batch = self.config.batch_size
        part = order.share(batch, self.world, self.config.grad_accum_steps, self.rank, micro)
        rows = slice(i * batch + part.start, i * batch + part.stop)
        inputs, *targets = self.picked(step, rows, part)
        x, (labels, *mix) = self.data.normalise(inputs), [t.to(self.device) for t in targets]
        random = draw(order.key("prepare", self.config.seed, epoch), self.ids[rows], self.device)
        return *self.task.prepare(self.config, x, labels, random, True), *mix

    def picked(self, step: int, rows: slice, part: slice) -> tuple[Tensor, ...]:
        """Packed inputs and targets of these rows of the epoch's order, which are `part` of the batch."""
        ids = self.ids[rows]
        return self.data.inputs.index_select(0, ids), self.data.targets[ids]

    def loss(self, model: Callable, batch: tuple[Tensor, ...]) -> tuple[Tensor, tuple]:
        x, *target = batch
        outputs = model(x)
        loss = self.task.loss(self.config, outputs, *target)
        if self.task.facts.classes:
            return loss, (loss.detach(), outputs.detach(), target[0])
        return loss, (loss.detach(), len(x))

    def add(self, sums: list[float], seen: list[tuple]) -> None:
        """To [loss, samples], of classes [loss, top-1, top-5, samples]."""
        losses, *rest = zip(*seen)
        counts = rest[0] if len(rest) == 1 else list(map(len, rest[1]))
        for loss, n in zip(torch.stack(losses).tolist(), counts):
            sums[0] += loss * n
        if self.task.facts.classes:
            scores, right = torch.cat(rest[0]), torch.cat(rest[1])
            above = (scores > scores.gather(1, right[:, None])).sum(1)  # classes scored above the right one
            sums[1] += int((above < 1).sum())
            sums[2] += int((above < 5).sum())
        sums[-1] += sum(counts)

    def metrics(self, sums: list[float]) -> dict[str, float]:
        """Mean loss, and of classes top-1 and top-5 (percent)."""
        loss, *right, n = sums
        return {"loss": loss / n} | {name: 100 * k / n for name, k in zip(("top1", "top5"), right)}

    def look(self) -> dict:
        return {}


class SampleScorer:
    """A split to score, a row for each sample (see task.Scorer)."""

    def __init__(self, task: SampleTask, config: RunConfig, packed: Packed, split: str, device: torch.device):
        self.task, self.config, self.device = task, config, device
        self.data = task.open(packed, split, device)
        self.rows = len(self.data)
        self.batches = -(-self.rows // config.eval_batch_size)

    def score(self, model: Callable, k: int) -> dict[str, np.ndarray]:
        ids = torch.arange(self.rows)[k * self.config.eval_batch_size :][: self.config.eval_batch_size]
        rows = slice(int(ids[0]), int(ids[-1]) + 1)
        x, target = self.data.normalise(self.data.inputs[rows]), self.data.targets[rows].to(self.device)
        random = draw(order.key("prepare", self.config.seed), ids, self.device)
        x, target = self.task.prepare(self.config, x, target, random, False)
        outputs = model(x).float()
        columns = self.task.columns(self.config, outputs, target) | {"outputs": outputs}
        return {"id": ids.numpy()} | {name: column.cpu().numpy() for name, column in columns.items()}


def draw(key: int, ids: Tensor, device: torch.device) -> Callable[[int], Tensor]:
    """`random(n)`: numbers in [0,1), of each id under a key, float32 [B,n]."""

    def random(count: int) -> Tensor:
        return torch.from_numpy(order.uniforms(key, ids.cpu().numpy(), count).astype(np.float32)).to(device)

    return random


def class_columns(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of logits [N,classes] and labels [N]: label, pred (int32), pred's confidence, label's nll (float32)."""
    log_p = logits.log_softmax(1)
    best, pred = log_p.max(1)
    nll = -log_p.gather(1, labels[:, None])[:, 0]
    return {"label": labels.int(), "pred": pred.int(), "confidence": best.exp(), "nll": nll}
