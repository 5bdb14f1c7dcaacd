"""`relaunch drill`: a real training that is killed at random moments and resumed, beside an undisturbed one.

relaunch drill mnist --data digits --max-steps 60 --kills 5
"""

from __future__ import annotations

import sys
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DIED, HARDWARE, USAGE, Failure
from relaunch.data_prep.packed import data_root
from relaunch.data_prep.recipes import ensure
from relaunch.data_prep.talk import give, tell
from relaunch.launch import command, draft, processes, supervise
from relaunch.launch.compare import at_least
from relaunch.launch.drill.moments import draw
from relaunch.launch.drill.outcome import Outcome
from relaunch.launch.drill.training import RECORD, Drill
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
    return p


def main(argv: list[str]) -> int:
    """Returns 0; Failure 1 if the trainings did not end the same."""
    if not argv or argv[0] in ("-h", "--help"):
        give(parser().format_help(), end="")
        return 0 if argv else USAGE
    own = parser()
    given, words = own.parse_known_args(argv)
    typed, rest = command.split(words)
    if not rest or rest[0].startswith("-"):
        raise Failure(USAGE, "the workload is missing", "type relaunch drill mnist, for example")
    job = command.job(rest, own)
    refuse(job, typed)
    total, world = size(typed, rest, job, given.kills)
    folder = made(given.run, job.config.workload)
    RunDir(folder).lock(wait=0, says=False)
    drawn_from = f"{folder.name}, seed {job.config.seed}"
    again = [*without(argv, "--run"), "--run", given.run or str(folder)]
    drill = Drill(folder, words, draw(drawn_from, given.kills, total, world), again)
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
        "--time": (config.time, "both trainings have as many steps: say --max-steps"),
        "--dry-run": (typed.get("dry_run"), "a drill trains"),
        "--max-restarts": ("max_restarts" in typed, "a drill starts again by itself"),
    }
    for flag, (value, why) in wrong.items():
        if value:
            raise Failure(USAGE, f"{flag} does not go with a drill: {why}", "leave it out")
    if not processes.LINUX:
        raise Failure(HARDWARE, "a drill finds the processes of a training under /proc, which Linux has")


def size(typed: dict, rest: list[str], job: Job, kills: int) -> tuple[int, int]:
    """Steps and processes of the training, which is checked as its start would check it."""
    ensure(job.config.data, data_root(job.launch.data_root))  # its size decides the steps
    todo, _ = draft.prepare("train", typed, rest)
    if todo.accelerate.machines > 1:
        what = f"--config {todo.accelerate.name} is of {todo.accelerate.machines} machines"
        raise Failure(USAGE, f"{what}, and a drill kills processes of this one", "choose another --config")
    total = todo.total_steps or 0
    if total < kills:
        what = f"--kills {kills} is more than the {total:,} steps of the training"
        raise Failure(USAGE, what, f"take fewer, or train longer: --max-steps {10 * kills}, for example")
    return total, todo.accelerate.processes
