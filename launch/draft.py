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
from relaunch.data_prep.talk import tell
from relaunch.launch import accelerate_config, command, estimate, facts, plan, platforms, preflight
from relaunch.trainers import PROGRAM, config, origin, records, rundir, workloads
from relaunch.trainers.begin import AUTO, Beginning, begin, check_source
from relaunch.trainers.flags import Parser
from relaunch.trainers.job import Job
from relaunch.trainers.profiling import asked, steps
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.tasks.task import check_data


def beginning(job: Job, machine_rank: int) -> Beginning:
    """Where the training begins, as the worker will decide it.

    The run belongs to the first machine: that it lies on another one's disk too may be the first one's doing.
    """
    if machine_rank and job.launch.resume != AUTO:
        run = RunDir(rundir.locate(job.launch.run)) if job.launch.run else None
        config = origin.fork(job.launch.fork, job)[0] if job.launch.fork else job.config
        return Beginning(run, config, weights=job.launch.weights)
    start = begin(job)
    check_source(start)
    return start


def place_of(start: Beginning) -> plan.Place:
    """The run's folder as it stands; that of a new run without a name has only its pattern yet."""
    known = start.origin or ({"init": {"source": start.weights}} if start.weights else {})
    begun = origin.said(known) if start.weights or start.fork else ""
    if start.run is None:
        name = rundir.ROOT / f"{start.config.workload}-{time.strftime('%Y%m%d-%H%M%S')}"
        return plan.Place(run=str(name), begun=begun)
    step = records.newest(start.run) if start.resumes else None
    return plan.Place(run=str(start.run.path), step=step, resumes=start.resumes, begun=begun)


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
        tell(asked.stderr, sys.stderr, end="")
        raise Failure(1, f"asking for the model's layers crashed (exit code {asked.returncode})") from None
    if said := answer.get("failure"):
        raise Failure(said["code"], said["what"], said["fix"])
    return estimate.size(answer, todo)


def draft(verb: str, typed: dict, rest: list[str]) -> tuple[plan.Plan, Job | None]:
    """The plan of a command line, not yet checked against this machine, and without its data."""
    typed = {k: v for k, v in typed.items() if k not in ("dry_run", "max_restarts", "restart_hung")}
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
        fits=bool(job and start and job.launch.micro_batch and not start.resumes),
    ), job


def prepare(verb: str, typed: dict, rest: list[str]) -> tuple[plan.Plan, Job | None]:
    """The plan, checked: the cheap checks first, then the data, then what depends on it. Writes nothing."""
    todo, job = draft(verb, typed, rest)
    preflight.check(todo)
    if not todo.config and todo.accelerate.machine_rank == 0:
        check_scored(rest, job)
    if todo.config:
        todo = dataclasses.replace(todo, data=data_of(todo.config, job.launch.data_root))
        preflight.check(todo)
        if todo.total_steps:
            steps.check(job.launch.profile_steps, todo.total_steps)
    return todo, job


def check_scored(rest: list[str], job: Job | None) -> None:
    """Failure 65 where what is to be scored is not there, and 64 where its data have no such split.

    What weights from elsewhere are described by, their workload's flags, is for the worker to read.
    """
    from relaunch.data_prep import packed

    if job:
        source, split, root = job.launch.resume, job.launch.split, job.launch.data_root
        data = job.config.data if "data" in job.given else None
    elif any(word.startswith("--workload") for word in rest):
        return
    else:
        finder = Parser(add_help=False)
        for flag in ("--split", "--data-root", "--data"):
            finder.add_argument(flag)
        source = rest[0] if rest and not rest[0].startswith("-") else None
        split, root, data = vars(finder.parse_known_args(rest)[0]).values()
    if not source or source == AUTO:
        return
    path, _ = rundir.find(source)
    data = data or records.config(RunDir(path)).get("data")
    if split and data:
        folder = packed.data_root(root)
        if not packed.not_packed_yet(data, folder):
            packed.open_packed(data, folder).check_split(split)
    if path.is_dir() and rundir.folder(path) == "run" and not records.checkpoints(RunDir(path)):
        raise rundir.without_checkpoint(RunDir(path))


def profiled(typed: dict, rest: list[str]) -> plan.Plan:
    """The plan of `relaunch profile`, checked as a training at each of its batch sizes would be."""
    sizes, words = asked.split(rest)
    job = command.job(words)
    configs = asked.configs(job, sizes)
    todo, _ = draft("profile", typed, rest)
    preflight.check(todo)
    for each in configs:
        one = dataclasses.replace(todo, config=each)
        preflight.check(one)
        preflight.check(dataclasses.replace(one, data=data_of(each, job.launch.data_root)))
    return todo
