"""What may differ between a run and the command that goes on with it.

merge_resumed(stored, job)    # the run's own config, with what may change changed
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, fields

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import flag, shown
from relaunch.trainers.job import Job

# these change nothing that is trained: input and its workers give the same bits; patience, only how long
CHANGEABLE_ON_RESUME = {
    "save_every",
    "keep",
    "eval_every",
    "log_interval",
    "patience",
    "input",
    "workers",
    "raw",
    "on_nan",
    "check_every",
}
EXTENDABLE = {"epochs", "max_steps"}  # may be extended where the schedule does not depend on the run's length


def merge_resumed(old: RunConfig, job: Job) -> RunConfig:
    """A resumed run's config: the stored one, with what may change changed. Other changes are Failure 64."""
    new, changed, options = job.config, {}, {f.name for f in fields(old.options)}
    if new.workload != old.workload:
        raise Failure(USAGE, f"this run trains {old.workload}, not {new.workload}", "choose another --run")
    # a preset may say more than when the run was begun: what was done before there was that stays
    begun_without = {f.name: f.metadata["before"] for f in fields(old.options) if "before" in f.metadata}
    # data may have moved: it is compared by its hash, where it is opened
    for name in sorted(job.given - {"data"}):
        was, now = (getattr(c.options if name in options else c, name) for c in (old, new))
        if name == "compile" and now == "auto":  # what it chose when it began stays
            continue
        if was == now or name in job.preset and was == begun_without.get(name, MISSING):
            continue
        if name in EXTENDABLE and name in job.preset and old.time:  # which took its place when it began
            continue
        if name in EXTENDABLE and old.schedule not in ("constant", "step"):
            raise Failure(
                USAGE,
                f"{flag(name)} {now} changes the {old.schedule} schedule of a run begun with {was}",
                "only constant and step schedules can be extended; start a new --run",
            )
        if name not in CHANGEABLE_ON_RESUME | EXTENDABLE:
            raise Failure(
                USAGE,
                f"{flag(name)} {shown(now)} differs from this run's {shown(was)}",
                "leave it out, or start a new --run",
            )
        changed[name] = now
    if "data" in job.given:
        changed["data"] = new.data
    return dataclasses.replace(old, **changed)


def differences(one: RunConfig, other: RunConfig) -> list[tuple[str, object, object]]:
    """(field, its value in each) of what decides what is trained, where it differs. Data has its own hash."""
    flat = [{**vars(c), **vars(c.options)} for c in (one, other)]
    free = CHANGEABLE_ON_RESUME | EXTENDABLE | {"data", "options"}
    pairs = [(n, flat[0].get(n), flat[1].get(n)) for n in flat[0] | flat[1] if n not in free]
    return [(name, was, now) for name, was, now in pairs if was != now]
