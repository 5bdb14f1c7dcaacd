"""The seam between what is trained and everything that trains, scores, compares and shows it.

A Task says how batches, loss, metrics and scored rows come from packed data; a workload names one. Nothing
outside this folder asks which kind of data it is. Torch-free at module level: the command line reads it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers import workloads

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from relaunch.data_prep.packed import Packed
    from relaunch.trainers.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The columns of a predictions file and their roles: with them, bare files are compared."""

    columns: Mapping[str, str]  # name -> type, without id: int32, float32, or float32[] for k of them a row
    loss: str  # the column that is lower for a better prediction
    truth: str | None = None  # with `guess`: what was right and what was said; whole numbers are classes
    guess: str | None = None
    sure: str | None = None  # how sure the guess was, 0..1; the surest changes are shown first
    best: tuple[str, str] = ("loss", "min")  # the metric by which a checkpoint is the best: max or min
    view: str = "none"  # what there is to look at of a changed row: images, text or none
    rows: str = "samples"  # what a row is called

    def __post_init__(self):
        for role in ("loss", "truth", "guess", "sure"):
            name = getattr(self, role)
            if name is not None and name not in self.columns:
                raise ValueError(f"{role} is the column {name!r}, and there is {', '.join(self.columns)}")
        if bool(self.truth) != bool(self.guess):
            raise ValueError("truth and guess go together")

    @property
    def classes(self) -> bool:
        """Whether a guess is right or wrong."""
        return bool(self.truth and self.guess and self.columns[self.guess].startswith("int"))

    @property
    def numbers(self) -> bool:
        """Whether a guess is near or far."""
        return bool(self.truth and self.guess) and not self.classes


class Batches(Protocol):
    """The training split as this rank sees it. Steps count from 0, over all epochs."""

    sums: int  # numbers that `add` adds up

    def batch(self, step: int, micro: int) -> tuple[Tensor, ...]:
        """Micro-batch `micro` of this rank at `step`: a function of these alone."""

    def loss(self, model: Callable, batch: tuple[Tensor, ...]) -> tuple[Tensor, tuple]:
        """The mean loss of a micro-batch, and the small tensors that `add` needs of it later."""

    def add(self, sums: list[float], seen: list[tuple]) -> None:
        """Add micro-batches to the sums; how many at a time changes no bit. Waits for the device."""

    def metrics(self, sums: list[float]) -> dict[str, float]: ...

    def look(self) -> dict[str, Any]:
        """What the first batch looks like, tag -> text or images float32 [N,C,H,W] in 0..1."""


class Scorer(Protocol):
    """One split to score. Batch k goes to rank k mod world, and nothing is padded."""

    batches: int
    rows: int  # of the whole split, whose ids are 0..rows-1

    def score(self, model: nn.Module, k: int) -> dict[str, np.ndarray]:
        """The rows of batch k: id int64, Facts.columns, and what the model said, if there is a place for it:
        `outputs`, of several tensors `outputs.NAME`.
        """


class Task(Protocol):
    """What a workload does with data. Torch only inside methods; holds no state of a training."""

    kind: str  # of the data that it takes: Sizes.kind
    facts: Facts
    scores: Mapping[str, str]  # the metrics of an evaluation, and whether max or min of each is better
    libraries: tuple[str, ...]  # whose models fit by name, as --arch LIBRARY:NAME (see models/zoo.py)
    no_outputs: str  # why --outputs is not to be had; empty where it is

    @property
    def labels(self) -> str:
        """What these must be: classes, numbers, or any where it looks at none."""

    def steps_per_epoch(self, config: RunConfig, sizes: Sizes) -> int:
        """Failure 64 where the data does not fill one step."""

    def samples_done(self, config: RunConfig, sizes: Sizes, step: int) -> int:
        """Samples trained on in the first `step` steps, over all ranks."""

    def example(self, config: RunConfig, sizes: Sizes) -> Tensor:
        """One input of the model, zeros."""

    def inputs(self, config: RunConfig, sizes: Sizes) -> dict[str, Any]:
        """What packed data become before the model gets them, for JSON: of images `shape` [C,H,W], `mean` and
        `std` per channel of pixels in 0..1, and where they are scored so `resize` and `crop`.
        """

    def output_shape(self, config: RunConfig, sizes: Sizes) -> tuple[int, ...] | None:
        """What the model makes of `example`; None where any shape will do."""

    def batches(
        self, config: RunConfig, packed: Packed, device: torch.device, rank: int, world: int
    ) -> Batches: ...

    def scorer(self, config: RunConfig, packed: Packed, split: str, device: torch.device) -> Scorer: ...

    def summarise(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
        """Exact means over a split's rows in the order of their ids."""

    def show(self, config: RunConfig, model: nn.Module, packed: Packed) -> dict[str, Any]:
        """What to look at after an evaluation, tag -> text or images float32 [N,C,H,W] in 0..1."""


def instead(sizes: Sizes) -> str:
    """What to do where a workload does not take this data: the one of ours that is made for it."""
    if sizes.data in workloads.names():
        return f"use {sizes.data}, which is for it: relaunch train {sizes.data}; or choose another --data"
    return "choose another --data"


def check_data(workload: str, task: Task, sizes: Sizes) -> None:
    """Failure 64 if a workload does not train on this kind of data, or on labels of this kind."""
    if sizes.kind != task.kind:
        what = f"{workload} trains on {task.kind}, and {sizes.data} holds {sizes.kind}"
        raise Failure(USAGE, what, instead(sizes))
    labels = "numbers" if sizes.numbers else "classes"
    if getattr(task, "labels", "any") not in (labels, "any"):
        raise Failure(
            USAGE,
            f"{workload} predicts {task.labels}, and the labels of {sizes.data} are {labels}",
            f"choose another --data, or a workload whose task is {TASKS[sizes.kind, labels]}",
        )


TASKS = {
    ("images", "classes"): "ImageTask",
    ("images", "numbers"): "ImageRegressionTask",
    ("arrays", "classes"): "ArrayTask",
    ("arrays", "numbers"): "RegressionTask",
    ("text", "classes"): "TextTask",
}
