"""Batches, a model and its optimizer from a config."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import nearest
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.sizes import Sizes
from relaunch.models import zoo
from relaunch.trainers import eager, finetune, muon, shards, workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.group.process import fits
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.sharded import Sharded
from relaunch.trainers.tasks.task import Batches, check_data
from relaunch.trainers.workloads import own


def make_batches(
    config: RunConfig, packed: Packed, device: torch.device, rank: int = 0, world: int = 1
) -> Batches:
    """The training split as a rank sees it. Failure 64 where workload, data and ranks do not fit."""
    task = workloads.load(config.workload).task
    check_data(config.workload, task, packed.sizes)
    if problem := shards.problem(config, world):
        raise problem
    if config.input == "raw" and not getattr(task, "raw", False):  # a task of one's own may not say
        what = f"--input raw is for images, and {config.workload} trains on {packed.kind}"
        raise Failure(USAGE, what, "leave it out")
    with own.blamed():
        if not config.elastic_exact:
            return task.batches(config, packed, device, rank, world)
        each = config.grad_accum_steps
        parts = dataclasses.replace(config, grad_accum_steps=each * shards.SHARDS // world)
        return Sharded(task.batches(parts, packed, device, rank, world), rank, world, each)


def new_model(config: RunConfig, sizes: Sizes) -> nn.Module:
    """The workload's model, or the one that --arch LIBRARY:NAME names; its weights from torch's generator.

    Failure 64 if the library is missing, has no such model, or does not make it for this data.
    """
    work = workloads.load(config.workload)
    if config.arch in work.archs:
        return work.model(config, sizes)
    library, _, name = config.arch.partition(":")
    try:
        known = zoo.names(library)
    except ImportError as error:
        what = f"--arch {config.arch} needs {library}, which is not installed ({error})"
        raise Failure(USAGE, what, f"pip install {library}, or pip install 'relaunch[{library}]'") from error
    if name not in known:
        bare = name.partition(".")[0]  # timm calls its weights MODEL.TRAINING
        near = bare if bare in known else nearest(name, known)
        fix = f"did you mean --arch {library}:{near}?" if near else f"it has {len(known)}, as {known[0]}"
        raise Failure(USAGE, f"{library} has no model {name!r}", fix)
    if work.task.output_shape(config, sizes) != (1, sizes.outputs):
        what = f"--arch {config.arch} gives {sizes.outputs} numbers for each of {sizes.data}'s"
        what += f" {work.task.facts.rows}, and {config.workload} is about something else"
        raise Failure(USAGE, what, f"use --arch {' | '.join(work.archs)}")
    try:
        with fits("choose a smaller model"):
            return zoo.build(library, name, sizes.outputs, sizes.shape)
    except UNFIT as error:
        raise unfit(config, sizes, sizes.shape, error) from error


# what models say of inputs that they do not take: torch's operations, assertions and checks of their own
UNFIT = (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError)


def unfit(config: RunConfig, sizes: Sizes, shape: Iterable[int], error: Exception) -> Failure:
    fix = "choose another --arch, or pack the data with another --size"
    if config.arch.startswith("torchvision:") and sizes.shape[0] != 3:
        fix = "use --arch timm:NAME, whose models take any number of channels"
    work = workloads.load(config.workload)
    rows, why = work.task.facts.rows, str(error) or type(error).__name__
    what = f"{config.arch} does not take the {'x'.join(map(str, shape))} {rows} of {sizes.data} ({why})"
    return Failure(USAGE, own.place(work) + what, fix)


def make_model(config: RunConfig, sizes: Sizes) -> nn.Module:
    """The config's model on the CPU, its initial weights drawn from the config's seed; --freeze is done.

    Failure 64 if it does not take this data's inputs, or makes something else of them than the task scores.
    """
    work = workloads.load(config.workload)
    check_data(config.workload, work.task, sizes)
    torch.manual_seed(order.key("init", config.seed))
    with own.blamed(), fits("choose a smaller model"):
        model = new_model(config, sizes)
    if not isinstance(model, nn.Module):
        raise Failure(USAGE, f"{own.place(work)}the model is {type(model).__name__}, and no nn.Module")
    with own.blamed():
        example = work.task.example(config, sizes)
    model.eval()
    try:
        with own.blamed(), fits("choose a smaller model"), torch.no_grad():
            outputs = model(example)
    except Failure as failure:
        if failure.code != USAGE or not isinstance(failure.__cause__, UNFIT):
            raise
        given = f"{'x'.join(map(str, example.shape[1:]))} {work.task.facts.rows} of {sizes.data}"
        scoring = " or, to score a file, --eval-resize" if getattr(work.task, "raw", False) else ""
        fix = f"correct it, or give it other ones by --data{scoring}"
        raise Failure(USAGE, f"{failure.what} (on the {given})", fix) from failure
    except UNFIT as error:
        raise unfit(config, sizes, example.shape[1:], error) from error
    model.train()
    check_outputs(config, sizes, outputs)
    finetune.freeze(config, model)
    return model


def fit_inputs(config: RunConfig, packed: Packed, model: nn.Module, count: int = 2000) -> None:
    """Set what a model takes from its data before it is trained: its `fit_inputs` gets the first images."""
    first_inputs = getattr(workloads.load(config.workload).task, "first_inputs", None)  # of images
    if first_inputs and hasattr(model, "fit_inputs"):
        with own.blamed():
            model.fit_inputs(first_inputs(config, packed, count))


def check_outputs(config: RunConfig, sizes: Sizes, outputs, inputs: int = 1, when: str = "") -> None:
    """Failure 64 if a model made something else of that many examples than the task scores."""
    wanted, found = workloads.load(config.workload).task.output_shape(config, sizes), None
    if isinstance(outputs, Tensor):
        found = list(outputs.shape)
    if wanted and found != (should := [wanted[0] * inputs, *wanted[1:]]):
        of = f"{inputs} inputs" if inputs > 1 else "one input"
        place = own.place(workloads.load(config.workload))
        what = f"{place}{config.arch} makes {found or type(outputs).__name__} of {of} of {sizes.data}{when}"
        raise Failure(USAGE, f"{what}, and should make {should}")


def check_step(config: RunConfig, model: nn.Module, sizes: Sizes, world: int = 1) -> list[str]:
    """Try a training step on a copy; returns the names of the parameters that got no gradient.

    Failure 64 where BatchNorm would have one number to normalise, which it refuses in training, and where the
    model makes something else in training than the task scores.
    """
    task = workloads.load(config.workload).task
    example, twin = task.example(config, sizes), copy.deepcopy(model).train()
    alone = shards.micro_batch(config, world) == 1
    with torch.random.fork_rng(devices=[]), own.blamed(), fits("choose a smaller model"):
        try:
            inputs, outputs = 1, twin(example)
        except ValueError as error:
            if alone:
                raise Failure(
                    USAGE,
                    f"{config.arch} cannot train on one sample at a time ({error})",
                    "choose a larger --batch-size",
                ) from error
            inputs, outputs = 2, twin(torch.cat([example, example]))
        check_outputs(config, sizes, outputs, inputs, " in training")
        small = getattr(task, "small_example", lambda *_: None)(config, sizes)
        if small is not None:
            try:
                twin(torch.cat([small, small]))
            except UNFIT as error:
                failure = unfit(config, sizes, small.shape[1:], error)
                raise Failure(USAGE, failure.what, "leave --half-size-epochs out") from error
        if not isinstance(outputs, Tensor) or not outputs.requires_grad:
            return []
        outputs.sum().backward()
    return [name for name, p in twin.named_parameters() if p.requires_grad and p.grad is None]


def make_optimizer(config: RunConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Of the parameters that are trained; each of its groups has an `lr_scale` (see finetune.groups)."""
    p, lr, decay = finetune.groups(config, model), config.lr, config.weight_decay
    if config.optimizer == "muon":
        return eager.made(muon.Muon, muon.grouped(p, model), lr, config.momentum, decay)
    if config.optimizer == "sgd":
        return eager.made(torch.optim.SGD, p, lr, config.momentum, weight_decay=decay, fused=True)
    if config.optimizer == "adadelta":
        return eager.made(torch.optim.Adadelta, p, lr, weight_decay=decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return eager.made(kind, p, lr, weight_decay=decay, fused=True)
