"""A command line read: the launcher's own flags, the worker's words, and the job that these ask for.

command.split(["mnist", "--config", "cpu2", "-b", "8"])    # {"config": "cpu2"}, ["mnist", "-b", "8"]
"""

from __future__ import annotations

import argparse

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.talk import give
from relaunch.launch import accelerate_config, standin
from relaunch.trainers import config
from relaunch.trainers.flags import Parser
from relaunch.trainers.job import Job

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
  --max-restarts N        starts again after a crash, from the last checkpoint; a new checkpoint refills them
                          [3; 0 with several machines: there all must start again together]
  --restart-hung          starts again after a hang (76), too"""


def help() -> str:
    return HELP.format(names=", ".join(accelerate_config.names()))


def flags() -> Parser:
    parser = Parser(prog="relaunch train", add_help=False, argument_default=argparse.SUPPRESS)
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
    parser.add_argument("--restart-hung", action="store_true")
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
    found: list[str] = []
    for action in flags()._actions:
        if action.dest in typed:
            found += (
                action.option_strings
                if action.nargs == 0
                else [action.option_strings[0], str(typed[action.dest])]
            )
    return found


def job(rest: list[str], *others: Parser) -> Job:
    """The job, with its mistakes found now: seconds before torch would be there.

    A flag that is mistyped may be one of the launcher's or of the `others` that this command line takes.
    """
    wrong = standin.register(rest, flags(), *others)
    try:
        job = config.parse(rest, beside=(flags(), *others))
    except SystemExit:  # help was asked for, and printed
        give("\n" + help())
        raise
    if wrong:
        raise wrong
    return job
