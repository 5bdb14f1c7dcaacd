"""Where a run's time goes: a clock that is always on exactly one cause, kept in RUN/time.json.

    spent = Spent(run, step=120, samples=7680)    # goes on at step 120
    spent.write(120, 7680, saved=True)    # this start is on record
    spent.switch("input")                         # until now it was something else, from now on it is input
    spent.write(140, 8960, saved=True)

The causes of a start add up to its wall time because there is nothing between two of them. What a kill or a
crash lost becomes `repeated` at the next start, the time without a process and the next start itself
`restarts`. `records.time_spent` reads it. Never imports torch.
"""

from __future__ import annotations

import os
import sys
import time

from relaunch.data_prep import files
from relaunch.data_prep.talk import tell
from relaunch.trainers import goodput, records
from relaunch.trainers.goodput import CAUSES, IN_STEPS
from relaunch.trainers.group import process
from relaunch.trainers.rundir import RunDir

STAY = ("start", "restarts", "repeated")  # nothing that is trained anew takes these back


class Spent:
    """The clock of this process. On rank 0 it has the run, and writes."""

    def __init__(self, run: RunDir | None = None, step: int = 0, samples: int = 0):
        """Take up the run's record at `step`, where it goes on: before anything in its folder changes."""
        now = time.time()
        told = os.environ.get("RELAUNCH_BEGAN")  # of our launcher: when it started these processes
        self.began = min(float(told) if told else process.began or now, now)
        found = records.times(run) if run else {}
        self.run, self.first_step = run, step
        self.cause = "restarts" if found else "start"
        self.since = time.perf_counter() - (now - self.began)
        self.seconds = dict.fromkeys(CAUSES, 0.0)  # of this start
        self.moved = 0.0  # seconds of forward+backward that were found to be communication
        self.ranks: list[dict] = []  # of each rank, what `of_rank` said last
        if run and found:
            self.before = taken_up(found, step, self.began, records.last_word(run))
        else:
            self.before = {
                "schema": 1,
                "first": self.began,
                "starts": 0,
                "from_step": step,
                "from_samples": samples,
                "causes": dict.fromkeys(CAUSES, 0.0),
                "between": 0.0,
                "saves": {},
            }
        self.saves = self.before["saves"]
        # checkpoints that were committed, and the seconds of their writing, beside the steps but for the last
        self.writes = {"count": 0, "seconds": 0.0} | goodput.writes(self.before)

    def switch(self, cause: str) -> None:
        """From now on the time goes to `cause`, one of CAUSES."""
        now = time.perf_counter()
        self.seconds[self.cause] += now - self.since
        self.cause, self.since = cause, now

    def go_back(self, step: int, to: int) -> None:
        """The training goes on at an earlier step: what it spent since that was saved is to be repeated."""
        now, self.first_step = self.causes(), self.first_step - (step - to)
        if at := self.saves.get(str(to)):
            for cause in CAUSES:
                lost = 0.0 if cause in STAY else max(0.0, now[cause] - at[cause])
                self.seconds[cause] -= lost
                self.seconds["repeated"] += lost

    def found_communication(self, seconds: float) -> None:
        """Of this start's forward+backward, all of these seconds until now were a wait for other ranks."""
        more = min(seconds - self.moved, self.seconds["compute"])
        self.moved += more
        self.seconds["compute"] -= more
        self.seconds["communication"] += more

    def of_rank(self) -> dict:
        """{"steps": seconds in the steps of this start, "waited": those of them for other ranks}."""
        steps = sum(self.seconds[cause] for cause in IN_STEPS)
        return {"steps": steps, "waited": self.seconds["communication"]}

    def account(self, training) -> None:
        """On every rank: find the waits for each other. From here on the time goes to a checkpoint."""
        self.switch("checkpoint")
        each = training.runtime.all_reduce_wait(training.model)
        self.found_communication(each * (training.step - self.first_step))
        self.ranks = training.runtime.gather(self.of_rank()) or []

    def causes(self) -> dict[str, float]:
        """Seconds by cause of all starts, up to now."""
        self.switch(self.cause)
        return {cause: self.before["causes"][cause] + self.seconds[cause] for cause in CAUSES}

    def write(self, step: int, samples: int, saved: bool = False, paused: bool = False) -> None:
        """Keep the record. `saved`: `step` has its checkpoint; `paused`: the clock stands from here on."""
        self.keep(self.record(step, samples, paused), saved)

    def record(self, step: int, samples: int, paused: bool = False) -> dict:
        """What there is to be kept of the time until now."""
        return self.before | {
            "until": time.time(),
            "paused": int(paused),
            "starts": self.before["starts"] + 1,
            "step": step,
            "samples": samples,
            "causes": self.causes(),
            "ranks": self.ranks,
        }

    def keep(self, record: dict, saved: bool, took: float | None = None) -> None:
        """Write a record. From any thread, one at a time.

        `saved`: its step has its checkpoint; `took`: the seconds that it was written in.
        """
        if not self.run:
            return
        if saved:
            there = {records.step_of(path) for path in records.checkpoints(self.run)}
            self.saves = {at: then for at, then in self.saves.items() if int(at) in there}
            self.saves[str(record["step"])] = record["causes"]
        if took is not None:
            self.writes = {"count": self.writes["count"] + 1, "seconds": self.writes["seconds"] + took}
        record |= {"saves": self.saves, "writes": self.writes}
        try:
            files.write_atomic(self.run.time, files.dump_json(record))
        except OSError as error:  # a full disk: it costs the record, and no training
            tell(f"relaunch: cannot write {self.run.time} ({error})", sys.stderr)


def taken_up(found: dict, step: int, began: float, sign: float) -> dict:
    """The record `found`, as a start that `began` (time.time()) and goes on at `step` takes it up. Pure.

    `sign`: when the run last wrote something. What it did after the record was written, and what it had done
    beyond `step`, is lost.
    """
    causes, until = found["causes"], found["until"]
    at = causes
    if step != found["step"] and found["saves"]:
        known = sorted(map(int, found["saves"]))
        at = found["saves"][str(max((s for s in known if s <= step), default=known[0]))]
    kept = {cause: causes[cause] if cause in STAY else at[cause] for cause in CAUSES}
    gone = 0.0 if found["paused"] else max(0.0, began - until)
    tail = min(max(0.0, sign - until), gone)
    kept["repeated"] += sum(causes.values()) - sum(kept.values()) + tail
    kept["restarts"] += gone - tail
    return {**found, "causes": kept, "between": found["between"] + gone - tail}
