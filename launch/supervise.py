"""A started group of processes, first to last: signals go in, one exit code comes out, nothing stays behind.

    with Asked() as asked:
        supervise.run(command, environment, direct=True, asked=asked)    # End(code=75, run="runs/first")

Signals are passed to the training processes themselves, never to accelerate in between, which would answer
with a traceback, a code of its own and, after a while, SIGKILL. The training processes save at their next
step, write their outcome into the file named by RELAUNCH_OUTCOME, which is memory of ours and needs no disk,
and leave together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from relaunch.data_prep import files
from relaunch.data_prep.errors import DIED, PREEMPTED, STOPPED, USAGE, Failure
from relaunch.data_prep.talk import INSISTS, acknowledged, tell
from relaunch.launch import processes
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.shapes import shaped

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
DEAF = 60.0  # s for a process to learn to listen before it is told to stop all the same: imports take seconds
LEAVING = 3.0  # s for a group that lost a process to be gone: of the rest, some may wait for it for ever
LAST_WORDS = 0.5  # s for what a lost group said to reach its logs
SAVING = 120.0  # s for processes whose accelerate died to save and leave
TICK = 0.05  # s between looks at the group
SAID = {"rank": int, "code": int, "run": (str, type(None)), "what": str, "fix": str, "told": dict}


@dataclass(frozen=True)
class End:
    """How a group ended: the code to leave with, the run if it got so far; `what` that nobody has said."""

    code: int
    run: str | None = None
    what: str = ""
    fix: str = ""
    told: Failure | None = None  # what a worker has said itself
    crashed: bool = False  # as nobody planned
    started: bool = True  # False: accelerate ended before it had started a training process


class Asked:
    """The stop signals that came. A context, within which they are noted and do nothing else.

    Without `patience` the first insists already: there is nothing to save.
    """

    def __init__(self, patience: bool = True):
        self.patience = patience
        self.first: signal.Signals | None = None
        self.insisted = False
        self._interrupted: float | None = None
        self._acknowledged = False

    def _note(self, number, frame):
        now = time.monotonic()
        self.insisted |= not self.patience
        if number == signal.SIGINT:
            self.insisted |= self._interrupted is not None and now - self._interrupted >= INSISTS
            self._interrupted = self._interrupted or now
        self.first = self.first or signal.Signals(number)

    def acknowledge(self, then: str) -> None:
        """Say at once, and once, what becomes of the stop that came: `then`."""
        if self.first and self.patience and not self._acknowledged:
            self._acknowledged = True
            fresh = "\n" if sys.stderr.isatty() else ""  # the cursor is behind ^C, or behind a bar
            tell(fresh + acknowledged(self.first, then), sys.stderr)

    def __enter__(self):
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup
        self._before = {
            s: signal.signal(s, self._note) for s in STOPPING if s != signal.SIGHUP or not ignored
        }
        return self

    def __exit__(self, *error):
        for s, handler in self._before.items():
            signal.signal(s, handler)


class Outcome:
    """What the training processes say at their end, a line of JSON each. A context.

    In memory of ours that they find under /proc; elsewhere in a temporary file, and without a place for one
    `path` is None: then their exit codes and status.json tell.
    """

    def __enter__(self):
        self.path, self._unlink, self._file = None, None, None
        try:
            self._file = os.memfd_create("relaunch-outcome")
            self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        except (AttributeError, OSError):
            with contextlib.suppress(OSError):
                self._file, self.path = tempfile.mkstemp(prefix="relaunch-")
                self._unlink = self.path
        return self

    def __exit__(self, *error):
        with contextlib.suppress(OSError):
            if self._file is not None:
                os.close(self._file)
        with contextlib.suppress(OSError):
            if self._unlink:
                os.unlink(self._unlink)

    def read(self) -> str:
        if self._file is None:
            return ""
        for _ in range(2):
            with contextlib.suppress(OSError):
                return os.pread(self._file, 1 << 20, 0).decode(errors="replace")
        return ""  # as if nobody had said anything: their codes and the status tell


def run(
    command,
    environment: dict[str, str],
    direct: bool,
    asked: Asked,
    output: IO | None = None,
    run: RunDir | None = None,
) -> End:
    """Start `command` and stay with it to its end. `direct`: it is the training process, not accelerate.

    What it writes goes where ours does, or into the file `output`. Should its outcome not reach us, the
    status of the `run` that it trains tells.
    """
    begun = environment.get("RELAUNCH_START") or secrets.token_hex(8)  # what this very start has written
    with Outcome() as outcome:
        told = {"RELAUNCH_OUTCOME": outcome.path} if outcome.path else {}
        processes.adopt_orphans()
        told |= {"RELAUNCH_START": begun, "RELAUNCH_BEGAN": f"{time.time():.3f}"}
        child = start(command, environment | told, output)
        broken, started = watch(child, asked, outcome, direct, lambda: stopping(run, begun))
        processes.sweep(LAST_WORDS if broken else SAVING, hurry=lambda: asked.insisted)
        noted = records.status(run) if run else {}
        noted = noted if noted.get("start") == begun else {}
        end = judge(child.returncode, outcome.read(), asked.first, asked.insisted, noted)
        return dataclasses.replace(end, started=started)


def start(
    command, environment: dict[str, str], output: IO | None = None, answer: IO | None = None
) -> subprocess.Popen:
    """In its own process group: a terminal's Ctrl-C comes through us, once. It is told to stop if we die.

    What it says goes into the file `output`, and what it prints into `answer` where there is one.
    """
    parent = os.getpid()

    def in_child():
        for s in (signal.SIGUSR1, signal.SIGUSR2):  # a scheduler signals all: accelerate would die of it
            signal.signal(s, signal.SIG_IGN)
        processes.die_with_parent(parent)

    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=answer or output,
        stderr=output,
        process_group=0,
        preexec_fn=in_child,
    )


def stopping(run: RunDir | None, begun: str) -> str:
    """What a stop that comes now leads to, for the start `begun`."""
    if run is None:
        return "stopping"
    noted = records.status(run)
    steps = noted.get("start") == begun and noted.get("state") == "running"
    return f"stopping {'after this step' if steps else 'before the next step: it is still starting'}"


def watch(
    child: subprocess.Popen, asked: Asked, outcome: Outcome, direct: bool, then: Callable[[], str]
) -> tuple[bool, bool]:
    """Wait for the end, and pass a stop on to each training process as soon as it listens.

    `then` says what a stop leads to. Returns whether a process was lost, and whether there had been any.
    """
    told, since, broken, started, looked = set(), None, None, direct, time.monotonic()
    while True:
        try:
            child.wait(timeout=TICK)
            return broken is not None, started
        except subprocess.TimeoutExpired:
            pass
        if not started and time.monotonic() - looked > 1:  # reads all of /proc
            started, looked = bool(processes.children(child.pid)), time.monotonic()
        if broken is None and "what" in read(outcome.read()):
            broken = time.monotonic()
        if asked.insisted or broken is not None and time.monotonic() - broken > LEAVING:
            child.kill()
        elif asked.first and not outcome.read():
            asked.acknowledge(then())
            since = since or time.monotonic()
            workers = [child.pid] if direct else processes.children(child.pid)
            if not workers and child.pid not in told:  # accelerate that has started nobody yet
                told.add(child.pid)
                processes.tell(child.pid, signal.SIGTERM)
            for pid in set(workers) - told:
                # Python by itself catches SIGINT; who has a handler for SIGUSR2 has one for all of them
                if all(processes.listens(pid, s) for s in (asked.first, signal.SIGUSR2)):
                    told.add(pid)
                    processes.tell(pid, asked.first)  # the run records what it was
                elif time.monotonic() - since > DEAF:
                    told.add(pid)
                    processes.tell(pid, signal.SIGTERM)


def read(outcome: str) -> dict:
    """How the group ended, of what its processes wrote (trainers/group/process.py); empty before they did.

    Rank 0 speaks for all, but where it only noticed that another is gone: then the first that knows why, or
    the first that noticed.
    """
    said = [found for line in outcome.splitlines() if (found := shaped(parse(line), SAID))]
    said = [found for found in said if "code" in found]
    of_rank_0 = [found for found in said if found.get("rank", 0) == 0 and "what" not in found]
    causes = [found for found in said if "what" in found and found["code"] != DIED]
    return (of_rank_0[-1:] or causes[:1] or said[:1] or [{}])[0]


def parse(line: str):
    try:
        return files.parse_json(line)
    except ValueError:
        return None


def judge(
    status: int, outcome: str, asked: signal.Signals | None, insisted: bool, noted: dict | None = None
) -> End:
    """What an ended group means. `status` as subprocess gives it, `outcome` what the workers wrote. Pure.

    `noted`: the run's status.json, if this start has written it.
    """
    said, noted = read(outcome), noted or {}
    if not said and noted.get("state", "running") != "running" and noted.get("code") not in (None, DIED):
        why = {} if noted["code"] in (0, PREEMPTED, STOPPED) else {"what": noted.get("reason", "")}
        said = {"code": noted["code"], **why}
    # a worker that crashed makes accelerate signal the others: what they take for a stop is a crash
    taken = said.get("code") == PREEMPTED and status > 0 and status != PREEMPTED and not asked
    if said and not taken:
        return End(
            said["code"],
            said.get("run"),
            said.get("what", ""),
            said.get("fix", ""),
            Failure(said["code"], **said["told"]) if "told" in said else None,
            crashed=said["code"] == DIED,
        )
    if not outcome and (USAGE <= status <= STOPPED or status == 0 and noted.get("state") != "running"):
        return End(status)  # its own code, as it could not write it down, and has said why
    if insisted:
        return End(
            128 + signal.SIGINT,
            what="left at once, as asked twice: what came after the last checkpoint is lost",
        )
    if asked and status in (-signal.SIGTERM, -asked):
        return End(
            PREEMPTED, what=f"stopped by {asked.name} before the first step: there was nothing to save"
        )
    if status < 0:
        name = signal.Signals(-status).name
        memory = " (often: no memory left)" if -status == signal.SIGKILL else ""
        return End(128 - status, what=f"killed by {name}{memory}", crashed=True)
    return End(1, what=f"crashed (exit code {status}); the lines above say why", crashed=True)
