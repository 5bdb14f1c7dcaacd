"""A run's folder: every path in it, atomic writes, its lock, and the command-line names that lead to it.

RunDir("runs/first").metrics
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, LOCKED, STORAGE, Failure
from relaunch.data_prep.names import beside, nearest, offered, quoted
from relaunch.trainers import records


class RunDir:
    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.plan = self.path / "plan.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.predictions = self.path / "predictions"
        self.status = self.path / "status.json"
        self.stop = self.path / "STOP"
        self._lock: TextIO | None = None
        self._began = 0.0  # of time.monotonic(), had all starts of the run been this one

    @property
    def argument(self) -> str:
        """The run as a shell gives it to --run: a bare name would lie under runs/."""
        return quoted(str(self.path) if "/" in str(self.path) else f"./{self.path}")

    def begun(self) -> bool:
        return self.config.exists()

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}"

    def lock(self, wait: float = 30.0) -> None:
        """Own this run until the process ends. Failure 77 if another still does after `wait` seconds."""
        self._lock = open(self.path / ".lock", "w")
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure(
                        LOCKED,
                        f"another process is training {self.path}",
                        "wait for it, or choose another --run",
                    )
                time.sleep(0.2)
        self._began = time.monotonic() - records.seconds(self)

    def write_status(
        self, state: str, code: int | None = None, step: int | None = None, reason: str = ""
    ) -> None:
        """`state`: running | done | stopped | preempted | failed; `code`: the exit code, as in errors.py."""
        status = {
            "state": state,
            "code": code,
            "step": step,
            "reason": reason,
            "pid": os.getpid(),
            "seconds": round(time.monotonic() - self._began if self._lock else records.seconds(self), 1),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        try:
            files.write_atomic(self.status, files.dump_json(status))
        except OSError as error:  # a full disk: what is reported must not depend on the report
            print(f"relaunch: cannot write {self.status} ({error})", file=sys.stderr, flush=True)

    def cut_metrics(self, step: int, evaluated: int) -> None:
        """Drop what was logged beyond `step`, evaluations beyond `evaluated`, and what is no record."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_bytes().split(b"\n"):
            found = records.record(line)
            if found and found["step"] <= (evaluated if found["split"] == "val" else step):
                kept.append(line + b"\n")
        files.write_atomic(self.metrics, b"".join(kept))


ROOT = Path("runs")


def create(name: str | None, workload: str) -> RunDir:
    """Make a new run's folder: `name` (a name under runs/, or a path), else runs/WORKLOAD-date-time[-n]."""
    if name:
        path = locate(name)
        path.mkdir(parents=True, exist_ok=True)
        return RunDir(path)
    base = ROOT / f"{workload}-{time.strftime('%Y%m%d-%H%M%S')}"
    base.parent.mkdir(parents=True, exist_ok=True)
    for n in range(1000):
        path = base if n == 0 else base.with_name(f"{base.name}-{n}")
        try:
            path.mkdir()
            return RunDir(path)
        except FileExistsError:
            continue
    raise Failure(STORAGE, f"a thousand runs are named {base}", "give this one a name with --run")


def locate(name: str) -> Path:
    """A run's folder: a bare NAME lies under runs/, anything with a slash is a path."""
    return Path(name) if "/" in name or name in (".", "..") else ROOT / name


def runs() -> list[RunDir]:
    """The runs under runs/, the one begun last at the end."""
    return [
        RunDir(path.parent) for path in sorted(ROOT.glob("*/config.json"), key=lambda p: p.stat().st_mtime)
    ]


def find(source: str) -> tuple[Path, str | None]:
    """What RUN, RUN@best, RUN@STEP or a path names: (existing file or folder, selector).

    A bare name is a run under runs/ first. Failure 65 if nothing is there.
    """
    name, selector = source, None
    if match := re.fullmatch(r"(.+)@(best|\d+)", source):
        name, selector = match.groups()
    for path in (locate(name), Path(name)):  # a run first, whatever folder has the same name
        if path.exists():
            return path, selector
    raise Failure(DATA, f"no run or checkpoint {name!r}", instead(name))


def instead(name: str) -> str:
    """What may be typed for a run, checkpoint or file that is not there."""
    run, _, selector = name.rpartition("@")
    if run and RunDir(locate(run)).begun():  # its checkpoints are named best and by their steps
        steps = [f"{run}@{records.step_of(p)}" for p in records.committed(RunDir(locate(run)))]
        return offered(name, [f"{run}@best", *reversed(steps)] if steps else [run])
    if "/" in name and (paths := beside(name)):
        return offered(name, paths)
    known = [run.path.name for run in reversed(runs())]
    if not nearest(name, known) and (file := nearest(name, beside(name))):
        return f"did you mean {quoted(file)}?"
    return offered(name, known, "runs here:") or "nothing is under runs/ yet"
