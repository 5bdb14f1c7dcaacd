"""What a training says: its first lines, a line per record, and its last one."""

from __future__ import annotations

import resource
import sys

import torch

from relaunch.trainers import finetune, goodput, hardware, records, shards, snapshot
from relaunch.trainers.config import TF32
from relaunch.trainers.spent import STAY


def headline(training, packed, state, begun: str = "") -> str:
    """What is trained where, and from which step. `begun`: with whose weights or state, when it begins."""
    r, c = training.runtime, training.config

    def processes(world: int, precision: str) -> str:
        return f"{world} process{'es' * (world > 1)} in {'fp32' if precision == 'no' else precision}"

    tf32 = ""
    if r.device.type == "cuda" and r.precision == "no" and torch.cuda.get_device_capability() >= (8, 0):
        tf32 = TF32[c.tf32]
    threads = f"{r.threads} thread{'s' * (r.threads > 1)} each"
    micro_batch, shared = shards.micro_batch(c, r.world), f"{r.world}"
    if c.elastic_exact:
        shared += f" x {training.shards} of {shards.SHARDS} shards"
    lines = [
        f"{training.run.path}: {c.workload} {c.arch} on {packed.name}, "
        f"{processes(r.world, r.precision)} on {r.device.type}{tf32}, {threads}",
        f"batch {c.batch_size} = {shared} x {c.grad_accum_steps} x {micro_batch}, "
        f"{training.epoch_steps} steps an epoch, {training.total} in all",
    ]
    if r.device.type == "cpu" and r.precision == "bf16" and hardware.without_bf16():
        lines.append("this CPU has no bf16 instructions (lscpu: avx512_bf16, amx_bf16): fp32 is faster")
    if c.compile == "on":
        lines.append("its steps are compiled (--compile on), which the first of them wait for")
    if c.input != "packed":
        lines[1] += f"; input {c.input}, {workers(c.workers)}"
    if r.world > 1:
        lines[1] += f"; a process that is missing ends the others after {r.timeout} s"
        lines.append(f"what each rank says is in {training.run.logs}")
    if begun:
        lines.append(begun)
    if c.elastic_exact:
        lines.append(f"--elastic-exact: 1, 2, 4 and 8 processes with {threads} train the same bits")
    if c.ema:
        lines.append(f"the average of the weights (--ema {c.ema:g}) is scored, and saved as the model")
    lines += finetune.told(c, training.module)
    if unused := r.unused:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        lines.append(
            f"{unused[0]}{more} got no gradient in a step that was tried: not trained, if it stays so"
        )
    if state:
        lines += [] if begun else [f"resumed from step {state.meta['step']}"]
        was = state.meta["world"], state.meta["precision"]
        if was != (r.world, r.precision):
            same = c.elastic_exact and was[1] == r.precision
            after = "samples follow; dropout, BatchNorm and rounding may differ"
            lines.append(f"it was saved by {processes(*was)}: the same {'bits follow' if same else after}")
        if (then := snapshot.numerics_of(state)) != (now := snapshot.numerics(training)):
            lines.append(
                f"it was saved by a version with numerics {then}, and this one has {now}: "
                "it goes on with other bits than that version's"
            )
    return "\n".join(lines)


def workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"


def record_line(training, split: str, values: dict) -> str:
    """`step 5/40  epoch 0.12  train  loss 1.2345  top1 56.1 %`."""
    position = f"step {training.step}/{training.total}  epoch {training.epoch:.2f}  {split:5}"
    told = [records.shown(name, value) for name, value in values.items()]
    left = time_left(training)
    if "samples_per_s" in values and left:  # not beside an epoch's mean, or a score
        told.append(f"{goodput.amount(left)} left")
    return "  ".join([position, *told])


def time_left(training) -> float | None:
    """Seconds: steps to come take what those of this start took, with their evaluations and checkpoints.

    None before its first step.
    """
    if training.step == training.spent.first_step:
        return None
    took = sum(seconds for cause, seconds in training.spent.seconds.items() if cause not in STAY)
    return took / (training.step - training.spent.first_step) * (training.total - training.step)


def why_done(config, step: int, total: int, best: dict | None, since_best: int) -> str:
    """Why a training is at its end."""
    if step == total or not best:
        return "trained to the end"
    found = f"{since_best} evaluation{'s' * (since_best > 1)} without a better {best['metric']}"
    return f"ended by --patience {config.patience}: {found} than at step {best['step']}"


def last_line(training, why: str) -> str:
    best = training.best
    tail = ""
    if best:
        value = f"{best['metric']} {best['value']:.5g} on {training.packed.eval_split}"
        tail = f"; best {value} at step {best['step']}"
    return f"{training.run.path}: {why}, step {training.step}/{training.total}{tail}"


def peak_memory_mb(device: torch.device) -> float:
    """This process's largest memory, in 10^6 bytes: on a GPU since the last record, else over its life."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
