"""What `relaunch profile` is asked for: the batch sizes, and a training of each. Never imports torch.

asked.split(["mnist", "--batch-size", "1,16,64"])    # [1, 16, 64], ["mnist", "--batch-size=1"]
"""

from __future__ import annotations

import dataclasses
import re

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import Parser, flag
from relaunch.trainers.job import Job, Launch

HELP = """\
usage: relaunch profile WORKLOAD [--batch-size N[,N...]] [--out FOLDER] [flags]

Measure the training step of a workload at some batch sizes: its most expensive operators, its phases, time
per step and per sample, FLOPs, and a trace for https://ui.perfetto.dev. It trains for a few seconds and saves
no weights. What it finds goes to FOLDER: profile.html, profile.md, profile.json and the traces.

  relaunch profile mnist --data digits --batch-size 1,16,64
  relaunch profile cifar10 --arch net_bn -b 32 --out profiles/net_bn
  relaunch profile wikitext2 --config cpu2 -b 20       two processes; what is shown is the first one's
  relaunch profile ./flowers.py -b 1,8                 a workload of your own
  relaunch train mnist --profile-steps 100:110         ten steps of a real training: RUN/profile-100-110

flags:
  -b, --batch-size N,N,N  samples of a step over all processes; several are measured in turn [the workload's]
  --out FOLDER            batch sizes and configs that it already holds stay, unless they are measured again
                          [profiles/WORKLOAD]
  and those of `relaunch train WORKLOAD --help` that say what is trained: --data, --arch, --threads, ..."""
WITH = ("out", "data_root", "preset", "timeout")  # of a start's flags, those that a profile takes


def split(argv: list[str]) -> tuple[list[int], list[str]]:
    """The batch sizes that are asked for, and the words of a training of the first; none: its own default."""
    parser = Parser(prog="relaunch profile", add_help=False)
    parser.add_argument("-b", "--batch-size", dest="sizes")
    typed, words = parser.parse_known_args(argv)
    if typed.sizes is None:
        return [], words
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", typed.sizes):
        what = f"--batch-size {typed.sizes!r} is no list of whole numbers"
        raise Failure(USAGE, what, "type them with commas: --batch-size 1,16,64")
    sizes = list(dict.fromkeys(map(int, typed.sizes.split(","))))
    return sizes, [*words, f"--batch-size={sizes[0]}"]


def configs(job: Job, sizes: list[int]) -> list[RunConfig]:
    """The config of each batch size. Failure 64 for flags that mean nothing to a profile."""
    for f in dataclasses.fields(Launch):
        if f.name not in WITH and getattr(job.launch, f.name) != f.default:
            raise Failure(USAGE, f"{flag(f.name)} is for trainings, and a profile saves none", "leave it out")
    return [dataclasses.replace(job.config, batch_size=n) for n in sizes or [job.config.batch_size]]
