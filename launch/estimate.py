"""What a training will take of memory and disk, estimated from the model's own table of layers.

estimate.size(summary_text, plan).memory    # 1.0e9, bytes per process
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from relaunch.launch.plan import Plan

SLOTS = {"sgd": 1, "adam": 2, "adamw": 2, "adadelta": 2}  # numbers that the optimizer keeps per parameter
BASE = {"cpu": 0.75e9, "gpu": 0.6e9}  # bytes: python with torch and TensorBoard, as measured; a CUDA context


@dataclass(frozen=True)
class Size:
    """Bytes, per process but for `checkpoint`. Estimates: allocators round up, and kernels take workspace."""

    parameters: int  # a count
    base: float
    state: float
    activations: float
    checkpoint: float

    @property
    def memory(self) -> float:
        return self.base + self.state + self.activations


def size(summary: str, plan: Plan) -> Size | None:
    """`summary` is what `relaunch summary` prints for the same job. None if it is not a table of layers."""
    config, rows = plan.config, [re.split(r"\s{2,}", line.strip()) for line in summary.splitlines()]
    outputs = [
        math.prod(int(n) for n in row[2].split("x"))
        for row in rows
        if len(row) == 5 and re.fullmatch(r"[\dx]+", row[2])
    ]
    total = next((row[1] for row in rows if row[0] == "total" and len(row) == 3), None)
    if not outputs or total is None:
        return None
    parameters = int(total.replace(",", ""))
    width = 4 if plan.accelerate.precision == "no" else 2  # bytes of an activation
    slots = SLOTS[config.optimizer] - (config.optimizer == "sgd" and config.momentum == 0)
    copies = 2 + slots + (plan.accelerate.processes > 1)  # weights, gradients, optimizer, DDP's buckets
    training = 2 * sum(outputs) * plan.micro_batch  # 2: their gradients
    scoring = (
        max(map(sum, zip(outputs, [0, *outputs]))) * config.eval_batch_size
    )  # one layer's input and output
    return Size(
        parameters,
        BASE["cpu" if plan.accelerate.use_cpu else "gpu"],
        4 * parameters * copies,
        width * max(training, scoring),
        4 * parameters * (1 + slots),
    )


def say(size: Size | None) -> str:
    if size is None:
        return "not known before the data is packed"
    return (
        f"about {size.memory / 1e9:.1f} GB per process: {size.base / 1e9:.2f} before the first batch, {size.state / 1e9:.2f} for "
        f"{size.parameters:,} parameters, gradients and optimizer, {size.activations / 1e9:.2f} for activations; "
        f"a checkpoint takes {size.checkpoint / 1e6:.1f} MB"
    )
