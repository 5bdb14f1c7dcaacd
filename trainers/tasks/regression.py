"""Numbers to predict, one or K of each sample, of arrays or of images.

The model and the loss see targets with the training set's mean 0 and deviation 1, each of the K by itself:
targets in thousands train as those in thousandths do, and a loss of 1 is that of guessing the mean. What
people read, the rows' target and guess and the metrics mae and r2, is in the targets' own unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.tasks.arrays import ArrayTask
from relaunch.trainers.tasks.images import ImageTask
from relaunch.trainers.tasks.samples import mean
from relaunch.trainers.tasks.task import Facts

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS = Facts(
    columns={"target": "float32", "guess": "float32", "loss": "float32"},
    loss="loss",
    truth="target",
    guess="guess",
)


class Regression:
    """What makes a task one of numbers: put it before ArrayTask or ImageTask."""

    labels = "numbers"
    facts = NUMBERS
    scores: Mapping[str, str] = {"loss": "min", "mae": "min", "r2": "max"}

    def scale(self, sizes, device):
        from relaunch.trainers.tasks.meters import Scale

        return Scale(sizes.target_mean, sizes.target_std, device) if sizes.numbers else None

    def output_shape(self, config, sizes) -> tuple[int, ...] | None:
        return (1, sizes.outputs) if type(self).guess is Regression.guess else None

    def guess(self, config, outputs: Tensor) -> Tensor:
        """The K numbers that the outputs say, [B,K]: change it where a model says more than these."""
        return outputs

    def loss(self, config, outputs: Tensor, target: Tensor, other=None, share=None) -> Tensor:
        """The mean squared error; with CutMix also of the other targets, by the shares [B]."""
        error = self.errors(config, outputs, target)
        return (
            error.mean()
            if other is None
            else (share * error + (1 - share) * self.errors(config, outputs, other)).mean()
        )

    def like(self, config, outputs: Tensor, target: Tensor) -> Tensor:
        """The guess in the shape of the targets, [B] or [B,K]."""
        guess = self.guess(config, outputs)
        if guess.numel() != target.numel():
            what = f"{type(self).__name__}.guess returns {list(guess.shape)} for targets {list(target.shape)}"
            raise Failure(USAGE, what, "return one number for each")
        return guess.reshape(target.shape)

    def errors(self, config, outputs: Tensor, target: Tensor) -> Tensor:
        """The squared error of each sample, [B], the mean over its K numbers."""
        return (self.like(config, outputs, target) - target).square().reshape(len(target), -1).mean(1)

    def columns(self, config, outputs: Tensor, target: Tensor) -> dict[str, Tensor]:
        guess, loss = self.like(config, outputs, target), self.errors(config, outputs, target)
        return {"target": target, "guess": guess, "loss": loss}

    def summarise(self, rows) -> dict[str, float]:
        """Mean loss; mean absolute error and R2 over the split, each the mean over the K numbers."""
        truth, guess = (rows[name].astype("float64") for name in ("target", "guess"))
        left, all_ = ((truth - guess) ** 2).sum(0), ((truth - truth.mean(0)) ** 2).sum(0)
        # as scikit-learn's r2_score: of a constant target 1 if it is met, else 0
        r2 = [1 - float(a / b) if b else float(a == 0) for a, b in zip(left.reshape(-1), all_.reshape(-1))]
        return {"loss": mean(rows["loss"]), "mae": float(abs(truth - guess).mean()), "r2": sum(r2) / len(r2)}


class RegressionTask(Regression, ArrayTask):
    """Arrays, normalised as ArrayTask's, and numbers to predict."""


class ImageRegressionTask(Regression, ImageTask):
    """Images, normalised and augmented as ImageTask's, and numbers to predict."""

    facts = replace(NUMBERS, view="images", rows="images")

    def batches(self, config, packed, device, rank, world):
        if getattr(config.options, "label_smoothing", 0):
            raise Failure(USAGE, "--label-smoothing is for classes, and these are numbers", "leave it out")
        return super().batches(config, packed, device, rank, world)
