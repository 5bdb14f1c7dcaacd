"""Batches, a model and its optimizer from a config."""

from __future__ import annotations

import copy

import torch
from torch import nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.group.process import fits
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.task import Batches, check_data
from relaunch.trainers.workloads import own


def make_batches(
    config: RunConfig, packed: Packed, device: torch.device, rank: int = 0, world: int = 1
) -> Batches:
    """The training split as a rank sees it. Failure 64 where workload, data and ranks do not fit."""
    task = workloads.load(config.workload).task
    check_data(config.workload, task, packed.sizes)
    if config.batch_size % (world * config.grad_accum_steps):
        raise Failure(
            USAGE,
            f"--batch-size {config.batch_size} does not divide by {world} processes x "
            f"{config.grad_accum_steps} accumulation steps",
            "choose a multiple",
        )
    with own.blamed():
        return task.batches(config, packed, device, rank, world)


def make_model(config: RunConfig, sizes: Sizes) -> nn.Module:
    """The workload's model on the CPU, its initial weights drawn from the config's seed.

    Failure 64 if it does not take this data's inputs, or makes something else of them than the task scores.
    """
    work = workloads.load(config.workload)
    check_data(config.workload, work.task, sizes)
    torch.manual_seed(order.key("init", config.seed))
    with own.blamed(), fits("choose a smaller model"):
        model = work.model(config, sizes)
    if not isinstance(model, nn.Module):
        raise Failure(USAGE, f"{own.place(work)}the model is {type(model).__name__}, and no nn.Module")
    with own.blamed():
        example = work.task.example(config, sizes)
    shape = "x".join(map(str, example.shape[1:]))
    model.eval()
    try:
        with own.blamed(), fits("choose a smaller model"), torch.no_grad():
            outputs = model(example)
    except RuntimeError as error:
        raise Failure(
            USAGE,
            f"{config.arch} does not take the {shape} {work.task.facts.rows} of {sizes.data} ({error})",
            "choose another --arch, or pack the data with another --size",
        ) from error
    model.train()
    wanted = work.task.output_shape(config, sizes)
    found = getattr(outputs, "shape", None)
    if wanted and found != wanted:
        is_, should = (list(s) if s is not None else type(outputs).__name__ for s in (found, wanted))
        raise Failure(
            USAGE,
            f"{own.place(work)}{config.arch} makes {is_} of one input of {sizes.data}, "
            f"and should make {should}",
        )
    return model


def check_micro_batch(config: RunConfig, model: nn.Module, sizes: Sizes, world: int = 1) -> None:
    """Failure 64 where BatchNorm would have one number to normalise, which it refuses in training."""
    if config.batch_size == world * config.grad_accum_steps:
        try:
            with torch.no_grad():
                copy.deepcopy(model).train()(workloads.load(config.workload).task.example(config, sizes))
        except ValueError as error:
            raise Failure(
                USAGE,
                f"{config.arch} cannot train on one sample at a time ({error})",
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
