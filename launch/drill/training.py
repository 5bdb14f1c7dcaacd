"""The two trainings of a drill: one to its end in peace, one to its end through kills.

    drill = Drill(folder, words, moments)
    with supervise.Asked() as asked:
        drill.undisturbed(asked)
        drill.killed(asked)

Each start is `relaunch train`, as a person types it. What was killed is kept in drill.json after each kill,
so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.data_prep.names import command, listed
from relaunch.data_prep.talk import tell
from relaunch.launch import PROGRAM, processes, supervise
from relaunch.launch.compare.run import why
from relaunch.launch.drill import victims
from relaunch.launch.drill.moments import Moment
from relaunch.trainers import goodput, records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.shapes import NUMBER, shaped
from relaunch.trainers.weights import checkpoint

STARTING, TICK = 0.2, 0.01  # s between looks at a start, which read all of /proc; and at a training
LEAVE = 120.0  # s that what a kill left alive has to save and leave
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


class Drill:
    """One drill in its folder. `words`: of `relaunch train`, less the run."""

    def __init__(self, folder: Path, words: list[str], moments: list[Moment], typed: list[str]):
        self.folder, self.words, self.moments, self.typed = folder, words, moments, typed
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
        self.end(self.start(self.calm), self.calm, asked)

    def killed(self, asked: supervise.Asked) -> None:
        """Train it through what is left of the kills. Fewer are made if it ends before."""
        processes.adopt_orphans()  # of a launcher that was killed: we see them to their end
        while True:
            said = size(self.log(self.run))
            child = self.start(self.run, "--resume", "auto", "--max-restarts", "0")
            if len(self.kills) == len(self.moments) or not self.strike(child, said, asked):
                self.end(child, self.run, asked)
                return
            if asked.first:
                raise self.stopped(asked)

    def start(self, run: RunDir, *more: str) -> subprocess.Popen:
        """Its output goes into a log. It is told to stop if we die."""
        with files.storage(self.folder, "--run"):
            output = open(self.log(run), "ab", opener=files.shyly)
        with output:
            words = [*self.words, "--run", str(run.path), *more]
            return supervise.start([sys.executable, PROGRAM, "train", *words], dict(os.environ), output)

    def log(self, run: RunDir) -> Path:
        return run.path.with_suffix(".log")

    def end(self, child: subprocess.Popen, run: RunDir, asked: supervise.Asked) -> None:
        """Wait for it. Failure 75 where it was told to stop, else the one that it ended with."""
        told = False
        while child.poll() is None:
            time.sleep(STARTING)
            if asked.insisted:
                child.kill()
            elif asked.first and not told:
                told = True
                asked.acknowledge("stopping; what is trained is saved")
                child.send_signal(asked.first)
        if asked.first:
            raise self.stopped(asked)
        if code := child.returncode:
            said = why(self.log(run)) or f"code {code}"
            after = f"after {len(self.kills)} kills " if run is self.run else ""
            what = f"{after}the training ended with: {said}"
            raise Failure(code if code > 0 else 128 - code, what, f"see {self.log(run)}")

    def stopped(self, asked: supervise.Asked) -> Failure:
        assert asked.first
        again = command(["relaunch", "drill", *self.typed])
        what = f"stopped by {asked.first.name} after {len(self.kills)} of {len(self.moments)} kills"
        return Failure(PREEMPTED, what, f"to go on: {again}")

    # killing -------------------------------------------------------------------------------------

    def strike(self, child: subprocess.Popen, said: int, asked: supervise.Asked) -> bool:
        """Wait for the next moment, and kill. False if the training ends before, or is to stop.

        `said`: bytes in its log before this start.
        """
        moment, names, position = self.moments[len(self.kills)], None, None
        while child.poll() is None and not asked.first:
            if position is None:
                time.sleep(STARTING)
                group = victims.ranks(child.pid, records.status(self.run).get("pid"))
                if group and self.steps(said):
                    position = Position(self.run, records.starts(self.run)[-1]["step"], self.pace())
                    tell(f"relaunch drill: it trains from step {position.known:,}", sys.stderr)
                continue
            time.sleep(TICK)
            if (step := int(position.now())) < moment.step:
                continue
            if moment.aimed:
                before, names = names, set(records.names(self.run.checkpoints))
                if before is None or not (new := names - before):
                    continue
                step = max(int(found[0]) for name in new if (found := re.findall(r"step-(\d+)", name)))
                time.sleep(moment.share * self.write())
            at, victim = time.time(), victims.strike(child, moment, group)
            victim += ", at a save" * moment.aimed
            number = f"kill {len(self.kills) + 1} of {len(self.moments)}"
            tell(f"relaunch drill: {number} at about step {step:,}: {victim}", sys.stderr)
            self.gone(child, asked)
            left = records.status(self.run)
            if (
                left.get("state") == "preempted"
            ):  # of a launcher that was killed the ranks saved, and say where
                step = left.get("step", step)
            starts = len(records.starts(self.run))
            self.kills.append(Kill(at, victim, step, self.found(), starts, lost(self.run)))
            self.keep()
            return True
        return False

    def steps(self, said: int) -> bool:
        """Whether this start has said what it trains, which it does before its first step."""
        with files.open_plain(self.log(self.run)) as log:
            log.seek(said)
            return f"\n{self.run.path}: ".encode() in log.read()

    def gone(self, child: subprocess.Popen, asked: supervise.Asked) -> None:
        """Wait until the launcher has left, and what was killed with it; others have time to save."""
        try:
            child.wait(LEAVE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        processes.sweep(LEAVE, hurry=lambda: asked.insisted)

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
