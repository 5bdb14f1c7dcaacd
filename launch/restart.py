"""After a crash, or a hang: start again from the last checkpoint, unless that would only repeat it.

restart.run_with_restarts(plan, run, limit=3)    # the End of the last attempt
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shlex
import signal
import sys
import time
from dataclasses import dataclass

from relaunch.data_prep import files
from relaunch.data_prep.errors import HUNG, PREEMPTED, STOPPED, Failure
from relaunch.data_prep.talk import tell
from relaunch.launch import plan, supervise
from relaunch.trainers import records, rundir
from relaunch.trainers.begin import command_to_go_on
from relaunch.trainers.rundir import RunDir

LINES, TAIL = 20, 1 << 16  # of a rank's log, shown after a crash: a traceback; bytes that hold them
LIMIT = 3  # starts again without a new checkpoint: more hide a fault that will not go away


@dataclass(frozen=True)
class Crash:
    """One crash: how the group ended, at which step if a worker could still say so, with what committed."""

    what: str
    step: int | None
    checkpoint: int | None  # step of the newest


def run_with_restarts(todo: plan.Plan, run: RunDir | None, limit: int, hung: bool = False) -> supervise.End:
    """Carry out a plan to its end, through crashes and, with `hung`, through hangs (--restart-hung).

    `run` is None where nothing is trained. A hang is for a person by default: the machine or network that
    made it is still there, and each one costs a whole --timeout of all ranks.
    """
    ours = secrets.token_hex(8)
    end = _run_with_restarts(todo, run, limit, hung, ours)
    if run:
        note(run, end, ours)
    return end


def _run_with_restarts(
    todo: plan.Plan, run: RunDir | None, limit: int, hung: bool, ours: str
) -> supervise.End:
    crashes: list[Crash] = []
    with supervise.Asked() as asked:
        while True:
            begun = {"RELAUNCH_START": f"{ours}-{len(crashes)}"}
            environment = plan.environment(todo, dict(os.environ)) | begun
            since = time.time()
            end = supervise.run(todo.command, environment, todo.direct, asked, run=run)
            accelerate = todo.accelerate
            again = to_go_on(todo, run)
            if end.crashed and not end.started and accelerate.machines > 1:
                where = f"{accelerate.address}:{accelerate.port or 29500}"
                return supervise.End(
                    HUNG,
                    what=f"the rendezvous of {accelerate.machines} machines at {where} failed "
                    f"(each waits {todo.timeout} s for the others)",
                    fix="start it on all of them, and look at their network",
                )
            if run and not todo.direct and (end.crashed or end.code == HUNG):
                tell(last_lines(run, end.what, since), sys.stderr, end="")
            if not (end.crashed or hung and end.code == HUNG and end.what):  # not where ranks never met
                stopped = asked.first and end.what and not end.fix
                return dataclasses.replace(end, fix=again) if stopped else end
            if run is None:
                return dataclasses.replace(end, fix=again)
            crashes.append(crash(end.what, run))
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
            tell(
                f"relaunch: {end.what}; starting again from step {crashes[-1].checkpoint} of {run.path} "
                f"({spent(crashes)} of {limit})",
                sys.stderr,
            )
            if len(crashes) == 1:
                todo = plan.with_arguments(todo, "--resume", "auto")


def to_go_on(todo: plan.Plan, run: RunDir | None) -> str:
    """What to type after a stop or a crash."""
    if run is None:
        return "run the same command again"
    flags = todo.variables.get("RELAUNCH_FLAGS", "")
    return f"to go on: {command_to_go_on(todo.argv, run, shlex.split(flags))}"


INTERRUPTED = 128 + signal.SIGINT  # by a person who did not wait


def last_lines(run: RunDir, what: str, since: float) -> str:
    """What the rank said last that `what` blames (missing.named), else the one that fell silent first.

    Empty where it said nothing in its last start, or not on a disk that this machine sees. `since`: logs
    that were not written after it, of time.time(), are of earlier and larger groups.
    """
    blamed = re.match(r"ranks? (\d+)", what)
    found = []
    for log in [run.log(int(blamed[1]))] if blamed else run.logs.glob("rank-*.log"):
        try:
            with files.open_plain(log) as f:
                about = os.fstat(f.fileno())
                f.seek(-min(about.st_size, TAIL), os.SEEK_END)
                text = f.read().decode(errors="replace")
        except OSError:
            continue
        lines = text.rpartition(f"\n{rundir.HEAD}")[2].splitlines()[1:]
        if lines and (blamed or about.st_mtime >= since):
            found.append((about.st_mtime, log, lines[-LINES:]))
    if not found:
        return ""
    _, log, lines = min(found)
    return "\n".join([f"relaunch: the last lines in {log}:", *(f"  {line}" for line in lines), ""])


STATES = {0: "done", PREEMPTED: "preempted", STOPPED: "stopped", INTERRUPTED: "preempted"}


def note(run: RunDir, end: supervise.End, ours: str = "") -> None:
    """Write down the outcome that rank 0 should have: it hung, or died before it could, and is gone now.

    What `ours`, the starts of this launcher, left can be nobody else's. A status of another launcher's is
    changed only if nobody holds the run: rank 0 may live, on another machine, and will write.
    """
    status = records.status(run)
    if status.get("state") == "running":
        mine = ours and str(status.get("start", "")).startswith(ours)
        if not mine:
            if end.code != HUNG:
                return
            try:
                # the lock of a process that was killed lives while its threads end
                run.lock(wait=5.0, says=False)
            except (OSError, Failure):
                return
            if records.status(run) != status:
                return
        reason = end.what or (end.told.what if end.told else "its last words were lost")
        run.write_status(STATES.get(end.code, "failed"), end.code, status.get("step"), reason)
    if end.code != PREEMPTED:
        run.forget_stop()  # it would end the next start at once


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
