"""One optimizer step: its micro-batches forward and back, and the update of the weights."""

from __future__ import annotations

import contextlib

from relaunch.trainers.group.faults import fault
from relaunch.trainers.schedule import learning_rate
from relaunch.trainers.tasks import order


def take(training) -> None:
    """One optimizer step of a `Training`, over one global batch."""
    c, step, accelerator = training.config, training.step, training.runtime.accelerator
    rate = learning_rate(c, step, training.epoch_steps, training.total)
    for group in training.optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    each = c.grad_accum_steps
    for micro in training.elastic.micro_batches(each, training.spent) if training.elastic else range(each):
        training.spent.switch("input")
        with training.runtime.peers.reading():
            batch = training.batches.batch(step, micro)
        training.spent.switch("compute")
        for generator in training.generators:
            shard = training.runtime.rank * training.shards + micro // each
            generator.manual_seed(order.key("dropout", c.seed, step, micro % each, shard))
        last = micro == each - 1
        together = contextlib.nullcontext() if last else accelerator.no_sync(training.model)
        with together:
            with training.runtime.peers.waiting("broadcast of the buffers"):  # by DDP
                loss, metrics = training.batches.loss(training.model, batch)
            with training.runtime.peers.waiting("all_reduce of the gradients"):
                accelerator.backward(loss / each if each > 1 else loss)
        training.pending_metrics.append(metrics)
        training.pending_bytes += sum(getattr(t, "nbytes", 0) for t in metrics)
    training.spent.switch("optimizer")
    if c.clip:
        accelerator.clip_grad_norm_(training.model.parameters(), c.clip)
    device = training.runtime.peers.waiting("work on the device")
    with training.runtime.met() if accelerator.scaler else device:
        training.optimizer.step()  # a scaler's reads whether all gradients are finite
    training.optimizer.zero_grad()
    training.skipped += training.runtime.precision == "fp16" and training.optimizer.step_was_skipped
    training.spent.switch("other")
    training.step += 1
    if training.average:
        training.average.update(training.module, training.step)
    fault("step", training.step)
