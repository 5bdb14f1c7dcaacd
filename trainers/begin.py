"""What a run will be: one set of rules for the launcher, which plans it, and for the worker, which trains it.

    begin(parse(["mnist", "--run", "first", "--resume", "auto"]))     # a Beginning

Reads the runs that are there and writes nothing.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers import records, rundir
from relaunch.trainers.config import Job, RunConfig, merge_resumed
from relaunch.trainers.flags import without
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.workloads import own

AUTO = "auto"
HARMLESS = ("STOP", "logs")  # what may lie in a new run's folder, beside names with a dot


@dataclass(frozen=True)
class Beginning:
    """Where a training begins."""

    run: RunDir | None  # None: a new dated folder
    config: RunConfig  # what will be trained: a resumed run's own, with what may change changed
    resumes: bool = False  # goes on with `run`
    weights: str | None = None  # what --resume names, where a new run begins with its weights


def begin(job: Job) -> Beginning:
    """Where the training of `job` begins. Failure 64 for what cannot be, 65 for a source that is missing."""
    run = RunDir(rundir.locate(job.launch.run)) if job.launch.run else None
    resume = job.launch.resume
    if resume not in (None, AUTO) and names_run(resume, run):
        resume = AUTO
    weights = None if resume == AUTO else resume
    if run is None:
        if resume == AUTO:
            raise Failure(USAGE, *needs_run(job.config.workload))
        return Beginning(None, job.config, weights=weights)
    if run.begun():
        if resume != AUTO:
            raise Failure(
                USAGE,
                f"{run.path} already holds a run",
                "add --resume auto to continue it, or choose another --run",
            )
        values = files.read_json(run.config)
        own.same_code(values, job.config)
        stored = RunConfig.from_json(values)
        return Beginning(run, merge_resumed(stored, job), resumes=True)
    if taken(run.path):
        raise Failure(USAGE, f"{run.path} exists and is not a run", "choose another --run")
    return Beginning(run, job.config, weights=weights)


def names_run(source: str, run: RunDir | None) -> bool:
    """Whether what --resume names is the run itself. Failure 64 if it is one of the run's checkpoints."""
    path, selector = rundir.find(source)
    if run is None or not path.resolve().is_relative_to(run.path.resolve()):
        return False
    if selector or path.resolve() != run.path.resolve():
        raise Failure(
            USAGE,
            f"--resume {source} is a checkpoint of {run.path} itself, which goes on from its newest only",
            "add --resume auto for that, or choose another --run to begin with those weights",
        )
    return True


def taken(path: Path) -> bool:
    """Whether something that is not a run lies where a new one would."""
    if not path.is_dir():
        return path.exists()
    return any(not p.name.startswith(".") and p.name not in HARMLESS for p in path.iterdir())


def needs_run(workload: str) -> tuple[str, str]:
    """What is wrong with `--resume auto` alone, and the run that was probably meant."""
    fitting = [run for run in rundir.runs() if records.config(run).get("workload") == workload]
    if not fitting:
        return f"--resume auto needs --run, and no run of {workload} is here", "add --run NAME"
    open_ones = [run for run in fitting if records.status(run).get("state") != "done"]
    newest = (open_ones or fitting)[-1]
    kind = "newest unfinished" if open_ones else "newest"
    return (
        f"--resume auto needs --run; the {kind} run of {workload} here is {newest.path.name}",
        f"add --run {shlex.quote(newest.path.name)}",
    )


# going on ---------------------------------------------------------------------------------------------------


def command_to_go_on(argv: tuple[str, ...], run: RunDir) -> str:
    """What to type to go on with a run that `WORKLOAD --flag value …` began."""
    words = [*without(argv, "--run", "--resume", "--stop-after"), *launcher_flags()]
    return f"relaunch train {shlex.join(words)} --run {run.argument} --resume {AUTO}"


def launcher_flags() -> list[str]:
    """The launcher's flags of this start; without our launcher, those that make one of the same kind."""
    env = os.environ
    if "RELAUNCH_FLAGS" in env:
        return shlex.split(env["RELAUNCH_FLAGS"])
    asked = (
        ("--num-processes", env.get("WORLD_SIZE", "1"), "1"),
        ("--mixed-precision", env.get("ACCELERATE_MIXED_PRECISION", "no"), "no"),
    )
    return [word for flag, value, usual in asked if value != usual for word in (flag, value)]
