"""A task, a model and its optimizer from a config."""

from __future__ import annotations

import copy

import torch
from torch import nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.group.process import fits
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.images import Images
from relaunch.trainers.tasks.text import Text

TASKS = {"images": Images, "text": Text}


def make_task(config: RunConfig, packed: Packed, device: torch.device, rank: int = 0, world: int = 1):
    """The workload's batches, loss and scores on this data. Failure 64 where they do not fit each other."""
    kind = check_kind(config, packed)
    if config.batch_size % (world * config.grad_accum_steps):
        raise Failure(
            USAGE,
            f"--batch-size {config.batch_size} does not divide by {world} processes x "
            f"{config.grad_accum_steps} accumulation steps",
            "choose a multiple",
        )
    return TASKS[kind](config, packed, device, rank, world)


def check_kind(config: RunConfig, packed: Packed) -> str:
    """The kind of data that the workload and the set share. Failure 64 if they do not."""
    kind = workloads.load(config.workload).kind
    if packed.kind != kind:
        raise Failure(
            USAGE,
            f"{config.workload} trains on {kind}, and {packed.name} holds {packed.kind}",
            "choose another --data",
        )
    return kind


def make_model(config: RunConfig, packed: Packed) -> nn.Module:
    """The workload's model on the CPU, its initial weights drawn from the config's seed."""
    check_kind(config, packed)
    torch.manual_seed(order.key("init", config.seed))
    try:
        with fits("choose a smaller model"):
            model = workloads.load(config.workload).model(config, packed)
        if packed.kind == "images":  # sizes that it cannot take show here, not in the first step
            model.eval()
            with torch.no_grad():
                model(torch.zeros(1, len(packed.mean), *packed.images("train").shape[1:3]))
            model.train()
    except RuntimeError as error:
        if packed.kind != "images":
            raise
        shape = "x".join(map(str, packed.images("train").shape[1:]))
        raise Failure(
            USAGE,
            f"{config.arch} does not take the {shape} images of {packed.name} ({error})",
            "choose another --arch, or pack the data with another --size",
        ) from error
    return model


def check_micro_batch(config: RunConfig, model: nn.Module, packed: Packed, world: int = 1) -> None:
    """Failure 64 where BatchNorm would have one number to normalise, which it refuses in training."""
    if packed.kind == "images" and config.batch_size == world * config.grad_accum_steps:
        try:
            with torch.no_grad():
                copy.deepcopy(model).train()(
                    torch.zeros(1, len(packed.mean), *packed.images("train").shape[1:3])
                )
        except ValueError as error:
            raise Failure(
                USAGE,
                f"{config.arch} cannot train on one image at a time ({error})",
                "choose a larger --batch-size",
            ) from error


def make_optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    p, lr, decay = model.parameters(), config.lr, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(p, lr, momentum=config.momentum, weight_decay=decay, fused=True)
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(p, lr, weight_decay=decay)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer](
        p, lr, weight_decay=decay, fused=True
    )
