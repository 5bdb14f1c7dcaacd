"""The shards of a batch, whose gradients are summed apart: one a process, and with --elastic-exact always 8.

shards.of(config, processes=2)            # 2, or 8
shards.problem(config, processes=3)       # a Failure: 3 processes do not share 8 evenly

A shard is taken in --grad-accum-steps micro-batches. Never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaunch.data_prep.errors import USAGE, Failure

if TYPE_CHECKING:
    from relaunch.trainers.config import RunConfig

SHARDS = 8  # of --elastic-exact: what is trained depends on it, and so does each run that was begun with it


def of(config: RunConfig, processes: int) -> int:
    return SHARDS if config.elastic_exact else processes


def micro_batch(config: RunConfig, processes: int) -> int:
    """Samples (text: columns) that a process runs at a time."""
    return config.batch_size // (of(config, processes) * config.grad_accum_steps)


def micro_batches(config: RunConfig, processes: int) -> list[int]:
    """The sizes in which each shard can be taken, from 2 up: one sample alone has no variance."""
    share = max(1, config.batch_size // of(config, processes))
    return [size for size in range(2, share + 1) if share % size == 0] or [1]


def copies(config: RunConfig, processes: int) -> int:
    """Of the gradients, in memory beside them at most: shards' that wait to be added, or DDP's buckets."""
    if config.elastic_exact:
        return 3 if processes == 1 else 2
    return int(processes > 1)


def problem(config: RunConfig, processes: int) -> Failure | None:
    """Why so many processes cannot train it, if so: Failure 64, with batch sizes nearby that they share."""
    if config.elastic_exact and not config.deterministic:
        what = "--elastic-exact keeps the bits, and --no-deterministic gives them up"
        return Failure(USAGE, what, "leave one of them out")
    if SHARDS % processes and config.elastic_exact:
        what = f"--elastic-exact shares the {SHARDS} shards of each batch evenly, and there are"
        return Failure(USAGE, f"{what} {processes} processes", "use 1, 2, 4 or 8")
    parts = of(config, processes) * config.grad_accum_steps
    below = config.batch_size // parts * parts
    if config.batch_size == below:
        return None
    who = f"the {SHARDS} shards of --elastic-exact" if config.elastic_exact else f"{processes} processes"
    micro = f" x {config.grad_accum_steps} micro-batches" if config.grad_accum_steps > 1 else ""
    near = " or ".join(str(size) for size in (below, below + parts) if size)
    what = f"--batch-size {config.batch_size} (over all processes) does not divide by {who}{micro}"
    return Failure(USAGE, what, f"use --batch-size {near}")
