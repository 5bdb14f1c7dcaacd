"""Word-level text: batches as columns of one long stream, the loss, and one scored row per word.

task = Text(config, packed, device, rank=0, world=1)
words, targets = task.batch(step=0, micro=0)    # [bptt, B/world]
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.trainers.config import RunConfig
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.images import scored_rows


class Text:
    """What the loop and the evaluation ask of a workload, for text (see tasks.images.Images)."""

    sums = 2
    best = "nll"

    def __init__(self, config: RunConfig, packed: Packed, device: torch.device, rank: int, world: int):
        self.config, self.packed, self.device, self.rank, self.world = config, packed, device, rank, world
        self.bptt = config.options.bptt
        tokens = packed.tokens("train")
        length = len(tokens) // config.batch_size
        if length < 2:
            raise Failure(
                USAGE,
                f"--batch-size {config.batch_size} is too many columns for {len(tokens)} training words",
                "choose a smaller one",
            )
        columns = tokens[: length * config.batch_size].reshape(config.batch_size, length).astype(np.int64)
        self.stream = torch.from_numpy(np.ascontiguousarray(columns.T)).to(device)  # [length, columns]
        self.steps_per_epoch = -(-(length - 1) // self.bptt)

    def samples_done(self, step: int) -> int:
        """Words predicted in the first `step` steps, over all ranks."""
        epoch, i = divmod(step, self.steps_per_epoch)
        return (epoch * (len(self.stream) - 1) + i * self.bptt) * self.config.batch_size

    def batch(self, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """Words and next words, int64 [bptt, B]: this rank's consecutive columns, never shuffled."""
        i = step % self.steps_per_epoch * self.bptt
        part = order.share(self.config.batch_size, self.world, self.config.grad_accum_steps, self.rank, micro)
        end = min(i + self.bptt, len(self.stream) - 1)
        return self.stream[i:end, part], self.stream[i + 1 : end + 1, part]

    def loss(self, model, batch) -> tuple[Tensor, tuple]:
        """The mean nll of a micro-batch, and what `add` needs of it later: (nll, words)."""
        words, targets = batch
        loss = F.cross_entropy(model(words).flatten(0, 1), targets.flatten())
        return loss, (loss.detach(), targets.numel())

    @staticmethod
    def add(sums: list[float], seen: list[tuple]) -> None:
        """Add micro-batches to the sums [nll, words]; how many at a time changes no bit."""
        losses, words = zip(*seen)
        for loss, n in zip(torch.stack(losses).tolist(), words):
            sums[0] += loss * n
            sums[1] += n

    @staticmethod
    def metrics(sums: list[float]) -> dict[str, float]:
        """nll (nats a word) and perplexity from sums."""
        return perplexity(sums[0] / sums[1])

    # evaluation -----------------------------------------------------------------------------------

    def open_split(self, split: str) -> int:
        """Make `score` read this split, in windows of bptt words; returns its number of batches."""
        if self.packed.splits[split] < 2:
            raise Failure(
                USAGE,
                f"split {split} of {self.packed.name} has one word, so there is none to predict",
                "choose another split",
            )
        self.scored = torch.from_numpy(self.packed.tokens(split).astype(np.int64))
        self.windows = (len(self.scored) - 1) // self.bptt  # whole ones
        rest = (len(self.scored) - 1) % self.bptt
        return -(-self.windows // self.config.eval_batch_size) + (rest > 0)

    def score(self, model, k: int) -> dict[str, np.ndarray]:
        """Batch k of the open split, a row for each word but the first: id (its position - 1), label, pred,
        confidence, nll. Windows do not see each other; the shorter last one is a batch of its own.
        """
        first = k * self.config.eval_batch_size
        last = min(first + self.config.eval_batch_size, self.windows)
        if first < self.windows:
            start, end, width = first * self.bptt, last * self.bptt, self.bptt
        else:
            start, end = self.windows * self.bptt, len(self.scored) - 1
            width = end - start
        words, targets = (self.scored[start + d : end + d].view(-1, width).T.to(self.device) for d in (0, 1))
        logits = model(words).float().transpose(0, 1).flatten(0, 1)
        rows = scored_rows(logits, targets.T.flatten())
        rows["id"] = np.arange(start, end)
        return rows

    def expected_rows(self, split: str) -> int:
        return self.packed.splits[split] - 1

    @staticmethod
    def summarise(rows: dict[str, np.ndarray]) -> dict[str, float]:
        """Exact mean over a split's rows in the order of their ids."""
        return perplexity(float(rows["nll"].astype(np.float64).mean()))


def perplexity(nll: float) -> dict[str, float]:
    return {"nll": nll, "ppl": math.exp(min(nll, 700.0))}
