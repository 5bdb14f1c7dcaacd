"""A run's folder: every path in it, atomic writes, its lock, and the command-line names that lead to it.

RunDir("runs/first").metrics
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from relaunch.data_prep import files, owner
from relaunch.data_prep.errors import DATA, LOCKED, STORAGE, Failure
from relaunch.data_prep.names import beside, nearest, offered, quoted
from relaunch.data_prep.talk import tell
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
        self.layers = self.path / "layers.json"  # of its model, as it began
        self.shown = self.path / "shown.json"  # what its task wrote to look at, such as generated text
        self.time = self.path / "time.json"  # where it went: see spent
        self.stop = self.path / "STOP"
        self.logs = self.path / "logs"  # one for each rank, in all its starts
        self.code = self.path / "code"  # the files of a workload of one's own
        self._lock: TextIO | None = None
        self._began = 0.0  # of time.monotonic(), had all starts of the run been this one

    @property
    def argument(self) -> str:
        """The run as a shell gives it to --run: a bare name would lie under runs/."""
        return quoted(str(self.path) if "/" in str(self.path) else f"./{self.path}")

    def begun(self) -> bool:
        return os.path.exists(self.config)

    def log(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.log"

    def stacks(self, rank: int | str) -> Path:
        return self.logs / f"stacks-rank-{rank}.txt"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}"

    def owner(self) -> str:
        """Who trains this run while its lock is taken, as its files say."""
        status = records.status(self)
        if status.get("state") != "running":
            return "a process that has just begun, or is ending"
        host = records.plan(self).get("host", "an unknown machine")
        at = f"at step {status.get('step', 0):,}, as of {status.get('time', 'an unknown time')}"
        return f"process {status.get('pid', '?')} on {host}, {at}"

    def lock(self, wait: float = 30.0, says: bool = True) -> None:
        """Own this run until the process ends. Failure 77 if another still does after `wait` seconds.

        `says`: a line tells whose it is meanwhile.
        """
        try:
            self._lock = files.open_lock(self.path / ".lock")
        except OSError as error:
            if (self.path / ".lock").is_symlink():
                raise Failure(STORAGE, f"{self.path / '.lock'} is a link", "remove it") from error
            raise
        deadline = time.monotonic() + wait
        while not self._owned():
            if time.monotonic() > deadline:
                fix = "wait for it, or choose another --run"
                if owner.NAME in records.names(self.path):
                    fix += f"; if it was killed on another machine, remove {self.path / owner.NAME}"
                raise Failure(LOCKED, f"another process is training {self.path}: {self.owner()}", fix)
            if says:
                says, whose = False, self.owner()
                tell(f"relaunch: {self.path} is taken by {whose}; waiting {wait:.0f} s for it", sys.stderr)
            time.sleep(0.2)
        self._began = time.monotonic() - records.seconds(self)

    def _owned(self) -> bool:
        assert self._lock
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in owner.NO_LOCKS:
                raise
            return owner.own(self.path / owner.NAME)

    def held(self) -> bool | None:
        """Whether somebody holds the run's lock; None: that cannot be known."""
        try:
            with files.open_plain(self.path / ".lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError:  # a disk without locks, or not a file
            return None

    def write_status(
        self, state: str, code: int | None = None, step: int | None = None, reason: str = ""
    ) -> None:
        """`state`: running | done | stopped | preempted | failed; `code`: the exit code, as in errors.py."""
        status = {
            "state": state,
            "code": code,
            "step": step,
            "saved": records.newest(self) or records.saved(self) or 0,
            "reason": reason,
            "start": os.environ.get("RELAUNCH_START"),  # of our launcher: which of its starts wrote this
            "pid": os.getpid(),
            "seconds": round(time.monotonic() - self._began if self._lock else records.seconds(self), 1),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        try:
            files.write_atomic(self.status, files.dump_json(status))
        except OSError as error:  # a full disk: what is reported must not depend on the report
            tell(f"relaunch: cannot write {self.status} ({error})", sys.stderr)
        if state in ("done", "stopped"):
            self.forget_stop()

    def forget_stop(self) -> None:
        """Remove a STOP that has been obeyed, or that came too late."""
        try:
            self.stop.unlink(missing_ok=True)
        except OSError as error:
            tell(
                f"relaunch: cannot remove {self.stop} ({error.strerror}): it ends the next start", sys.stderr
            )

    def cut_metrics(self, step: int, evaluated: int) -> None:
        """Drop what was logged beyond `step`, evaluations beyond `evaluated`, and what is no record."""
        if not os.path.lexists(self.metrics):
            return
        kept, bad = [], 0
        with files.open_plain(self.metrics) as f:
            for line in f:
                found = records.record(line)
                bad += line.endswith(b"\n") and not found  # else a kill has cut it
                if found and found["step"] <= (evaluated if found["split"] == "val" else step):
                    kept.append(line.rstrip(b"\n") + b"\n")
        if bad:
            tell(f"relaunch: {bad:,} lines of {self.metrics} are no records; left out", sys.stderr)
        files.write_atomic(self.metrics, b"".join(kept))


HEAD = "==== start of "  # of the line with which a start begins in a rank's log
ROOT = Path("runs")


def create(name: str | None, workload: str) -> RunDir:
    """Make a new run's folder: `name` (a name under runs/, or a path), else runs/WORKLOAD-date-time[-n]."""
    if name:
        make(path := locate(name), exist_ok=True)
        return RunDir(path)
    base = ROOT / f"{workload}-{time.strftime('%Y%m%d-%H%M%S')}"
    for n in range(1000):
        path = base if n == 0 else base.with_name(f"{base.name}-{n}")
        try:
            make(path, exist_ok=False)
            return RunDir(path)
        except FileExistsError:
            continue
    raise Failure(STORAGE, f"a thousand runs are named {base}", "give this one a name with --run")


def make(path: Path, exist_ok: bool) -> None:
    """A folder that outlives a power cut, and those above it that were not there."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=exist_ok)
    for each in new:
        with suppress(PermissionError):  # to read that folder, which nobody needs to go on
            files.sync(each.parent)


def locate(name: str) -> Path:
    """A run's folder: a bare NAME lies under runs/, anything with a slash is a path."""
    return Path(name) if "/" in name or name in (".", "..") else ROOT / name


def runs() -> list[RunDir]:
    """The runs under runs/, the one begun last at the end."""

    def begun(run: RunDir) -> float:
        try:
            return run.config.lstat().st_mtime
        except OSError:  # it was removed while we looked
            return 0.0

    return sorted((run for name in records.names(ROOT) if (run := RunDir(ROOT / name)).begun()), key=begun)


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


def folder(path: Path) -> str:
    """What a folder is: "checkpoint", or "run". Failure 65 if neither."""
    if (path / "MANIFEST.json").exists() or path.name.startswith("step-"):
        return "checkpoint"
    if (path / "config.json").exists() or (path / "checkpoints").is_dir():
        return "run"
    what = f"{path} is neither a run nor a checkpoint"
    raise Failure(DATA, what, "name a run's folder, a step-… folder or a weights file")


def without_checkpoint(run: RunDir) -> Failure:
    fix = "it saves at an epoch's end and by --save-every; a run that stopped goes on by --resume auto"
    return Failure(DATA, f"{run.path} has no checkpoint yet", fix)


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
