"""One optimizer step: its micro-batches forward and back, and the update of the weights."""

from __future__ import annotations

import contextlib

from torch import Tensor, nn

from relaunch.trainers import rollback, silent
from relaunch.trainers.group.faults import fault
from relaunch.trainers.schedule import learning_rate
from relaunch.trainers.tasks import order


def take(training) -> None:
    """One optimizer step of a `Training`, over one global batch."""
    c, step, accelerator = training.config, training.step, training.runtime.accelerator
    if rollback.leaves_out(training, step + 1):
        training.step += 1
        return
    rate = learning_rate(c, step, training.epoch_steps, training.total)
    for group in training.optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    each = c.grad_accum_steps
    first, losses = silent.before(training, forward_backward), []
    for micro in training.elastic.micro_batches(each, training.spent) if training.elastic else range(each):
        last = micro == each - 1
        with contextlib.nullcontext() if last else accelerator.no_sync(training.model):
            loss, metrics = forward_backward(training, training.model, micro)
        losses.append(loss)
        training.pending_metrics.append(metrics)
        training.pending_bytes += sum(getattr(t, "nbytes", 0) for t in metrics)
    fault("gradient", step + 1, training.module)
    training.spent.switch("optimizer")
    silent.after(training, first, losses)
    device = training.runtime.peers.waiting("work on the device")
    with training.runtime.met() if accelerator.scaler else device:
        if taken := training.guard.admits(training, losses):
            if c.clip:
                accelerator.clip_grad_norm_(training.model.parameters(), c.clip)
            training.optimizer.step()  # a scaler's reads whether all gradients are finite
    for group in training.optimizer.param_groups:
        for p in group["params"]:
            p.grad = None  # as zero_grad does, which tells a profiler of it: 1 % of a small step
    training.skipped += training.runtime.precision == "fp16" and training.optimizer.step_was_skipped
    training.spent.switch("other")
    training.step += 1
    if training.average and taken:
        training.average.update(training.module, training.step)
    fault("weight", training.step, training.module)
    fault("step", training.step)


def forward_backward(training, model: nn.Module, micro: int) -> tuple[Tensor, tuple]:
    """Add a micro-batch's gradients to the parameters'; its loss, and its metrics.

    `micro`: its place among those of this process, shard by shard.
    """
    config, step, runtime = training.config, training.step, training.runtime
    each = config.grad_accum_steps
    training.spent.switch("input")
    with runtime.peers.reading():
        batch = training.batches.batch(step, micro)
    training.spent.switch("compute")
    shard = runtime.rank * training.shards + micro // each
    for generator in training.generators:
        generator.manual_seed(order.key("dropout", config.seed, step, micro % each, shard))
    with runtime.peers.waiting("broadcast of the buffers"):  # by DDP
        loss, metrics = training.batches.loss(model, batch)
    with runtime.peers.waiting("all_reduce of the gradients"):
        runtime.backward(loss / each if each > 1 else loss)
    return loss.detach(), metrics
