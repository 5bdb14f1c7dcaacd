"""A start of a training as a SLURM job: submitted as a person submits it, its processes killed on their node.

start = Submitted(["mnist", "--config", "cpu", "--time", "10"], RunDir("runs/drill/killed"), name="drill")
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable

from relaunch.data_prep.errors import HARDWARE, USAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.launch import PROGRAM
from relaunch.launch.drill.moments import FIRST, STEP, Moment
from relaunch.launch.submit import describe, standing
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

OFTEN = 2.0  # s between two questions to the controller
WITHOUT = ("name", "sweep", "chain")  # flags of a job that a drill says itself, or cannot take


def check(words: list[str]) -> None:
    """Failure 64 or 65 for what `relaunch submit slurm` would refuse, or a drill cannot take."""
    given = describe.parse("slurm", words).given
    for name in WITHOUT:
        if getattr(given, name) not in (None, [], 1):
            what = f"--{name} does not go with a drill, which has two jobs of its own"
            raise Failure(USAGE, what, "leave it out")


class Submitted:
    """One job. It is resumed by another one: what is killed is not requeued."""

    looks, tick = OFTEN, 0.1

    def __init__(self, words: list[str], run: RunDir, *more: str):
        name = f"{run.path.parent.name}-{run.path.name}"
        line = ["submit", "slurm", *words, "--run", str(run.path), "--name", name, *more, "--submit"]
        done = subprocess.run([sys.executable, PROGRAM, *line], capture_output=True, text=True)
        found = re.match(r"job (\d+)", done.stdout)
        if done.returncode or not found:
            said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            said = re.sub(r"^relaunch: \d+ ", "", said)
            raise Failure(done.returncode or HARDWARE, f"the job was not taken: {said}")
        self.job, self.run = found[1], run
        self.state, self.left, self.asked = "PENDING", True, 0.0
        tell(f"relaunch drill: job {self.job} trains {run.path}", sys.stderr)

    def ended(self) -> bool:
        if time.monotonic() - self.asked > OFTEN:
            self.asked = time.monotonic()
            try:
                known = standing.known(self.job)
            except Failure as failure:  # the controller is silent for a while
                if failure.code != HARDWARE:
                    raise
                return False
            self.state = known[0].state if known else "forgotten"
            self.left = bool(known) and known[0].left
        return not self.left

    def trains(self, first: int | None) -> bool:
        return self.state == "RUNNING" and first is not None

    def strike(self, moment: Moment) -> str:
        """By SLURM's own hands, wherever it runs."""
        if moment.victim == FIRST:
            host = str(records.plan(self.run).get("host", "")).partition(".")[0]
            pid = str(records.status(self.run).get("pid"))
            where = ["--jobid", self.job, "--overlap", "--nodelist", host, "--nodes", "1", "--ntasks", "1"]
            self.tell("srun", *where, "kill", "-KILL", pid)
            return f"rank 0 (process {pid} on {host}, job {self.job})"
        if moment.victim == STEP:
            steps = self.tell("squeue", "-h", "-s", "-j", self.job, "-o", "%i").split()
            self.tell("scancel", "--signal=KILL", *(s for s in steps if s.rpartition(".")[2].isdigit()))
            return f"the processes of job {self.job}"
        self.tell("scancel", "--signal=KILL", "--full", self.job)
        return f"all of job {self.job}, its script too"

    def tell(self, *words: str) -> str:
        """What the command prints. A Failure counts for nothing where the job has just ended."""
        try:
            return standing.ask(*words)
        except Failure:
            self.asked = 0.0
            if not self.ended():
                raise
            return ""

    def gone(self, hurry: Callable[[], bool]) -> None:
        while not self.ended() and not hurry():
            time.sleep(self.tick)

    def stop(self, number: int) -> None:
        """Whoever cancels a job lets it save."""
        self.tell("scancel", self.job)

    def outcome(self) -> tuple[int, str]:
        code = 0 if self.state == "COMPLETED" else records.status(self.run).get("code") or 1
        return code, f"job {self.job} {self.state} (relaunch logs {self.job} says why)"
