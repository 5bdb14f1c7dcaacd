"""A start through the real path, small: the config's processes take a step, save, and load what they saved.

rehearse.run({"config": "cpu2"}, processes=2, planned=None, runs=Path("runs"))    # Rehearsal(world=2, …)
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import PREEMPTED, Failure
from relaunch.data_prep.talk import tell
from relaunch.launch import command, draft, plan, restart, supervise
from relaunch.launch.processes import lives
from relaunch.trainers import records, workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.job import Job
from relaunch.trainers.rundir import RunDir

LINES = 30  # of what a crash wrote: a traceback


@dataclass(frozen=True)
class Rehearsal:
    """What was achieved, or the failure that came in between."""

    seconds: float
    failure: Failure | None = None
    world: int | None = None
    device: str = ""
    precision: str = ""
    step: int | None = None


def sweep(runs: Path) -> str:
    """Remove what killed rehearsals of this machine left; returns what a new one's folder begins with."""
    mark = f".rehearsal-{socket.gethostname()}-"
    for name in records.names(runs):
        pid = name.removeprefix(mark).split("-")[0]
        if name.startswith(mark) and pid.isdecimal() and not lives(int(pid)):
            files.remove(runs / name)
    return f"{mark}{os.getpid()}-"


def run(typed: dict, processes: int, planned: tuple[RunConfig, Job] | None, runs: Path) -> Rehearsal:
    """Two steps, each in a start of its own, of the `planned` training or of the embedded digits.

    `runs` is where the run's folder goes, and is removed from: the disk of the real runs is rehearsed too. A
    stop signal in between ends it at once: the processes are gone and the folder is removed.
    """
    began, since = time.monotonic(), time.time()
    with tempfile.TemporaryDirectory(prefix=sweep(runs), dir=runs) as folder:
        place = RunDir(Path(folder) / "run")
        if planned:
            config, launch = planned[0], planned[1].launch
        else:
            digits = ["mnist", "--data", "digits", "--data-root", folder, "--batch-size", str(4 * processes)]
            job = command.job(digits)
            config, launch = job.config, job.launch
        # long enough for two steps and no evaluation, whatever the real one is
        config = dataclasses.replace(config, epochs=3, max_steps=3)
        place.path.mkdir()
        place.config.write_text(files.dump_json(config.to_json()))
        words = [workloads.word(config.workload), "--run", str(place.path), "--resume", "auto"]
        words += ["--timeout", str(launch.timeout)]
        words += ["--data-root", launch.data_root] if launch.data_root else []
        with supervise.Asked(patience=False) as asked:
            for step in (1, 2):
                todo, _ = draft.draft("train", typed, [*words, "--stop-after", str(step)])
                environment = plan.environment(todo, dict(os.environ))
                with open(Path(folder) / "output", "w+", errors="replace") as output:
                    end = supervise.run(todo.command, environment, todo.direct, asked, output)
                    output.seek(0)
                    lines = output.readlines()
                if asked.first:
                    raise Failure(128 + asked.first, f"the rehearsal was ended by {asked.first.name}")
                if end.code != PREEMPTED:
                    if end.crashed:
                        logged = "" if todo.direct else restart.last_lines(place, end.what, since)
                        tell("".join(lines[-LINES:]) + logged, sys.stderr, end="")
                    failure = end.told or Failure(end.code or 1, end.what or "it ended too early", end.fix)
                    return Rehearsal(time.monotonic() - began, failure)
        launched = records.plan(place)
        return Rehearsal(
            time.monotonic() - began,
            None,
            launched.get("world"),
            launched.get("device"),
            launched.get("precision"),
            records.status(place).get("step"),
        )
