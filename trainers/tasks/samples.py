"""A task of separate samples: shuffled, each with a target, one scored row each. Classification unless told.

A task of one's own changes what differs:

    class Denoise(ImageTask):
        facts = Facts(columns={"loss": "float32"}, loss="loss", view="images", rows="images")

        def prepare(self, config, x, labels, random, training): ...
        def loss(self, config, outputs, target): ...
        def columns(self, config, outputs, target): ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.tasks.task import Facts

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

CLASSES = Facts(
    columns={"label": "int32", "pred": "int32", "confidence": "float32", "nll": "float32", "top5": "int32[]"},
    loss="nll",
    truth="label",
    guess="pred",
    sure="confidence",
    best=("top1", "max"),
)


class SampleTask:
    """What tasks of images and of arrays share (see task.Task)."""

    kind = ""
    facts = CLASSES
    scores: Mapping[str, str] = {"top1": "max", "top5": "max", "loss": "min"}
    libraries: tuple[str, ...] = ()
    no_outputs = ""

    @property
    def labels(self) -> str:
        """What labels it takes: set it to "any" where `prepare` makes the targets."""
        return "classes" if self.facts.classes else "any"

    def steps_per_epoch(self, config, sizes) -> int:
        steps = sizes.counts["train"] // config.batch_size
        if not steps:
            what = f"--batch-size {config.batch_size} is more than the {sizes.counts['train']:,} training "
            raise Failure(USAGE, f"{what}{self.facts.rows} of {sizes.data}", "use a smaller one")
        return steps

    def samples_done(self, config, sizes, step: int) -> int:
        return step * config.batch_size

    def example(self, config, sizes) -> Tensor:
        import torch

        return torch.zeros(1, *sizes.shape)

    def inputs(self, config, sizes) -> dict[str, Any]:
        return {}

    def output_shape(self, config, sizes) -> tuple[int, ...] | None:
        return (1, sizes.outputs) if self.facts.classes else None

    def batches(self, config, packed, device, rank, world):
        from relaunch.trainers.tasks.sample_batches import SampleBatches

        return SampleBatches(self, config, packed, device, rank, world)

    def scorer(self, config, packed, split, device):
        from relaunch.trainers.tasks.sample_batches import SampleScorer

        return SampleScorer(self, config, packed, split, device)

    def open(self, packed, split: str, device):
        """The sample_batches.Samples of a split."""
        raise NotImplementedError

    def scale(self, sizes, device):
        """The meters.Scale in which `loss` and `columns` see targets; None: their own."""
        return None

    # what a task of one's own changes ---------------------------------------------------------------------

    def prepare(
        self, config, x: Tensor, labels: Tensor, random: Callable[[int], Tensor], training: bool
    ) -> tuple[Tensor, Tensor]:
        """What the model gets and what the loss compares with, of inputs [B,…] and labels [B] on the device.

        `random(n)` gives float32 [B,n] in [0,1): in training a function of (seed, epoch, sample id), in
        scoring of (seed, sample id). Nothing else may be random here, or a resumed run is another.
        """
        return x, labels

    def loss(self, config, outputs: Tensor, labels: Tensor, other=None, share=None) -> Tensor:
        """The mean loss of a micro-batch; with CutMix also of its other labels [B], by the shares [B]."""
        from torch.nn.functional import cross_entropy

        smoothing = getattr(config.options, "label_smoothing", 0.0)
        if other is None:
            return cross_entropy(outputs, labels, label_smoothing=smoothing)
        own, others = (
            cross_entropy(outputs, right, reduction="none", label_smoothing=smoothing)
            for right in (labels, other)
        )
        return (share * own + (1 - share) * others).mean()

    def columns(self, config, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Facts.columns of scored samples, [B] or [B,k]; `outputs` are what the model said, in float32."""
        from relaunch.trainers.tasks.sample_batches import class_columns

        top5 = outputs.topk(min(5, outputs.shape[1])).indices.int()
        return class_columns(outputs, labels) | {"top5": top5}

    def summarise(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
        """Of classes: mean loss (nats), top-1 and top-5 (percent); else the mean of each column of floats."""
        facts = self.facts
        if not facts.classes:
            names = [name for name, dtype in facts.columns.items() if dtype == "float32"]
            return {name: mean(rows[name]) for name in names}
        truth = rows[facts.truth or ""]
        found = {
            "loss": mean(rows[facts.loss]),
            "top1": 100 * float((rows[facts.guess or ""] == truth).mean()),
        }
        if "top5" in rows:
            found["top5"] = 100 * float((rows["top5"] == truth[:, None]).any(1).mean())
        return found

    def show(self, config, model, packed) -> dict[str, Any]:
        return {}


def mean(column: np.ndarray) -> float:
    return float(column.astype("float64").mean())
