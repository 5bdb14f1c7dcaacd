"""A folder on a SLURM of our own, from which jobs are submitted as people do it, and what becomes of them."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from relaunch.launch import PROGRAM
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir
from rigs import slurm
from rigs.runs import sha256

SMALL = "mnist --data digits -b 32 --threads 1 --log-interval 10 --eval-every 99".split()


class Cluster:
    def __init__(self, rig: slurm.Rig, home: Path):
        self.rig, self.home = rig, home
        rig.environ["RELAUNCH_DATA"] = str(home / "data")
        rig.environ.pop("PYTHONPATH", None)  # what starts by path needs no other way to itself
        for name in ("random", "launch", "models", "trainers", "text"):  # a user's own, which are not ours
            (home / f"{name}.py").write_text("raise SystemExit(f'imported {__file__}')\n")
        self.relaunch("train", *SMALL, "--config", "cpu", "--max-steps", "1", "--run", "packs-the-data")

    def relaunch(self, *words: str, code: int = 0) -> str:
        """A command as people type it; returns what it says, on stdout or, if it fails, on stderr."""
        done = subprocess.run(
            [sys.executable, PROGRAM, *map(str, words)],
            cwd=self.home,
            env=self.rig.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    def submit(self, *words: str, pace: float = 0, on: str = "", time: str = "10", small=SMALL) -> str:
        """A job on the node `on`; returns its number."""
        site = self.home / f"site{on}.yaml"
        site.write_text(
            "lines: ['echo devices=$CUDA_VISIBLE_DEVICES']\n"
            + (f"directives: [--nodelist={on}]\n" if on else "")
        )
        slow = ["--env", f"RELAUNCH_FAULT=step=*,do=sleep:{pace}"] if pace else []
        job = ["submit", "slurm", *small, *words, "--time", time, "--submit", "--site", site, *slow]
        said = self.relaunch(*job)
        return re.match(r"job (\d+)", said).group(1)

    def state(self, job: str) -> str:
        return re.search(r"JobState=(\w+)", self.rig.run("scontrol", "-o", "show", "job", job)).group(1)

    def restarts(self, job: str) -> int:
        return int(re.search(r"Restarts=(\d+)", self.rig.run("scontrol", "-o", "show", "job", job)).group(1))

    def end(self, job: str, seconds: float = 240) -> str:
        """The job's last state. One that waits after a requeue is told to wait no longer."""
        waiting = None  # since when: a start in the second of the last one's end is refused

        def look():
            nonlocal waiting
            state = self.state(job)
            waiting = waiting or time.monotonic() if state == "PENDING" and self.restarts(job) else None
            if waiting and time.monotonic() > waiting + 3:
                now = f"update jobid={job} StartTime=now TimeLimit=10"
                self.rig.run("scontrol", *now.split(), check=False)
            return state if state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL") else None

        try:
            return self.rig.wait(look, seconds)
        except TimeoutError:
            raise AssertionError(self.log(job)) from None

    def log(self, job: str) -> str:
        return "".join(
            path.read_text()
            for name in (f"{job}.out", f"{job}_*.out")
            for path in sorted(self.home.glob(f"runs/jobs/*/{name}"))
        )

    def run_of(self, name: str) -> Path:
        return self.home / "runs" / name

    def status(self, name: str) -> dict:
        path = self.run_of(name) / "status.json"
        return json.loads(path.read_text()) if path.exists() else {"state": "none", "step": 0}

    def reach(self, name: str, step: int):
        """Wait until the run has logged this step."""
        run = RunDir(self.run_of(name))
        self.rig.wait(lambda: any(record["step"] >= step for record in records.metrics(run)), 120)

    def weights(self, name: str, step: int) -> str:
        return sha256(RunDir(self.run_of(name)).checkpoint(step) / "model.safetensors")
