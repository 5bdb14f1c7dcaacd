"""Image batches by index arithmetic over a packed set, their augmentation, the loss, a scored row per image.

task = Images(config, packed, device, rank=0, world=1)
x, target = task.batch(step=0, micro=0)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.trainers.config import RunConfig
from relaunch.trainers.tasks import order

RESIDENT = 0.25  # share of a GPU's free memory that the whole uint8 set may take


class Images:
    """What the loop and the evaluation ask of a workload, for images. Steps count from 0, over all epochs."""

    sums = 4
    best = "top1"

    def __init__(self, config: RunConfig, packed: Packed, device: torch.device, rank: int, world: int):
        self.config, self.packed, self.device, self.rank, self.world = config, packed, device, rank, world
        self.images, self.labels = self.load("train")
        self.steps_per_epoch = len(self.images) // config.batch_size
        if self.steps_per_epoch == 0:
            raise Failure(
                USAGE,
                f"--batch-size {config.batch_size} is more than the {len(self.images)} training images",
                "choose a smaller one",
            )
        shape = (1, len(packed.mean), 1, 1)
        self.scale = 1 / (255 * torch.tensor(packed.std, device=device).view(shape))
        self.shift = -torch.tensor(packed.mean, device=device).view(shape) * 255 * self.scale
        self.epoch = -1

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """Images uint8 [N,H,W,C], labels int64 [N] of a split: on the device if they fit, else mapped."""
        images, labels = map(torch.from_numpy, (self.packed.images(split), self.packed.labels(split)))
        if self.device.type == "cuda" and images.nbytes < RESIDENT * torch.cuda.mem_get_info(self.device)[0]:
            images = images.to(self.device)
        return images, labels.to(images.device)

    def samples_done(self, step: int) -> int:
        """Images trained on in the first `step` steps, over all ranks."""
        return step * self.config.batch_size

    def start_epoch(self, epoch: int) -> None:
        """Draw the epoch's order and every sample's augmentation: functions of (seed, epoch, id) alone."""
        o, seed, at = self.config.options, self.config.seed, self.images.device
        ids = order.permutation(seed, epoch, len(self.images))
        self.epoch, self.ids = epoch, torch.from_numpy(ids).to(at)
        if o.crop or o.flip:
            u = order.uniforms(order.key("augment", seed, epoch), ids, 3)
            offset = np.floor(u[:, :2] * (2 * o.crop + 1)) - o.crop
            self.offsets = torch.from_numpy(offset.astype(np.int64)).to(at)
            self.flips = torch.from_numpy((u[:, 2] < 0.5) & o.flip).to(at)

    def batch(self, step: int, micro: int) -> tuple[Tensor, ...]:
        """Micro-batch `micro` of this rank at `step`: (x float32 [B,C,H,W], label [B]), and with CutMix also
        (other label [B], share of the first [B]).
        """
        epoch, i = divmod(step, self.steps_per_epoch)
        if epoch != self.epoch:
            self.start_epoch(epoch)
        batch = self.config.batch_size
        part = order.share(batch, self.world, self.config.grad_accum_steps, self.rank, micro)
        rows = slice(i * batch + part.start, i * batch + part.stop)
        x, labels = self.augmented(rows), self.labels[self.ids[rows]]
        if not self.config.options.cutmix:
            return self.normalise(x), labels.to(self.device)
        positions = np.arange(part.start, part.stop)
        partners, mask = (
            torch.from_numpy(a).to(x.device) for a in self.patches(step, positions, x.shape[1:3])
        )
        partners += i * batch
        x = torch.where(mask[..., None], self.augmented(partners), x)
        share = 1 - mask.flatten(1).float().mean(1)
        return tuple(
            t.to(self.device) for t in (self.normalise(x), labels, self.labels[self.ids[partners]], share)
        )

    def augmented(self, rows) -> Tensor:
        """uint8 [B,H,W,C] of these rows of the epoch's order, shifted and mirrored."""
        o, ids = self.config.options, self.ids[rows]
        if not (o.crop or o.flip):
            return self.images.index_select(0, ids)
        height, width = self.images.shape[1:3]
        y = torch.arange(height, device=ids.device) + self.offsets[rows, 0, None]
        x = torch.arange(width, device=ids.device) + self.offsets[rows, 1, None]
        x = torch.where(self.flips[rows, None], width - 1 - x, x)
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        picked = self.images[
            ids[:, None, None], y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None, :]
        ]
        return picked * inside[..., None] if o.crop else picked

    def patches(self, step: int, positions: np.ndarray, size) -> tuple[np.ndarray, np.ndarray]:
        """CutMix (Yun et al., 2019, alpha 1): each image's partner [B], mask [B,H,W] of pixels from it.

        A function of (seed, step, position in the global batch); partners are positions, too.
        """
        seed, batch = self.config.seed, self.config.batch_size
        distance = 1 + order.key("cutmix", seed, step, 0) % (batch - 1) if batch > 1 else 0
        mixed, lam, cy, cx = order.uniforms(order.key("cutmix", seed, step, 1), positions, 4).T
        half = np.where(mixed < self.config.options.cutmix, np.sqrt(1 - lam), 0) / 2
        rows, columns = (
            np.abs((np.arange(n) + 0.5) / n - c[:, None]) < half[:, None] for n, c in zip(size, (cy, cx))
        )
        return (positions + distance) % batch, rows[:, :, None] & columns[:, None, :]

    def normalise(self, x: Tensor) -> Tensor:
        """uint8 [B,H,W,C] to float32 [B,C,H,W] with the training set's mean 0 and deviation 1."""
        x = x.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return x.to(torch.float32, memory_format=torch.contiguous_format).mul_(self.scale).add_(self.shift)

    def loss(self, model, batch) -> tuple[Tensor, tuple]:
        """The mean loss of a micro-batch, and what `add` needs of it later: (loss, logits, labels)."""
        x, labels, *mix = batch
        smoothing = self.config.options.label_smoothing
        logits = model(x)
        if mix:
            other, share = mix
            each = share * F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
            loss = (
                each
                + (1 - share) * F.cross_entropy(logits, other, reduction="none", label_smoothing=smoothing)
            ).mean()
        else:
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss, (loss.detach(), logits.detach(), labels)

    @staticmethod
    def add(sums: list[float], seen: list[tuple]) -> None:
        """Add micro-batches to the sums [loss, top-1, top-5, images]; how many at a time changes no bit."""
        losses, logits, labels = zip(*seen)
        scores, right = torch.cat(logits), torch.cat(labels)
        above = (scores > scores.gather(1, right[:, None])).sum(1)  # classes scored above the right one
        for loss, n in zip(torch.stack(losses).tolist(), map(len, labels)):
            sums[0] += loss * n
        sums[1] += int((above < 1).sum())
        sums[2] += int((above < 5).sum())
        sums[3] += len(right)

    @staticmethod
    def metrics(sums: list[float]) -> dict[str, float]:
        """Mean loss (nats) and top-1, top-5 (percent) from sums."""
        loss, top1, top5, n = sums
        return {"loss": loss / n, "top1": 100 * top1 / n, "top5": 100 * top5 / n}

    # evaluation -----------------------------------------------------------------------------------

    def open_split(self, split: str) -> int:
        """Make `score` read this split; returns its number of batches."""
        self.scored = self.load(split)
        return -(-len(self.scored[0]) // self.config.eval_batch_size)

    def score(self, model, k: int) -> dict[str, np.ndarray]:
        """Batch k of the open split, a row for each image: scored_rows, id, top5 and outputs (the logits)."""
        start = k * self.config.eval_batch_size
        images, labels = (t[start : start + self.config.eval_batch_size] for t in self.scored)
        logits = model(self.normalise(images)).float()
        rows = scored_rows(logits, labels.to(self.device))
        rows["id"] = np.arange(start, start + len(images))
        rows["top5"] = logits.topk(min(5, logits.shape[1])).indices.int().cpu().numpy()
        rows["outputs"] = logits.cpu().numpy()
        return rows

    def expected_rows(self, split: str) -> int:
        return self.packed.splits[split]

    @staticmethod
    def summarise(rows: dict[str, np.ndarray]) -> dict[str, float]:
        """Exact means over a split's rows in the order of their ids."""
        label = rows["label"]
        return {
            "loss": float(rows["nll"].astype(np.float64).mean()),
            "top1": 100 * float((rows["pred"] == label).mean()),
            "top5": 100 * float((rows["top5"] == label[:, None]).any(1).mean()),
        }


def scored_rows(logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Of logits [N,classes] and labels [N]: label, pred (int32), pred's confidence, label's nll (float32)."""
    log_p = logits.log_softmax(1)
    best, pred = log_p.max(1)
    nll = -log_p.gather(1, labels[:, None])[:, 0]
    columns = {"label": labels.int(), "pred": pred.int(), "confidence": best.exp(), "nll": nll}
    return {name: t.cpu().numpy() for name, t in columns.items()}
