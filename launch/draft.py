"""From a command line that was read to the plan of it: what will be trained, on what data, where it begins.

draft.prepare("train", {"config": "cpu2"}, ["mnist", "--epochs", "1"])    # the Plan, checked, and the Job
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time

from relaunch.data_prep.errors import Failure
from relaunch.launch import accelerate_config, command, estimate, facts, plan, platforms, preflight
from relaunch.trainers import PROGRAM, config, records, rundir, workloads
from relaunch.trainers.begin import AUTO, Beginning, begin
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.tasks.task import check_data


def beginning(job: config.Job, machine_rank: int) -> Beginning:
    """Where the training begins, as the worker will decide it.

    The run belongs to the first machine: that it lies on another one's disk too may be the first one's doing.
    """
    if machine_rank and job.launch.resume != AUTO:
        run = RunDir(rundir.locate(job.launch.run)) if job.launch.run else None
        return Beginning(run, job.config, weights=job.launch.resume)
    return begin(job)


def place_of(start: Beginning) -> plan.Place:
    """The run's folder as it stands; that of a new run without a name has only its pattern yet."""
    if start.run is None:
        name = rundir.ROOT / f"{start.config.workload}-{time.strftime('%Y%m%d-%H%M%S')}"
        return plan.Place(run=str(name), weights=start.weights or "")
    step = records.newest(start.run) if start.resumes else None
    return plan.Place(run=str(start.run.path), step=step, weights=start.weights or "")


def data_of(settings: config.RunConfig, root: str | None) -> plan.Data:
    """The packed set. Failure 65 if it is not there; unless the training will pack it."""
    from relaunch.data_prep import packed

    folder = packed.data_root(root)
    if packed.not_packed_yet(settings.data, folder):
        return plan.Data(name=settings.data, where=str(folder))
    found = packed.open_packed(settings.data, folder)
    found.check_split("train")
    work = workloads.load(settings.workload)
    check_data(work.name, work.task, found.sizes)
    return plan.Data(name=found.name, where=str(found.path), hash=found.hash, sizes=found.sizes)


def size_of(todo: plan.Plan, root: str | None) -> estimate.Size | None:
    """What the planned config takes; None before its data is packed. Asks the model itself, for seconds.

    A model that cannot be built for this data is the Failure that training would end with.
    """
    if todo.data is None or todo.data.sizes is None:
        return None
    words = ["summary", workloads.word(todo.config.workload), "--json"]
    words += ["--settings", json.dumps(todo.config.to_json())]
    words += ["--data-root", root] if root else []
    asked = subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True)
    try:
        answer = json.loads(asked.stdout)
    except ValueError:  # it crashed, and its own lines say why
        print(asked.stderr, end="", file=sys.stderr)
        raise Failure(1, f"asking for the model's layers crashed (exit code {asked.returncode})") from None
    if said := answer.get("failure"):
        raise Failure(said["code"], said["what"], said["fix"])
    return estimate.size(answer, todo)


def draft(verb: str, typed: dict, rest: list[str]) -> tuple[plan.Plan, config.Job | None]:
    """The plan of a command line, not yet checked against this machine, and without its data."""
    typed = {k: v for k, v in typed.items() if k not in ("dry_run", "max_restarts")}
    emulate = typed.pop("emulate", False)
    job = command.job(rest) if verb == "train" else None
    trains = job is not None and not job.launch.evaluate
    named = trains and job.launch.run
    machine = facts.gather(rundir.locate(named).parent if named else rundir.ROOT)
    asked = accelerate_config.read(typed.pop("config", None) or ("1gpu" if machine.gpus else "cpu"))
    if not emulate:
        typed = platforms.fill(asked, typed, machine.nodes)
    accelerate = accelerate_config.override(asked, **typed)
    start = beginning(job, 0 if emulate else accelerate.machine_rank) if trains else None
    return plan.make(
        verb,
        rest,
        asked,
        accelerate,
        machine,
        start.config if start else None,
        place=place_of(start) if start else None,
        emulate=emulate,
        timeout=job.launch.timeout if job else None,
    ), job


def prepare(verb: str, typed: dict, rest: list[str]) -> tuple[plan.Plan, config.Job | None]:
    """The plan, checked: the cheap checks first, then the data, then what depends on it. Writes nothing."""
    todo, job = draft(verb, typed, rest)
    preflight.check(todo)
    if todo.config:
        todo = dataclasses.replace(todo, data=data_of(todo.config, job.launch.data_root))
        preflight.check(todo)
    return todo, job
