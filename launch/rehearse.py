"""A start through the real path, small: the config's processes meet, take a step, save, and load what they saved.

rehearse.run(["--config", "cpu2"], processes=2, job=None)    # Rehearsal(code=75, world=2, …)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep.errors import PREEMPTED
from relaunch.launch import PROGRAM
from relaunch.trainers.rundir import RunDir


@dataclass(frozen=True)
class Rehearsal:
    """What was achieved. `said`: the line that explains a code other than 0."""

    code: int
    world: int | None = None
    device: str = ""
    precision: str = ""
    step: int | None = None
    seconds: float = 0.0
    said: str = ""


def run(flags: list[str], processes: int, job: list[str] | None, runs: Path) -> Rehearsal:
    """Two steps, each in a start of its own, of `job` (a workload and its flags) or of the embedded digits.

    `runs` is where the run's folder goes, and from where it is removed: the disk of the real runs is rehearsed too.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=runs) as folder:
        place = RunDir(Path(folder) / "run")
        words = job or [
            "mnist",
            "--data",
            "digits",
            "--data-root",
            folder,
            "--batch-size",
            str(4 * processes),
        ]
        for step in (1, 2):
            command = [
                sys.executable,
                PROGRAM,
                "train",
                *words,
                *flags,
                "--run",
                str(place.path),
                "--resume",
                "auto",
                "--stop-after",
                str(step),
                "--max-restarts",
                "0",
            ]
            done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
            if done.returncode != PREEMPTED:
                lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
                ours = [line for line in lines if line.startswith("relaunch: ")]
                return Rehearsal(
                    done.returncode or 1, said=(ours or lines)[-1], seconds=time.monotonic() - began
                )
        plan, status = json.loads(place.plan.read_text()), json.loads(place.status.read_text())
        return Rehearsal(
            0, plan["world"], plan["device"], plan["precision"], status["step"], time.monotonic() - began
        )
