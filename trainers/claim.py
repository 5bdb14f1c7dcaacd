"""Owning a run's folder, and the state that a training goes on from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, LOCKED, USAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers import logged, records, rundir
from relaunch.trainers.begin import Beginning
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import flag, shown
from relaunch.trainers.job import Job
from relaunch.trainers.resumed import CHANGEABLE_ON_RESUME, EXTENDABLE, differences
from relaunch.trainers.rundir import RunDir

if TYPE_CHECKING:
    from relaunch.trainers.weights.checkpoint import State


def claim(beginning: Beginning, job: Job, packed) -> tuple[RunDir, State | None]:
    """Own the run's folder until the process ends, and find the state that it goes on from."""
    from relaunch.data_prep import spot
    from relaunch.trainers.weights import checkpoint

    config, resumes = beginning.config, beginning.resumes
    with files.storage(beginning.run.path if beginning.run else rundir.ROOT, "--run PATH"):
        run = beginning.run if resumes else rundir.create(job.launch.run, config.workload)
        run.lock()
        if not resumes and run.begun():
            raise Failure(
                LOCKED,
                f"another process has just begun {run.path}",
                "add --resume auto, or choose another --run",
            )
        checkpoint.recover(run)
    newest = checkpoint.newest_valid(run) if resumes else None
    if newest is None:
        if last := max((r["step"] for r in records.metrics(run)), default=0):
            again = f"it begins again, and what it logged up to step {last:,} is dropped"
            tell(f"relaunch: {run.path} has no checkpoint yet; {again}", sys.stderr)
        checkpoint.sweep(run)
        return run, None
    state = checkpoint.load(newest)
    if state.meta["data_hash"] != packed.hash:
        raise Failure(
            USAGE if "data" in job.given else DATA,
            f"{packed.path} is not the data that {run.path} was trained on"
            + (f": {differ}" if (differ := spot.differences(packed, state.meta.get("data"))) else ""),
            f"give the same --data, or begin a new --run with its weights: --resume {run.argument}",
        )
    saved = RunConfig.from_json(state.meta["config"], f"{newest}/state.json")
    changed = differences(saved, config)
    # these another start may have been told; not the length of a schedule that depends on it
    free = [(n, vars(saved)[n], vars(config)[n]) for n in sorted(CHANGEABLE_ON_RESUME | EXTENDABLE)]
    free = [(name, then, now) for name, then, now in free if then != now and name not in job.given]
    if config.schedule not in ("constant", "step"):
        changed += [found for found in free if found[0] in EXTENDABLE]
    for name, then, now in changed[:1]:
        raise Failure(
            DATA,
            f"{run.config} says {flag(name)} {shown(now)}, and {newest} was trained with {shown(then)}",
            "put back what was changed in it",
        )
    for name, then, now in free:
        told = f"{run.config} says {flag(name)} {now}, {newest.name} was saved with {then}"
        tell(f"relaunch: {told}; it goes on with {now}", sys.stderr)
    if said := logged.changed(run, state.meta["step"]):
        tell(f"relaunch: {run.path}: {said}; training goes on with them as they are", sys.stderr)
    checkpoint.sweep(run)
    return run, state
