"""`relaunch train` and `relaunch evaluate`: parse, plan, check, start, stay to the end.

relaunch train cifar10 --config 8gpu --epochs 10 --dry-run
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.launch import accelerate_config, facts, plan, platforms, preflight, restart, show
from relaunch.trainers import PROGRAM, config, rundir
from relaunch.trainers.rundir import RunDir

HELP = """\
how it is launched:
  --config NAME|PATH      an accelerate config: {names} [1gpu if there is a GPU, else cpu]
  --num-processes N       processes on all machines together, over the config's
  --mixed-precision P     no, fp16 or bf16, over the config's
  --num-machines N        machines, over the config's
  --machine-rank N        with several machines: which this is, from 0
  --main-process-ip HOST  with several machines: name or address of the first
  --main-process-port N   with several machines: a port that is free on the first
  --rdzv-backend B        with several machines: static (each is told its rank), or c10d (they agree on them)
  --emulate               start the config's processes on this machine's CPU in place of its GPUs
  --dry-run               say what would run where, and start nothing
  --max-restarts N        starts again after a crash, from the last checkpoint; each new checkpoint refills them
                          [3; 0 with several machines: there all must start again together]"""


def flags() -> config.Parser:
    parser = config.Parser(prog="relaunch train", add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config")
    parser.add_argument("--num-processes", dest="processes", type=int, metavar="N")
    parser.add_argument("--mixed-precision", dest="precision", choices=accelerate_config.PRECISIONS)
    parser.add_argument("--num-machines", dest="machines", type=int, metavar="N")
    parser.add_argument("--machine-rank", type=int, metavar="N")
    parser.add_argument("--main-process-ip", dest="address", metavar="HOST")
    parser.add_argument("--main-process-port", dest="port", type=int, metavar="PORT")
    parser.add_argument("--rdzv-backend", dest="rendezvous", choices=accelerate_config.RENDEZVOUS)
    parser.add_argument("--emulate", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--max-restarts", type=int, metavar="N")
    return parser


def split(argv: list[str]) -> tuple[dict, list[str]]:
    """The launcher's flags that were typed, and the worker's arguments."""
    typed, rest = flags().parse_known_args(argv)
    for flag, name, least in (
        ("--num-processes", "processes", 1),
        ("--num-machines", "machines", 1),
        ("--machine-rank", "machine_rank", 0),
        ("--main-process-port", "port", 0),
        ("--max-restarts", "max_restarts", 0),
    ):
        if getattr(typed, name, least) < least:
            raise Failure(
                USAGE, f"{flag} {getattr(typed, name)} is too small", f"it must be at least {least}"
            )
    return vars(typed), rest


def words(typed: dict) -> list[str]:
    """The launcher's flags again, as they would be typed."""
    found = []
    for action in flags()._actions:
        if action.dest in typed:
            found += (
                action.option_strings
                if action.nargs == 0
                else [action.option_strings[0], str(typed[action.dest])]
            )
    return found


def parse(rest: list[str]) -> config.Job:
    """The job, with its mistakes found now: seconds before torch would be there."""
    try:
        return config.parse(rest)
    except SystemExit:  # help was asked for, and printed
        print("\n" + HELP.format(names=", ".join(accelerate_config.names())))
        raise
    except Failure as failure:
        if failure.what.startswith("unknown argument"):
            ours = [s for action in flags()._actions for s in action.option_strings]
            if near := difflib.get_close_matches(failure.what.split("'")[1], ours, 1, 0.8):
                raise Failure(USAGE, failure.what, f"did you mean {near[0]}?") from failure
        raise


def trained(job: config.Job) -> config.RunConfig | None:
    """The config that will be trained: a resumed run's own, with what may change changed. None: nothing will."""
    if job.launch.evaluate:
        return None
    run = rundir.RunDir(rundir.locate(job.launch.run)) if job.launch.run else None
    if run and run.begun() and job.launch.resume == "auto":
        return config.merge_resumed(config.RunConfig.from_json(files.read_json(run.config)), job)
    return job.config


def place_of(job: config.Job) -> plan.Place | None:
    """The run's folder as it stands; that of a new run without a name has only its pattern yet."""
    if job.launch.evaluate:
        return None
    if not job.launch.run:
        name = rundir.ROOT / f"{job.config.workload}-{time.strftime('%Y%m%d-%H%M%S')}"
        return plan.Place(run=str(name), weights=job.launch.resume or "")
    run = RunDir(rundir.locate(job.launch.run))
    if job.launch.resume == "auto":
        newest = restart.newest(run)
        return plan.Place(run=str(run.path), step=newest if newest >= 0 else None)
    return plan.Place(run=str(run.path), weights=job.launch.resume or "")


def data_of(settings: config.RunConfig, root: str | None) -> plan.Data:
    """The packed set. Failure 65 if it is not there, unless the training will pack it."""
    from relaunch.data_prep import packed

    folder = packed.data_root(root)
    if packed.not_packed_yet(settings.data, folder):
        return plan.Data(name=settings.data, where=str(folder))
    found = packed.open_packed(settings.data, folder)
    found.check_split("train")
    rest = tuple((split, n) for split, n in found.splits.items() if split != "train")
    return plan.Data(
        name=found.name, where=str(found.path), hash=found.hash, train=found.splits["train"], rest=rest
    )


def size_of(todo: plan.Plan, rest: list[str]):
    """An `estimate.Size`, or None before the data is packed. Asks the model itself, which takes torch and seconds.

    A model that cannot be built for this data is the Failure that training would end with.
    """
    from relaunch.launch import estimate

    if todo.data is None or todo.data.train is None:
        return None
    asked = subprocess.run([sys.executable, PROGRAM, "summary", *rest], capture_output=True, text=True)
    for line in asked.stderr.splitlines():
        if said := re.match(r"relaunch: (\d+) (.*)", line):
            raise Failure(int(said[1]), said[2])
    return estimate.size(asked.stdout, todo)


def draft(verb: str, typed: dict, rest: list[str]) -> tuple[plan.Plan, config.Job | None]:
    """The plan of a command line, not yet checked against this machine, and without its data."""
    typed = {k: v for k, v in typed.items() if k not in ("dry_run", "max_restarts")}
    job = parse(rest) if verb == "train" else None
    settings, place = (trained(job), place_of(job)) if job else (None, None)
    machine = facts.gather(Path(place.run).parent if place else rundir.ROOT)
    emulate = typed.pop("emulate", False)
    asked = accelerate_config.read(typed.pop("config", None) or ("1gpu" if machine.gpus else "cpu"))
    if not emulate:
        typed = platforms.fill(asked, typed, machine.nodes)
    return plan.make(
        verb,
        rest,
        asked,
        accelerate_config.override(asked, **typed),
        machine,
        settings,
        None,
        place,
        emulate,
        job.launch.timeout if job else None,
    ), job


def prepare(verb: str, typed: dict, rest: list[str]) -> tuple[plan.Plan, config.Job | None]:
    """The plan, checked: the cheap checks first, then the data, then what depends on it. Writes nothing."""
    todo, job = draft(verb, typed, rest)
    preflight.check(todo)
    if todo.config:
        todo = dataclasses.replace(todo, data=data_of(todo.config, job.launch.data_root))
        preflight.check(todo)
    return todo, job


def main(verb: str, argv: list[str]) -> int:
    """Returns the exit code of the run. Failures of the command, the config or the hardware are raised."""
    typed, rest = split(argv)
    if verb == "evaluate" and {"-h", "--help"} & set(rest):
        print(HELP.format(names=", ".join(accelerate_config.names())) + "\n", flush=True)
        os.execv(sys.executable, [sys.executable, PROGRAM, "evaluate", "--help"])
    todo, job = prepare(verb, typed, rest)
    if typed.get("dry_run"):
        print(show.table(todo, size_of(todo, rest)))
        return 0
    run = None
    if todo.place:
        run = RunDir(todo.place.run)
        if not job.launch.run and todo.accelerate.machine_rank == 0:
            run = rundir.create(
                None, job.config.workload
            )  # now, so that we know where to go on after a crash
            todo = plan.with_run(todo, run.path)
    print(show.line(todo), flush=True)
    end = restart.run_with_restarts(
        todo, run, typed.get("max_restarts", restart.LIMIT if todo.accelerate.machines == 1 else 0)
    )
    if run and not job.launch.run and run.path.is_dir() and not any(run.path.iterdir()):
        run.path.rmdir()  # it did not get as far as a run
    if end.what:
        raise Failure(end.code, end.what, end.fix)
    return end.code
