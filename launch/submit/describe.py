"""One description of a job, the same for every place that can run it: what to train, on what, for how long.

    describe.parse("slurm", ["cifar10", "--config", "8gpu", "--time", "4:00:00"]).processes    # 8

Everything that can be wrong about the training is found here, before it waits in a queue.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import re
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from data_prep.errors import USAGE, Failure
from launch import engine, plan, preflight, start
from launch.facts import Facts
from trainers import config, rundir
from trainers.workloads import nearest

# What a job gets of the environment it is submitted from. A whole environment holds tokens, and surprises.
KEPT = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "TMPDIR", "RELAUNCH_DATA", "HF_HOME", "HF_ENDPOINT")
KEPT_PREFIXES = ("NCCL_", "GLOO_", "UCX_")
SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)KEY", re.IGNORECASE)
REQUEUES = 20  # each brings one time limit's worth of training: more is a job that nobody looks after
THREADS = 2  # CPUs per process: one trains, one writes; there are no loader processes


@dataclass(frozen=True, kw_only=True)
class Site:
    """What is written once per cluster (--site FILE, YAML). `lines` and `container` are shell of the site's own."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    modules: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()  # more of #SBATCH, such as --mem=64G
    lines: tuple[str, ...] = ()  # run before the start
    container: str = ""  # put before the command; {image} is the job's
    python: str = ""  # the interpreter there


@dataclass(frozen=True, kw_only=True)
class Job:
    """`words` is the command after `relaunch train`, without the run's folder; `tasks` are the points of a sweep."""

    kind: str
    name: str
    words: tuple[str, ...]
    run: str
    weights: str | None  # to begin with
    nodes: int
    gpus: int  # of each node; 0: none
    processes: int  # on all nodes together
    cpus: int  # of each node
    time: int | None  # s
    image: str
    site: Site
    tasks: tuple[tuple[str, tuple[str, ...]], ...]  # (label, flags)
    env: tuple[str, ...]  # NAME or NAME=VALUE
    chain: int
    requeues: int
    submit: bool
    extra: argparse.Namespace  # of one kind only

    @property
    def python(self) -> str:
        return self.site.python or ("python3" if self.image else sys.executable)

    def command(self, *more: str) -> list[str]:
        """The start of a launcher, as words."""
        return [self.python, "-m", "launch", "train", *self.words, *more]


def parser(kind: str) -> config.Parser:
    p = config.Parser(prog=f"relaunch submit {kind} WORKLOAD [flags of relaunch train]", argument_default=argparse.SUPPRESS)
    p.add_argument("--name", help="the job's name (default: the run's)")
    p.add_argument("--nodes", type=int, help="machines [the config's]")
    p.add_argument("--gpus-per-node", dest="gpus", type=int, help="GPUs of each machine, a process each [the config's]")
    p.add_argument("--cpus-per-node", dest="cpus", type=int, help=f"CPUs of each machine [{THREADS} per process]")
    p.add_argument("--time", help="how long it may run: MINUTES, H:MM:SS or D-HH:MM:SS")
    p.add_argument("--image", help="container image")
    p.add_argument("--env", action="append", metavar="NAME[=VALUE]", help="one more variable for the job; a secret by its name alone")
    p.add_argument("--requeues", type=int, help=f"times that it may come back [{REQUEUES}]")
    if kind == "slurm":
        for name in ("partition", "account", "qos", "constraint"):
            p.add_argument(f"--{name}", help="as sbatch means it")
        p.add_argument("--module", dest="modules", action="append", help="environment module to load; may be repeated")
        p.add_argument("--site", metavar="FILE", help=f"YAML with this cluster's {', '.join(f.name for f in fields(Site))}")
        p.add_argument("--sweep", action="append", metavar="FLAG=A,B,C", help="a job array over these values; repeated: all combinations")
        p.add_argument("--chain", type=int, help="N jobs, each beginning when the one before has ended: where requeueing is forbidden")
        p.add_argument("--print", dest="submit", action="store_false", help="only print the script (the default)")
        p.add_argument("--submit", action="store_true", help="hand it to sbatch")
    if kind == "kubernetes":
        p.add_argument("--pytorchjob", action="store_true", help="a PyTorchJob v1 in place of a TrainJob")
        p.add_argument("--queue", metavar="NAME", help="Kueue's local queue, which then starts the job")
        p.add_argument("--volume", action="append", metavar="CLAIM:PATH", help="persistent volume claim and where to mount it")
        p.add_argument("--workdir", metavar="PATH", help="folder of the runs inside the container (default: the image's)")
    if kind == "sheet":
        p.add_argument("--user", help="your name on the platform", required=True)
        p.add_argument("--dataset", help="the packed set's name there (default: --data's)")
        p.add_argument("--node-type", help="as the form calls it")
        p.add_argument("--from-task", metavar="TASK", help="go on from this earlier task's output")
    return p


def parse(kind: str, argv: list[str]) -> Job:
    """The job of a command line, its training checked. Failure 64 or 65."""
    given, words = parser(kind).parse_known_args(argv)
    typed, rest = start.split(words)
    for name, flag in (("machine_rank", "--machine-rank"), ("address", "--main-process-ip"), ("port", "--main-process-port"),
                       ("dry_run", "--dry-run"), ("machines", "--num-machines")):
        if name in typed:
            raise Failure(USAGE, f"{flag} is what the job itself finds out", "leave it out; say --nodes N" if name == "machines" else "leave it out")
    job = start.parse(rest)
    if job.launch.evaluate or job.launch.stop_after:
        raise Failure(USAGE, "a job trains to the end", "leave --evaluate and --stop-after out")
    for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("chain", 1), ("requeues", 0)):
        if getattr(given, name, least) < least:
            raise Failure(USAGE, f"--{name} {getattr(given, name)} is too small", f"it must be at least {least}")
    shape, adds = layout(typed, getattr(given, "nodes", None), getattr(given, "gpus", None))
    settings = start.trained(job)
    preflight_batch(rest, shape, settings)
    tasks = sweep(getattr(given, "sweep", []), rest)
    weights = job.launch.resume if job.launch.resume != "auto" else None
    if weights and kind != "slurm":
        raise Failure(USAGE, "only a SLURM job can begin with other weights", "start it once by hand, then submit it with its --run")
    if kind == "slurm":
        if not hasattr(given, "time"):
            raise Failure(USAGE, "a SLURM job needs to know how long it may run", "add --time 4:00:00, for example")
        start.data_of(settings, job.launch.data_root)
    run = str(rundir.locate(job.launch.run) if job.launch.run else rundir.ROOT / f"{settings.workload}-{time.strftime('%Y%m%d-%H%M%S')}")
    local = shape.processes // shape.machines
    return Job(kind=kind, name=checked("name", getattr(given, "name", Path(run).name)), words=tuple(dropped(words, "--run", "--resume") + adds),
               run=run, weights=weights, nodes=shape.machines, gpus=0 if shape.use_cpu and not typed.get("emulate") else getattr(given, "gpus", local),
               processes=shape.processes, cpus=getattr(given, "cpus", THREADS * local), time=seconds(given.time) if hasattr(given, "time") else None,
               image=getattr(given, "image", ""), site=site(given), tasks=tasks, env=tuple(getattr(given, "env", ())),
               chain=getattr(given, "chain", 1), requeues=getattr(given, "requeues", REQUEUES), submit=getattr(given, "submit", False), extra=given)
