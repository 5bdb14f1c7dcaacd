"""`relaunch train` and `relaunch evaluate`: parse, plan, check, start, stay to the end.

    relaunch train cifar10 --config 8gpu --epochs 10
"""

from __future__ import annotations

import argparse
import difflib
import os

from data_prep.errors import USAGE, Failure
from launch import engine, facts, plan, preflight, supervise
from trainers import config, rundir

HELP = """\
how it is launched:
  --config NAME|PATH      an accelerate config: {names} [1gpu if there is a GPU, else cpu]
  --num-processes N       processes on all machines together, over the config's
  --mixed-precision P     no, fp16 or bf16, over the config's
  --machine-rank N        with several machines: which this is, from 0
  --main-process-ip HOST  with several machines: name or address of the first
  --main-process-port N   with several machines: a port that is free on the first"""


def flags() -> config.Parser:
    parser = config.Parser(prog="relaunch train", add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config", default=None)
    parser.add_argument("--num-processes", dest="processes", type=int, metavar="N")
    parser.add_argument("--mixed-precision", dest="precision", choices=engine.PRECISIONS)
    parser.add_argument("--machine-rank", type=int, metavar="N")
    parser.add_argument("--main-process-ip", dest="address", metavar="HOST")
    parser.add_argument("--main-process-port", dest="port", type=int, metavar="PORT")
    return parser


def split(argv: list[str]) -> tuple[dict, list[str]]:
    """The launcher's flags that were typed, by their names in `Engine` (and `config`), and the worker's arguments."""
    typed, rest = flags().parse_known_args(argv)
    for flag, name, least in (("--num-processes", "processes", 1), ("--machine-rank", "machine_rank", 0),
                              ("--main-process-port", "port", 0)):
        if getattr(typed, name, least) < least:
            raise Failure(USAGE, f"{flag} {getattr(typed, name)} is too small", f"it must be at least {least}")
    return vars(typed), rest


def parse(rest: list[str]) -> config.Job:
    """The job, with its mistakes found now: seconds before torch would be there."""
    try:
        return config.parse(rest)
    except SystemExit:  # help was asked for, and printed
        print("\n" + HELP.format(names=", ".join(engine.names())))
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
        return config.merge_resumed(config.RunConfig.from_json(rundir.read_json(run.config)), job)
    return job.config


def main(verb: str, argv: list[str]) -> int:
    """Returns the exit code of the run. Failures of the command, the config or the hardware are raised."""
    typed, rest = split(argv)
    name = typed.pop("config")
    settings = trained(parse(rest)) if verb == "train" else None
    machine = facts.gather()
    asked = engine.read(name or ("1gpu" if machine.gpus else "cpu"))
    todo = plan.make(verb, rest, asked, engine.override(asked, **typed), machine, settings)
    preflight.check(todo)
    end = supervise.run(todo.command, plan.environment(todo, dict(os.environ)), todo.direct)
    if end.what:
        raise Failure(end.code, end.what, end.fix)
    return end.code
