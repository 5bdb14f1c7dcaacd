"""Every layer of a workload's model: its output's shape, parameters and cost.

python -m trainers.summary tiny_imagenet --stem small
"""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import Packed, data_root, open_packed
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.group import process

if TYPE_CHECKING:
    from torch import Tensor, nn

OFFICIAL = {
    "mnist": ((28, 28, 1), 10),
    "digits": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "tiny_imagenet": ((64, 64, 3), 200),
    "wikitext2": (None, 33278),
}
NOTE = "FLOP = 2 x MAC, of matrix products, convolutions and attention (all T x T of it); other operations are not counted."


def official(data: str) -> SimpleNamespace:
    """What a model asks of a packed set, for a set of ours that is not packed here: its published sizes."""
    shape, classes = OFFICIAL[data]
    if shape is None:
        return SimpleNamespace(kind="text", name=data, vocab=lambda: range(classes))
    return SimpleNamespace(
        kind="images",
        name=data,
        classes=range(classes),
        mean=[0.5] * shape[2],
        images=lambda split: SimpleNamespace(shape=(1, *shape)),
    )


def example(config: RunConfig, packed: Packed) -> Tensor:
    """One input of the model: zeros, float32 [1,C,H,W] or int64 [bptt,1]."""
    import torch

    if packed.kind == "text":
        return torch.zeros(config.options.bptt, 1, dtype=torch.long)
    return torch.zeros(1, len(packed.mean), *packed.images("train").shape[1:3])


def table(model: nn.Module, example: Tensor) -> str:
    """A line for each call of a layer (a module that calls no other) in the order of the calls, and the totals.

    Parameters are counted where they are used first. Works on a copy in eval mode, on the CPU.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model, counter = copy.deepcopy(model).cpu().eval(), FlopCounterMode(display=False)
    rows, open_calls, counted = [], [], set()

    def enter(module, args):
        for call in open_calls:
            call["leaf"] = False
        open_calls.append({"leaf": True, "flops": counter.get_total_flops()})

    def leave(name, module, args, out):
        call = open_calls.pop()
        if call["leaf"]:
            own = [p for p in module.parameters() if p not in counted]
            counted.update(own)
            out = out[0] if isinstance(out, tuple) else out
            rows.append(
                (
                    name,
                    type(module).__name__,
                    "x".join(map(str, out.shape)),
                    f"{sum(p.numel() for p in own):,}",
                    f"{counter.get_total_flops() - call['flops']:,}",
                )
            )

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(lambda m, args, out, name=name: leave(name, m, args, out))
    # with gradients, and attention as plain products: its fused forms are counted by some versions of torch and not by others
    with counter, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example)
    flops = counter.get_total_flops()
    rows = [
        ("layer", "type", "output", "parameters", "FLOPs"),
        *rows,
        ("total", "", "", f"{sum(p.numel() for p in model.parameters()):,}", f"{flops:,}"),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join(cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    shape = "x".join(map(str, example.shape))
    return "\n".join([*lines, f"For one input of {shape}: {flops / 2e9:.3f} GMAC. {NOTE}"])


def run(argv: list[str]) -> tuple[int, str | None]:
    job = parse(argv, "relaunch summary")
    config = job.config
    try:
        packed, shown = open_packed(config.data, data_root(job.launch.data_root)), ""
    except Failure:
        if config.data not in OFFICIAL:
            raise
        packed, shown = official(config.data), " (not packed here: its published sizes)"
    from relaunch.trainers.build import make_model

    process.tell(
        f"{config.workload} {config.arch} on {packed.name}{shown}\n\n{table(make_model(config, packed), example(config, packed))}"
    )
    return 0, None


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
