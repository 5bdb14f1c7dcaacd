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
    first, losses = silent.before(training, forward_backward), []
    for micro in range(c.grad_accum_steps):
        last = micro == c.grad_accum_steps - 1
        together = contextlib.nullcontext() if last else accelerator.no_sync(training.model)
        with training.runtime.peers.waiting(), together:  # DDP sends buffers, and sums gradients
            loss, metrics = forward_backward(training, training.model, micro)
        losses.append(loss)
        training.pending_metrics.append(metrics)
        training.pending_bytes += sum(getattr(t, "nbytes", 0) for t in metrics)
    fault("gradient", step + 1, training.module)
    training.spent.switch("optimizer")
    silent.after(training, first, losses)
    with training.runtime.met() if accelerator.scaler else training.runtime.peers.waiting():
        if taken := training.guard.admits(training, losses):
            if c.clip:
                accelerator.clip_grad_norm_(training.model.parameters(), c.clip)
            training.optimizer.step()  # a scaler's reads whether all gradients are finite
    training.optimizer.zero_grad()
    training.skipped += training.runtime.precision == "fp16" and training.optimizer.step_was_skipped
    training.spent.switch("other")
    training.step += 1
    if training.average and taken:
        training.average.update(training.module, training.step)
    fault("weight", training.step, training.module)
    fault("step", training.step)


def forward_backward(training, model: nn.Module, micro: int) -> tuple[Tensor, tuple]:
    """Add a micro-batch's gradients to the parameters'; its loss, and its metrics."""
    c, step = training.config, training.step
    training.spent.switch("input")
    batch = training.batches.batch(step, micro)
    training.spent.switch("compute")
    for generator in training.generators:
        generator.manual_seed(order.key("dropout", c.seed, step, micro, training.runtime.rank))
    loss, metrics = training.batches.loss(model, batch)
    training.runtime.accelerator.backward(loss / c.grad_accum_steps if c.grad_accum_steps > 1 else loss)
    return loss.detach(), metrics
