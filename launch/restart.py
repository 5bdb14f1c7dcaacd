"""After a crash: start again from the last checkpoint, unless that would only repeat it.

restart.run_with_restarts(plan, run, limit=3)    # the End of the last attempt
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass

from relaunch.data_prep.errors import HUNG, Failure
from relaunch.launch import plan, supervise
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

LIMIT = 3  # starts again without a new checkpoint: more hide a fault that will not go away


@dataclass(frozen=True)
class Crash:
    """One crash: how the group ended, at which step if a worker could still say so, with what committed."""

    what: str
    step: int | None
    checkpoint: int | None  # step of the newest


def run_with_restarts(todo: plan.Plan, run: RunDir | None, limit: int) -> supervise.End:
    """Carry out a plan to its end, through crashes. `run` is None where nothing is trained."""
    crashes: list[Crash] = []
    with supervise.Asked() as asked:
        while True:
            end = supervise.run(todo.command, plan.environment(todo, dict(os.environ)), todo.direct, asked)
            accelerate = todo.accelerate
            if end.crashed and not end.started and accelerate.machines > 1:
                where = f"{accelerate.address}:{accelerate.port or 29500}"
                return supervise.End(
                    HUNG,
                    what=f"the rendezvous of {accelerate.machines} machines at {where} failed "
                    f"(each waits {todo.timeout} s for the others)",
                    fix="start it on all of them, and look at their network",
                )
            if not end.crashed:
                if end.code == HUNG and run:
                    note(run, end)
                return end
            if run is None:
                return dataclasses.replace(end, fix="run the same command again")
            crashes.append(crash(end.what, run))
            again = f"to go on: the same command with --run {run.argument} --resume auto"
            alone = accelerate.machines == 1 or limit > 0
            reason = (
                "asked to stop"
                if asked.first
                else verdict(crashes, limit)
                if alone
                else "start it again on all machines"
            )
            if reason:
                return dataclasses.replace(
                    end, what=f"{end.what} ({reason})", fix=again if run.begun() else ""
                )
            print(
                f"relaunch: {end.what}; starting again from step {crashes[-1].checkpoint} of {run.path} "
                f"({spent(crashes)} of {limit})",
                file=sys.stderr,
                flush=True,
            )
            if len(crashes) == 1:
                todo = plan.with_arguments(todo, "--resume", "auto")


def note(run: RunDir, end: supervise.End) -> None:
    """Write down the outcome that rank 0 would, unless it did: it is the one that hung, and is gone now."""
    status = records.status(run)
    if status.get("state") != "running":
        return
    try:
        run.lock(wait=0.0)
    except (OSError, Failure):  # held: rank 0 lives, on another machine, and will write
        return
    run.write_status("failed", end.code, status.get("step"), end.what)


def crash(what: str, run: RunDir) -> Crash:
    status = records.status(run)
    step = status.get("step") if status.get("state") == "failed" else None
    return Crash(what, step, records.newest(run))


def spent(crashes: list[Crash]) -> int:
    """Crashes since the last new checkpoint."""
    return sum(c.checkpoint == crashes[-1].checkpoint for c in crashes)


def verdict(crashes: list[Crash], limit: int) -> str:
    """Why not to start again after the last of these crashes; empty: do. Pure."""
    last = crashes[-1]
    if last.checkpoint is None and limit:
        return "before the first checkpoint"
    if last.step is not None and last in crashes[:-1]:
        return f"the same failure twice, at step {last.step}"
    if spent(crashes) > limit:
        return f"{limit} restarts brought no new checkpoint" if limit else "not restarted: --max-restarts 0"
    return ""
