"""The two trainings of a drill: one to its end in peace, one to its end through kills.

    drill = Drill(folder, words, moments, typed, start)
    with supervise.Asked() as asked:
        drill.undisturbed(asked)
        drill.killed(asked)

Each start is `relaunch train`, as a person types it. What was killed is kept in drill.json after each kill,
so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.data_prep.names import command, listed
from relaunch.data_prep.talk import tell
from relaunch.launch import supervise
from relaunch.launch.drill.moments import Moment
from relaunch.trainers import goodput, records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.shapes import NUMBER, shaped
from relaunch.trainers.weights import checkpoint

RECORD, SCHEMA = "drill.json", 1


@dataclass(frozen=True)
class Kill:
    """One kill, as it went. Times are those of time.time()."""

    at: float
    victim: str  # and whether it was saving
    step: int  # at which it struck, reckoned from the log and the pace
    found: str  # on the disk afterwards
    starts: int  # of the run, up to then
    lost: float  # s that the kills before it had cost by then


KILL = {"at": NUMBER, "victim": str, "step": int, "found": str, "starts": int, "lost": NUMBER}


def lost(run: RunDir) -> float:
    """Seconds that repeated steps and restarts have cost a run, as far as it has written that down."""
    causes = records.times(run).get("causes", {})
    return causes.get("repeated", 0.0) + causes.get("restarts", 0.0)


def size(path: Path) -> int:
    """Bytes; 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0


class Position:
    """At which step a training is between two lines of its log, by the pace of the undisturbed one."""

    def __init__(self, run: RunDir, step: int, pace: float):
        self.run, self.known, self.pace = run, step, pace
        self.size, self.since = -1, time.monotonic()
        self.interval = records.read(run.config, {"log_interval": int}).get("log_interval", 1)

    def now(self) -> float:
        if (now := size(self.run.metrics)) != self.size:
            last = max((row["step"] for row in records.metrics(self.run)), default=0)
            if last > self.known:
                self.known, self.since = last, time.monotonic()
            self.size = now
        return self.known + min(self.interval, (time.monotonic() - self.since) / self.pace)


class Start(Protocol):
    """One start of a training: a process here (victims.Launched), or a job (jobs.Submitted)."""

    looks: float  # s between looks while it starts
    tick: float  # and while it trains

    def ended(self) -> bool: ...
    def trains(self, first: int | None) -> bool: ...
    def strike(self, moment: Moment) -> str: ...
    def gone(self, hurry: Callable[[], bool]) -> None: ...
    def stop(self, number: int) -> None: ...
    def outcome(self) -> tuple[int, str]: ...


class Drill:
    """One drill in its folder. `words`: what decides it, as typed; `start(run, *flags)` starts a run."""

    def __init__(
        self,
        folder: Path,
        words: list[str],
        moments: list[Moment],
        typed: list[str],
        start: Callable[..., Start],
    ):
        self.folder, self.words, self.moments, self.typed = folder, words, moments, typed
        self.start = start
        self.calm, self.run = RunDir(folder / "undisturbed"), RunDir(folder / "killed")
        self.record = folder / RECORD
        self.kills = self.recorded()

    # what is kept --------------------------------------------------------------------------------

    def recorded(self) -> list[Kill]:
        """The kills of an earlier call. Failure 64 if that was another drill, 65 for what is damaged."""
        if not self.record.exists():
            return []
        found = records.read(self.record, {"schema": int, "words": list, "moments": int, "kills": list})
        kills = [shaped(each, KILL) for each in found.get("kills", [])]
        if found.get("schema") != SCHEMA or not all(KILL.keys() == each.keys() for each in kills):
            raise Failure(DATA, f"{self.record} is damaged, or of another version", "choose another --run")
        if (found.get("words"), found.get("moments")) != (self.words, len(self.moments)):
            earlier = command(map(str, found.get("words", [])))
            what = f"{self.folder} is a drill of: {earlier} --kills {found.get('moments')}"
            raise Failure(USAGE, what, "type that to go on with it, or choose another --run")
        return [Kill(**each) for each in kills]

    def keep(self) -> None:
        kills = [dataclasses.asdict(kill) for kill in self.kills]
        found = {"schema": SCHEMA, "words": self.words, "moments": len(self.moments), "kills": kills}
        with files.storage(self.folder, "--run"):
            files.write_atomic(self.record, files.dump_json(found))

    # training ------------------------------------------------------------------------------------

    def undisturbed(self, asked: supervise.Asked) -> None:
        """Train it in peace. One that was stopped begins anew: it is to be undisturbed."""
        if records.status(self.calm).get("state") == "done":
            return
        files.remove(self.calm.path)
        tell(f"relaunch drill: training undisturbed, in {self.calm.path}", sys.stderr)
        self.end(self.start(self.calm), asked)

    def killed(self, asked: supervise.Asked) -> None:
        """Train it through what is left of the kills. Fewer are made if it ends before."""
        while True:
            before = len(records.starts(self.run)), size(self.run.log(0))
            start = self.start(self.run, "--resume", "auto", "--max-restarts", "0")
            if len(self.kills) == len(self.moments) or not self.strike(start, before, asked):
                self.end(start, asked)
                return
            if asked.first:
                raise self.stopped(asked)

    def end(self, start: Start, asked: supervise.Asked) -> None:
        """Wait for it. Failure 75 where it was told to stop, else the one that it ended with."""
        while not start.ended():
            time.sleep(start.looks)
            if asked.first:
                asked.acknowledge("stopping; what is trained is saved")
                start.stop(asked.first)
                start.gone(lambda: asked.insisted)
        if asked.first:
            raise self.stopped(asked)
        code, said = start.outcome()
        if code:
            after = f"after {len(self.kills)} kills " if self.kills else ""
            raise Failure(code, f"{after}the training ended: {said}")

    def stopped(self, asked: supervise.Asked) -> Failure:
        assert asked.first
        again = command(["relaunch", "drill", *self.typed])
        what = f"stopped by {asked.first.name} after {len(self.kills)} of {len(self.moments)} kills"
        return Failure(PREEMPTED, what, f"to go on: {again}")

    # killing -------------------------------------------------------------------------------------

    def strike(self, start: Start, before: tuple[int, int], asked: supervise.Asked) -> bool:
        """Wait for the next moment, and kill. False if the training ends before, or is to stop.

        `before`: starts of the run, and bytes of its log, before this start.
        """
        moment, names, position = self.moments[len(self.kills)], None, None
        while not start.ended() and not asked.first:
            if position is None:
                time.sleep(start.looks)
                if self.steps(*before) and start.trains(records.status(self.run).get("pid")):
                    position = Position(self.run, records.starts(self.run)[-1]["step"], self.pace())
                    tell(f"relaunch drill: it trains from step {position.known:,}", sys.stderr)
                continue
            time.sleep(start.tick)
            if (step := int(position.now())) < moment.step:
                continue
            if moment.aimed:
                earlier, names = names, set(records.names(self.run.checkpoints))
                if earlier is None or not (new := names - earlier):
                    continue
                step = max(int(found[0]) for name in new if (found := re.findall(r"step-(\d+)", name)))
                time.sleep(moment.share * self.write())
            at, victim = time.time(), start.strike(moment) + ", at a save" * moment.aimed
            start.gone(lambda: asked.insisted)
            if not start.outcome()[0]:
                break  # it was ending already, and whom it was for had left
            number = f"kill {len(self.kills) + 1} of {len(self.moments)}"
            tell(f"relaunch drill: {number} at about step {step:,}: {victim}", sys.stderr)
            left = records.status(self.run)
            if left.get("state") == "preempted":  # without their launcher the ranks saved, and say where
                step = left.get("step", step)
            starts = len(records.starts(self.run))
            self.kills.append(Kill(at, victim, step, self.found(), starts, lost(self.run)))
            self.keep()
            return True
        return False

    def steps(self, starts: int, said: int) -> bool:
        """Whether a start after these has said what it trains, which it does before its first step."""
        if len(records.starts(self.run)) == starts or size(self.run.log(0)) <= said:
            return False
        with files.open_plain(self.run.log(0)) as log:
            log.seek(said)
            return f"\n{self.run.path}: ".encode() in log.read()

    def found(self) -> str:
        """What lies there for a resume."""
        steps = [f"{records.step_of(path):,}" for path in records.committed(self.run)]
        half = [path for path in checkpoint.leftovers(self.run) if path.suffix == ".part"]
        whole = f"step{'s' * (len(steps) > 1)} {listed(steps)}" if steps else "no checkpoint"
        return whole + (", and a part of one" if half else "")

    def pace(self) -> float:
        """Seconds of a step of the undisturbed training, with its share of saves and evaluations."""
        spent = records.times(self.calm)
        taken = sum(spent["causes"][c] for c in (*goodput.IN_STEPS, "evaluation", "checkpoint"))
        return max(taken, 1e-3) / max(1, spent["step"])

    def write(self) -> float:
        """Seconds in which a checkpoint of the undisturbed training was written."""
        found = goodput.writes(records.times(self.calm))
        return found["seconds"] / found["count"] if found else 0.0
