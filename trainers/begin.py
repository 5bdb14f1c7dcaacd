"""What a run will be: one set of rules for the launcher, which plans it, and for the worker, which trains it.

    begin(parse(["mnist", "--run", "first", "--resume", "auto"]))     # a Beginning

Reads the runs that are there and writes nothing.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import command, quoted
from relaunch.trainers import origin, records, rundir
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import without
from relaunch.trainers.job import AUTO, Job
from relaunch.trainers.resumed import merge_resumed
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.workloads import own

# what may lie in a new run's folder, beside names with a dot; plan.json and code: of a start that was killed
HARMLESS = ("STOP", "logs", "plan.json", "code")


@dataclass(frozen=True)
class Beginning:
    """Where a training begins."""

    run: RunDir | None  # None: a new dated folder
    config: RunConfig  # what will be trained: a resumed run's own, with what may change changed
    resumes: bool = False  # goes on with `run`
    weights: str | None = None  # what --init names, where a run without a checkpoint begins with its weights
    fork: str | None = None  # the checkpoint's folder, where it begins with its whole state
    fresh_head: bool = False  # with `weights`: a last layer of another shape stays as initialised
    origin: dict[str, dict] = field(default_factory=dict)  # the record of both, as far as it is known by now


def begin(job: Job) -> Beginning:
    """Where the training of `job` begins. Failure 64 for what cannot be, 65 for a source that is missing."""
    launch = job.launch
    run = RunDir(rundir.locate(launch.run)) if launch.run else None
    auto, kind = launch.resume == AUTO, "fork" if launch.fork else "init"
    source = launch.fork or launch.weights
    begun = run is not None and (run.begun() or records.checkpoints(run) or records.signs(run))
    if source and not (auto and begun) and names_run(source, run, kind):
        auto, source = True, None
    if run is None and auto:
        raise Failure(USAGE, *needs_run(job.config.workload))
    if run and begun:
        if not auto:
            raise Failure(
                USAGE,
                f"{run.path} already holds a run",
                "add --resume auto to continue it, or choose another --run",
            )
        return going_on(run, job, kind, source)
    if run and taken(run.path):
        raise Failure(USAGE, f"{run.path} exists and is not a run", "choose another --run")
    if source and kind == "fork":
        config, record = origin.fork(source, job)
        return Beginning(run, config, fork=record["fork"]["path"], origin=record)
    return Beginning(run, job.config, weights=source, fresh_head=launch.init_head == "fresh")


def going_on(run: RunDir, job: Job, kind: str, source: str | None) -> Beginning:
    """A run that was begun. What it began with is not read again, unless there is no checkpoint of it yet."""
    record = origin.of(run)
    if source and source != record.get(kind, {}).get("source"):
        raise Failure(
            USAGE,
            f"--{kind} {source} is not how {run.path} was begun"
            + (f": it was {origin.said(record)}" if record else ""),
            "leave it out, or choose another --run",
        )
    config = merge_resumed(config_of(run, job), job)
    if records.committed(run):
        return Beginning(run, config, resumes=True, origin=record)
    weights, fork = (record.get(kind, {}) for kind in origin.KINDS)
    return Beginning(
        run,
        config,
        resumes=True,
        weights=weights.get("path"),
        fork=fork.get("path"),
        fresh_head=bool(weights.get("fresh")),
        origin=record,
    )


def config_of(run: RunDir, job: Job) -> RunConfig:
    """The config that a run was begun with. Failure 65 says how to put a missing or damaged one back."""
    try:
        values = files.read_json(run.config)
        own.same_code(values, job.config)
        return RunConfig.from_json(values, str(run.config))
    except Failure as failure:
        if failure.code != DATA:
            raise
        fixes = [failure.fix] if failure.fix else []
        if whole := records.committed(run):
            state, config = (repr(str(path)) for path in (whole[-1] / "state.json", run.config))
            program = f"import json; json.dump(json.load(open({state}))['config'], open({config}, 'w'))"
            fixes.append(f"put it back from the newest checkpoint: python3 -c {quoted(program)}")
        raise Failure(DATA, failure.what, ", or ".join(fixes) or "put it back") from failure


def check_source(start: Beginning) -> None:
    """Failure 65 unless what a run is to begin with is there and whole: for who starts others to train."""
    for kind, path in zip(origin.KINDS, (start.weights, start.fork)):
        if path:
            origin.opened(path, start.origin, kind)


def names_run(source: str, run: RunDir | None, kind: str) -> bool:
    """Whether what --init (--resume) names is the run itself. Failure 64 if it is one of its checkpoints."""
    path, selector = rundir.find(source)
    if run is None or not path.resolve().is_relative_to(run.path.resolve()):
        return False
    itself = not selector and path.resolve() == run.path.resolve()
    if kind == "fork" or not itself:
        which = "" if itself else "a checkpoint of "
        raise Failure(
            USAGE,
            f"{source} is {which}{run.path} itself, which goes on from its newest only",
            "add --resume auto for that, or choose another --run to begin there",
        )
    if not run.begun():
        raise Failure(DATA, f"{run.path} is no run yet that could be begun with", "name another one")
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
        f"add --run {quoted(newest.path.name)}",
    )


# going on ---------------------------------------------------------------------------------------------------


def command_to_go_on(argv: tuple[str, ...], run: RunDir, flags: list[str] | None = None) -> str:
    """What to type to go on with a run that `WORKLOAD --flag value …` and the launcher's `flags` began."""
    begun = ("--init", "--init-head", "--fork")  # the run knows by itself
    words = [*without(argv, "--run", "--resume", "--stop-after", *begun)]
    words += launcher_flags() if flags is None else flags
    return f"relaunch train {command(words)} --run {run.argument} --resume {AUTO}"


def command_of(argv: tuple[str, ...]) -> str:
    """What was typed, `WORKLOAD --flag value …` with the launcher's flags of this start."""
    return f"relaunch train {command([*argv, *launcher_flags()])}"


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
