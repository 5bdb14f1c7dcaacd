"""One description of a job, the same for every place that can run it: what to train, on what, for how long.

    describe.parse("slurm", ["cifar10", "--config", "8gpu", "--time", "4:00:00"]).processes    # 8

Everything that can be wrong about the training is found here, before it waits in a queue.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.launch import PROGRAM, accelerate_config, command, draft, grid, plan, preflight
from relaunch.launch.facts import Facts
from relaunch.launch.submit.surroundings import Site, checked, site
from relaunch.trainers import config, rundir, workloads
from relaunch.trainers import job as parsed
from relaunch.trainers.begin import AUTO, begin
from relaunch.trainers.flags import Parser, without
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.workloads.own.code import Code

REQUEUES = 20  # each brings one time limit's worth of training: more is a job that nobody looks after
THREADS = 2  # CPUs per process: one trains, one writes; there are no loader processes


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job. `words`: what follows `relaunch train`, less the run's folder; `given`: the flags as typed."""

    name: str
    words: tuple[str, ...]
    run: str
    weights: str | None  # to begin with
    data: str  # the packed set
    nodes: int
    gpus: int  # of each node; 0: none
    cpus: int  # of each node
    site: Site
    tasks: tuple[tuple[str, tuple[str, ...]], ...]  # (label, flags) of each point of a sweep
    given: argparse.Namespace
    typed: tuple[str, ...]  # all words after `relaunch submit`
    workload: str  # as it was typed, among the words
    code: Code | None = None  # its files, where they are somebody's own and travel with the job

    def with_code_in(self, folder: Path | str) -> Job:
        """The same job, where the workload's files lie in that folder when it starts."""
        if self.code is None:
            return self
        at = self.words.index(self.workload)
        word = str(Path(folder) / self.code.main.name)
        return replace(self, words=(*self.words[:at], word, *self.words[at + 1 :]))

    def command(self, *more: str, program: tuple[str, ...] = (PROGRAM,)) -> list[str]:
        """The start of a launcher, as words."""
        python = self.site.python or ("python3" if self.given.image else sys.executable)
        return [python, *program, "train", *self.words, *more]

    def runs(self) -> list[tuple[str, tuple[str, ...]]]:
        """(run, flags) of each task, or of the one that there is."""
        return [(f"{self.run}-{label}", flags) for label, flags in self.tasks] or [(self.run, ())]


def at_least(least: int):
    def whole(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} up")
        return int(text)

    return whole


def parser(kind: str) -> Parser:
    p = Parser(prog=f"relaunch submit {kind} WORKLOAD [flags of relaunch train]")
    p.set_defaults(site=None, sweep=[], chain=1, submit=False, volume=[])
    p.add_argument("--name", help="the job's name (default: the run's)")
    p.add_argument("--nodes", type=at_least(1), metavar="N", help="machines [the config's]")
    p.add_argument(
        "--gpus-per-node",
        dest="gpus",
        type=at_least(0),
        metavar="N",
        help="GPUs of each machine, a process each [the config's]",
    )
    p.add_argument(
        "--cpus-per-node",
        dest="cpus",
        type=at_least(1),
        metavar="N",
        help=f"CPUs of each machine [{THREADS} per process]",
    )
    p.add_argument("--time", type=seconds, help="how long it may run: MINUTES, H:MM:SS or D-HH:MM:SS")
    p.add_argument("--image", default="", help="container image")
    p.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="one more variable for the job; a secret by its name alone",
    )
    p.add_argument(
        "--requeues",
        type=at_least(0),
        default=REQUEUES,
        metavar="N",
        help=f"times that it may come back [{REQUEUES}]",
    )
    if kind == "slurm":
        for name in ("partition", "account", "qos", "constraint"):
            p.add_argument(f"--{name}", help="as sbatch means it")
        p.add_argument(
            "--module", dest="modules", action="append", help="environment module to load; may be repeated"
        )
        p.add_argument(
            "--site",
            metavar="FILE",
            help=f"YAML with this cluster's {', '.join(f.name for f in fields(Site))}",
        )
        p.add_argument(
            "--sweep",
            action="extend",
            nargs="+",
            metavar="FLAG=A,B,C",
            help="a job array over these values; several: all combinations",
        )
        p.add_argument(
            "--chain",
            type=at_least(1),
            metavar="N",
            help="N jobs, each beginning when the one before has ended: where requeueing is forbidden",
        )
        p.add_argument(
            "--print", dest="submit", action="store_false", help="only print the script (the default)"
        )
        p.add_argument("--submit", action="store_true", help="hand it to sbatch")
    if kind == "kubernetes":
        p.add_argument("--pytorchjob", action="store_true", help="a PyTorchJob v1 in place of a TrainJob")
        p.add_argument("--queue", metavar="NAME", help="Kueue's local queue, which then starts the job")
        p.add_argument(
            "--volume",
            action="append",
            metavar="CLAIM:PATH",
            help="persistent volume claim and where to mount it",
        )
    if kind == "sheet":
        p.add_argument("--user", help="your name on the platform", required=True)
        p.add_argument("--dataset", help="the packed set's name there [the workload's]")
        p.add_argument("--node-type", default="", help="as the form calls it")
        p.add_argument("--from-task", metavar="TASK", help="go on from this earlier task's output")
    return p


def parse(kind: str, argv: list[str]) -> Job:
    """The job of a command line, its training checked. Failure 64 or 65."""
    own = parser(kind)
    given, words = own.parse_known_args(argv)
    typed, rest = command.split(words)
    if taken := {"machines", "machine_rank", "address", "port", "dry_run"} & set(typed):
        flag = command.words({min(taken): 0})[0]
        raise Failure(
            USAGE,
            f"{flag} is what the job itself finds out",
            "leave it out; --nodes N says how many machines",
        )
    job = command.job(rest, own)
    if not job.launch.run:
        begin(job)  # `--resume auto` would not say what to go on with
    weights = job.launch.resume if job.launch.resume != AUTO else None
    if job.launch.evaluate or job.launch.stop_after:
        raise Failure(USAGE, "a job trains to the end", "leave --evaluate and --stop-after out")
    if (job.launch.weights or job.launch.fork) and kind != "slurm":
        raise Failure(
            USAGE,
            "only a SLURM job can begin with other weights",
            "start it once by hand, then submit it with its --run",
        )
    if kind == "slurm" and not given.time:
        raise Failure(
            USAGE, "a SLURM job needs to know how long it may run", "add --time 4:00:00, for example"
        )
    shape, added = layout(typed, given.nodes, given.gpus)
    dated = rundir.ROOT / f"{job.config.workload}-{time.strftime('%Y%m%d-%H%M%S')}"
    run = rundir.locate(job.launch.run) if job.launch.run else dated
    tasks = sweep(given.sweep, job)
    for label, flags in tasks or [("", ())]:
        launched, trains = command.split(list(flags))
        settings = trained([*rest, *trains], f"{run}-{label}" if label else str(run), weights, own)
        check(rest, accelerate_config.override(shape, **launched), settings, "emulate" in typed)
    if kind == "slurm":
        draft.data_of(settings, job.launch.data_root)
    name = checked("--name", given.name or run.name)
    if re.search(r"^\.|/", name):  # it names a folder
        raise Failure(USAGE, f"--name {name} holds / or begins with a dot", "choose another")
    code = workloads.load(job.config.workload).code
    local = shape.processes // shape.machines
    gpus = given.gpus if given.gpus is not None else 0 if shape.use_cpu or "emulate" in typed else local
    return Job(
        name=name,
        words=(*without(words, "--run", "--resume"), *added),
        run=str(run),
        weights=weights,
        nodes=shape.machines,
        gpus=gpus,
        cpus=given.cpus or THREADS * local,
        site=site(given),
        tasks=tasks,
        data=settings.data,
        given=given,
        typed=(kind, *argv),
        workload=rest[0],
        code=None if code is None or ":" in code.entry else code,
    )


def trained(rest: list[str], run: str, weights: str | None, own: Parser) -> config.RunConfig:
    """What the job trains when it starts: with a run that is begun by then it goes on, as its script does."""
    resume = weights if weights and not RunDir(run).begun() else AUTO
    return begin(command.job([*rest, "--run", run, "--resume", resume], own)).config


def layout(
    typed: dict, nodes: int | None, gpus: int | None
) -> tuple[accelerate_config.AccelerateConfig, list[str]]:
    """What runs where on the job's machines, and the flags that say so beside those that were typed."""
    emulate = "emulate" in typed
    alone = (nodes or 1) * (1 if gpus is None else max(gpus, 1)) == 1
    name = typed.get("config") or (
        ("cpu" if alone else "cpu2") if gpus == 0 else ("1gpu" if alone else "8gpu")
    )
    asked = accelerate_config.read(name)
    nodes = nodes or asked.machines
    if asked.use_cpu and gpus and not emulate:
        raise Failure(
            USAGE,
            f"{name} trains on the CPU and the job asks for {gpus} GPUs",
            "leave --gpus-per-node out, or choose another --config",
        )
    if emulate and nodes > 1:
        raise Failure(USAGE, "--emulate stays on one machine", "leave --nodes out")
    each = gpus if gpus and not emulate else max(1, asked.processes // asked.machines)
    processes = typed.get("processes", each * nodes)
    if gpus and not emulate and processes != each * nodes:
        raise Failure(USAGE, f"--num-processes {processes} is not {nodes} x {gpus} GPUs", "leave it out")
    added = [] if "config" in typed else ["--config", name]
    added += (
        ["--num-processes", str(processes)]
        if processes != asked.processes and "processes" not in typed
        else []
    )
    added += ["--num-machines", str(nodes)] if nodes != asked.machines else []
    return accelerate_config.override(
        asked, precision=typed.get("precision"), processes=processes, machines=nodes
    ), added


def check(
    rest: list[str], shape: accelerate_config.AccelerateConfig, settings: config.RunConfig, emulate: bool
) -> None:
    """What of the preflight does not depend on the machine that this is typed on."""
    shape = accelerate_config.override(shape, address="localhost")
    todo = plan.make("train", rest, shape, shape, Facts(), settings, emulate=emulate)
    for problem in (preflight.machines(todo), preflight.precision(todo), preflight.batch(todo)):
        if problem:
            raise problem


def sweep(typed: list[str], job: parsed.Job) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`["seed=1,2", "lr=0.1"]` -> (("seed1-lr0.1", ("--seed", "1", "--lr", "0.1")), …): all combinations."""
    shape = "the tasks of a job array have one shape: submit each by itself"
    never = dict.fromkeys(("config", "processes", "num_processes", "emulate"), shape)
    axes = grid.axes(typed, grid.known(job.config.workload), "--sweep", never)
    return tuple((point.label, point.words) for point in grid.points(axes))


def seconds(text: str) -> int:
    """SLURM's ways to write a time limit: M, M:SS, H:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS. Else Failure 64."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        fix = "write MINUTES, H:MM:SS or D-HH:MM:SS: it is the job's limit, not the training's own --time"
        raise Failure(USAGE, f"--time {text} is not a time", fix)
    parts = [int(part) for part in re.split("[-:]", text)]
    units = (86400, 3600, 60, 1) if "-" in text else (3600, 60, 1) if len(parts) == 3 else (60, 1)
    total = sum(n * unit for n, unit in zip(parts, units))
    if not total:
        raise Failure(USAGE, f"--time {text} is no time at all", "write MINUTES, H:MM:SS or D-HH:MM:SS")
    return total
