"""`relaunch drill`: a real training that is killed at random moments and resumed, beside an undisturbed one.

relaunch drill mnist --data digits --max-steps 60 --kills 5
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DIED, HARDWARE, USAGE, Failure
from relaunch.data_prep.packed import data_root
from relaunch.data_prep.recipes import ensure
from relaunch.data_prep.talk import give, tell
from relaunch.launch import command, draft, processes, supervise
from relaunch.launch.compare import at_least
from relaunch.launch.drill import jobs
from relaunch.launch.drill.moments import HERE, IN_JOBS, OTHER, draw
from relaunch.launch.drill.outcome import Outcome
from relaunch.launch.drill.training import RECORD, Drill
from relaunch.launch.drill.victims import Launched
from relaunch.launch.submit import describe
from relaunch.trainers import rundir
from relaunch.trainers.flags import Parser, without
from relaunch.trainers.job import Job
from relaunch.trainers.rundir import RunDir

KILLS = 5
ABOUT = """\
Prove that no work is lost: train a workload twice with the same settings, once undisturbed, and once killed
with SIGKILL at random moments and resumed each time; then compare the last weights, the optimizer's state
and every row of metrics. Exit code 0 if all are equal to the bit, else 1.

  relaunch drill mnist --data digits --max-steps 60 --kills 5
  relaunch drill cifar10 --config 8gpu --epochs 2 --save-every 50
  relaunch drill cifar10 --config 8gpu --epochs 2 --submit slurm --time 30 --partition gpu

The launcher, rank 0, another rank or all processes are killed, some of them while a checkpoint is written.
The page says what was killed when, which steps were repeated, how much time was lost, goodput and badput by
cause. Type the same command with its --run to go on with a drill that was stopped."""
MORE = "All flags of `relaunch train WORKLOAD` may follow, but those that name a run or say where it ends."


def parser() -> Parser:
    p = Parser(prog="relaunch drill", usage="relaunch drill WORKLOAD [flags]", description=ABOUT, epilog=MORE)
    p.add_argument("--kills", type=at_least(1), default=KILLS, metavar="N", help=f"how many [{KILLS}]")
    p.add_argument(
        "--run",
        metavar="NAME|PATH",
        help="the drill's folder, with both trainings and page.html [runs/drill-WORKLOAD-date]; the moments "
        "are drawn from its name and --seed",
    )
    p.add_argument(
        "--submit",
        choices=("slurm",),
        metavar="slurm",
        help="train both as SLURM jobs, killed on their node and submitted again; the flags of a job follow, "
        "as relaunch submit slurm --help lists them",
    )
    return p


def main(argv: list[str]) -> int:
    """Returns 0; Failure 1 if the trainings did not end the same."""
    if not argv or argv[0] in ("-h", "--help"):
        give(parser().format_help(), end="")
        return 0 if argv else USAGE
    own = parser()
    given, words = own.parse_known_args(argv)
    # of a job's flags, --time is one of a training, too
    trains = describe.parser("slurm").parse_known_args(words)[1] if given.submit else words
    typed, rest = command.split(trains)
    if not rest or rest[0].startswith("-"):
        raise Failure(USAGE, "the workload is missing", "type relaunch drill mnist, for example")
    job = command.job(rest, own)
    refuse(job, typed)
    if given.submit:
        jobs.check(words)
    total, world = size(typed, rest, job, given)
    folder = made(given.run, job.config.workload)
    RunDir(folder).lock(wait=0, says=False)
    drawn_from = f"{folder.name}, seed {job.config.seed}"
    kinds = IN_JOBS if given.submit else HERE if world > 1 else [kind for kind in HERE if kind != OTHER]
    drill = Drill(
        folder,
        without(argv, "--run", "--kills"),
        draw(drawn_from, given.kills, total, kinds),
        [*without(argv, "--run"), "--run", given.run or str(folder)],
        partial(jobs.Submitted if given.submit else Launched, words),
    )
    drill.keep()
    with supervise.Asked() as asked:
        drill.undisturbed(asked)
        drill.killed(asked)
    if not drill.kills:
        what = f"the training of {total:,} steps ended before the first kill"
        raise Failure(USAGE, what, "train longer: --max-steps or --epochs")
    found = Outcome(drill)
    page = found.write(drawn_from)
    give(found.text())
    tell(f"{page}; beside it {page.with_suffix('.md').name} and both trainings", sys.stderr)
    if found.unlike:
        raise Failure(DIED, f"the killed training did not end as the undisturbed one: {found.unlike[0]}")
    return 0


def made(name: str | None, workload: str) -> Path:
    """The drill's folder, new or of an earlier call. Failure 64 for a folder of something else."""
    if name and (path := rundir.locate(name)).exists():
        if not (path / RECORD).exists():
            raise Failure(USAGE, f"{path} exists and is not a drill", "choose another --run")
        return path
    with files.storage(rundir.ROOT, "--run"):
        return rundir.create(name, f"drill-{workload}").path


def refuse(job: Job, typed: dict) -> None:
    """Failure 64 for flags of a training that a drill says itself, or that leave nothing to compare."""
    launch, config = job.launch, job.config
    wrong = {
        "--resume": (launch.resume, "a drill resumes by itself"),
        "--evaluate": (launch.evaluate, "a drill trains"),
        "--stop-after": (launch.stop_after, "a drill trains to the end"),
        "--time": (config.time, "it is measured, and both have as many steps: say --max-steps"),
        "--compile auto": (config.compile == "auto", "it is measured, and both have the same: say on or off"),
        "--micro-batch auto": (
            launch.micro_batch,
            "it is measured, and both have the same: say --grad-accum-steps",
        ),
        "--dry-run": (typed.get("dry_run"), "a drill trains"),
        "--max-restarts": ("max_restarts" in typed, "a drill starts again by itself"),
    }
    for flag, (value, why) in wrong.items():
        if value:
            raise Failure(USAGE, f"{flag} does not go with a drill: {why}", "leave it out")
    if not processes.LINUX:
        raise Failure(HARDWARE, "a drill finds the processes of a training under /proc, which Linux has")


def size(typed: dict, rest: list[str], job: Job, given: argparse.Namespace) -> tuple[int, int]:
    """Steps and processes of the training, which is checked as its start here would check it."""
    ensure(job.config.data, data_root(job.launch.data_root))  # its size decides the steps
    if given.submit:  # to another machine than this one
        todo, _ = draft.draft("train", typed, rest)
        assert todo.config, "it is to be trained"
        todo = dataclasses.replace(todo, data=draft.data_of(todo.config, job.launch.data_root))
    else:
        todo, _ = draft.prepare("train", typed, rest)
    if todo.accelerate.machines > 1 and not given.submit:
        what = f"--config {todo.accelerate.name} is of {todo.accelerate.machines} machines"
        fix = "choose another --config, or train it as a job: --submit slurm"
        raise Failure(USAGE, f"{what}, and a drill kills processes of this one", fix)
    total, kills = todo.total_steps or 0, given.kills
    if total < kills:
        what = f"--kills {kills} is more than the {total:,} steps of the training"
        raise Failure(USAGE, what, f"take fewer, or train longer: --max-steps {10 * kills}, for example")
    return total, todo.accelerate.processes
