"""What a training will take of memory and disk, estimated from the model's own layers.

estimate.size(layers, plan).memory    # 1.0e9, bytes per process
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from relaunch.launch.plan import Plan
from relaunch.trainers import shards

# numbers that the optimizer keeps per parameter; muon at most, as of a matrix it keeps one
SLOTS = {"sgd": 1, "adam": 2, "adamw": 2, "adadelta": 2, "muon": 2}
BASE = {"cpu": 0.75e9, "gpu": 0.6e9}  # bytes: python with torch and TensorBoard, as measured; a CUDA context


@dataclass(frozen=True)
class Size:
    """Bytes, per process but for `checkpoint`. Estimates: allocators round up, and kernels take workspace."""

    parameters: int  # a count
    trained: int  # of these, those that are not frozen
    base: float
    state: float
    activations: float
    checkpoint: float

    @property
    def memory(self) -> float:
        return self.base + self.state + self.activations


def size(layers: dict, plan: Plan) -> Size:
    """`layers` is what `relaunch summary --json` says of the plan's config."""
    config, parameters, trained = plan.config, layers["parameters"], layers["trained"]
    outputs = [math.prod(layer["output"]) for layer in layers["layers"]]  # numbers, for one sample
    width = 4 if plan.accelerate.precision == "no" else 2  # bytes of an activation
    slots = SLOTS[config.optimizer] - (config.optimizer == "sgd" and config.momentum == 0)
    # of a weight: gradient, optimizer, what gradients are exchanged in
    beside = 1 + slots + shards.copies(config, plan.accelerate.processes)
    kept = parameters * (2 if config.ema else 1)  # weights, and their average
    training = 2 * sum(outputs) * plan.micro_batch  # 2: their gradients
    largest = max(map(sum, zip(outputs, [0, *outputs])), default=0)  # one layer's input and output
    scoring = largest * config.eval_batch_size
    return Size(
        parameters,
        trained,
        BASE["cpu" if plan.accelerate.use_cpu else "gpu"],
        4 * (kept + trained * beside),
        width * max(training, scoring),
        4 * (kept + trained * slots),
    )


def say(size: Size | None) -> str:
    if size is None:
        return "not known before the data is packed"
    some = "" if size.trained == size.parameters else f" ({size.trained:,} of them trained)"
    parts = (
        f"{size.base / 1e9:.2f} before the first batch",
        f"{size.state / 1e9:.2f} for {size.parameters:,} parameters{some}, gradients and optimizer",
        f"{size.activations / 1e9:.2f} for activations",
    )
    return (
        f"about {size.memory / 1e9:.1f} GB per process: {', '.join(parts)}; "
        f"a checkpoint takes {size.checkpoint / 1e6:.1f} MB"
    )
