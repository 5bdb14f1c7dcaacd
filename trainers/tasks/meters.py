"""What a training step leaves behind for the log, by what a task predicts: small tensors, added up later."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Loss:
    """Of any task: its mean loss."""

    names: tuple[str, ...] = ("loss",)

    @property
    def sums(self) -> int:
        return len(self.names) + 1  # and the samples

    def keep(self, loss: Tensor, x: Tensor, outputs, target: Tensor) -> tuple:
        """What `add` needs of a micro-batch: its loss first."""
        return loss.detach(), len(x)

    def add(self, sums: list[float], seen: list[tuple]) -> None:
        """To [loss, …, samples]."""
        losses, *rest = zip(*seen)
        counts = self.count(sums, *rest)
        for loss, n in zip(torch.stack(losses).tolist(), counts):
            sums[0] += loss * n
        sums[-1] += sum(counts)

    def count(self, sums: list[float], *rest) -> list[int]:
        """Add the rest of what was kept; the samples of each micro-batch."""
        return list(rest[0])

    def metrics(self, sums: list[float]) -> dict[str, float]:
        return {name: total / sums[-1] for name, total in zip(self.names, sums)}


class Classes(Loss):
    """Also the share of right guesses, and of right ones among the best five (percent)."""

    names = ("loss", "top1", "top5")

    def keep(self, loss, x, outputs, target):
        return loss.detach(), outputs.detach(), target

    def count(self, sums, scores, right):
        outputs, labels = torch.cat(scores), torch.cat(right)
        above = (outputs > outputs.gather(1, labels[:, None])).sum(1)  # classes scored above the right one
        sums[1] += int((above < 1).sum())
        sums[2] += int((above < 5).sum())
        return list(map(len, right))

    def metrics(self, sums):
        loss, *right, n = sums
        return {"loss": loss / n} | {name: 100 * k / n for name, k in zip(("top1", "top5"), right)}


class Numbers(Loss):
    """Also the mean absolute error, in the targets' own unit."""

    names = ("loss", "mae")

    def __init__(self, guess: Callable, scale: Scale | None):
        self.guess, self.scale = guess, scale

    def keep(self, loss, x, outputs, target):
        error = (self.guess(outputs, target).detach().float() - target).abs()
        return loss.detach(), (self.scale.wide(error) if self.scale else error).mean(), len(x)

    def count(self, sums, errors, counts):
        for error, n in zip(torch.stack(errors).tolist(), counts):
            sums[1] += error * n
        return list(counts)


class Scale:
    """Numbers to predict, as the loss sees them: train's mean is 0 and its deviation 1, of each of the K."""

    def __init__(self, mean, std, device: torch.device):
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32, device=device) for v in (mean, std))

    def to(self, numbers: Tensor) -> Tensor:
        """[B] or [B,K], of the same shape."""
        return ((numbers.reshape(len(numbers), -1) - self.mean) / self.std).view_as(numbers)

    def wide(self, differences: Tensor) -> Tensor:
        """Differences of what `to` gave, in the numbers' own unit."""
        return (differences.reshape(len(differences), -1) * self.std).view_as(differences)

    def back(self, numbers: Tensor) -> Tensor:
        return (numbers.reshape(len(numbers), -1) * self.std + self.mean).view_as(numbers)
