"""A worker process's life: signals and its parent's death set a flag, and its end is one line and a code.

    sys.exit(process.main(run))    # prints `relaunch: CODE what; fix` once on each machine

Imported before torch, so that a signal during the slow imports is not lost.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from relaunch.data_prep.errors import DIED, HARDWARE, Failure, nameable
from relaunch.data_prep.talk import INSISTS, acknowledged, hold, settle, tell, tell_in_handler
from relaunch.trainers.group import faults, log, stacks

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGHUP,
)  # the last: a terminal closed
PR_SET_PDEATHSIG = 1

_asked: signal.Signals | None = None
began = 0.0  # of time.time(), this process, if it is one of `main`
_interrupted_at = 0.0
_listener = 0  # the process that called `listen`
_parent = 0  # that of a process of `main`, when it began


class Lost(Failure):
    """The group cannot go on without some of its processes. On each machine one of those left `speaks`."""

    def __init__(self, code: int, what: str, fix: str, speaks: bool):
        super().__init__(code, what, fix)
        self.speaks = speaks


@contextlib.contextmanager
def fits(fix: str):
    """What finds no memory, on a device or on the host, becomes Failure 69 of the rank that it befalls."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own class is only for devices
        text = str(error)
        if not isinstance(error, MemoryError) and not re.search(
            "out of memory|can't allocate memory|ALLOC_FAILED", text
        ):
            raise
        wanted = re.search(
            r"tried to allocate [\d.]+ \w+"
            r"(\. GPU \d+ has a total capacity of [\d.]+ \w+ of which [\d.]+ \w+ is free)?",
            text,
            re.I,
        )
        raise Lost(
            HARDWARE, f"out of memory{f' ({wanted[0]})' if wanted else ''}", fix, speaks=True
        ) from error


def _on_signal(number, frame):
    global _asked, _interrupted_at
    now = time.monotonic()
    if number == signal.SIGINT:
        if _interrupted_at and now - _interrupted_at >= INSISTS:
            os._exit(130)
        _interrupted_at = _interrupted_at or now
    if not _asked:
        _asked = signal.Signals(number)
        # to a person at a terminal, unless `relaunch` does; other signals come from launchers
        plain = "RELAUNCH_OUTCOME" not in os.environ and os.environ.get("LOCAL_RANK", "0") == "0"
        if number == signal.SIGINT and plain and os.getpid() == _listener:  # not of its loader's workers
            tell_in_handler(acknowledged(_asked, "stopping after this step"))


def asked_to_stop() -> signal.Signals | None:
    """The first stop signal that came, if any."""
    return _asked


def listen() -> None:
    """Turn stop signals and the parent's death into a request to save and leave."""
    global _listener
    _listener = os.getpid()
    for s in SIGNALS:
        if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN:  # nohup
            signal.signal(s, _on_signal)
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            _on_signal(signal.SIGTERM, None)


def orphaned() -> bool:
    """Whether who started this process has ended since."""
    return bool(_parent) and os.getppid() != _parent


def interrupted() -> int:
    """Say that Ctrl-C ended something that saves nothing; returns the code."""
    tell("relaunch: 130 interrupted", sys.stderr)
    return 128 + signal.SIGINT


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def main(run: Callable[[list[str]], tuple[int, str | None]], saves: bool = True) -> int:
    """Run an entry point that returns (code, run folder) or raises Failure; returns the process's exit code.

    Under `relaunch` the code becomes a line of the file RELAUNCH_OUTCOME and the process ends with 0, so that
    accelerate, which is between the two, adds no traceback. Beside the code goes `told`, the failure whose
    line is printed already, or `what` and `fix` of one that `relaunch` is to say. `saves`: a stop signal sets
    a flag; without it, it ends the process.
    """
    global began, _parent
    began, _parent = time.time(), os.getppid()
    grouped = "WORLD_SIZE" in os.environ  # others may be there, and wait for this process
    hold()
    faulthandler.enable()  # a crash of native code says where it was
    stacks.listen()
    if saves:
        listen()
    said: dict = {"run": None}
    try:
        faults.arm()
        faults.fault("start")
        with nameable():
            code, said["run"] = run(sys.argv[1:])
    except Lost as lost:
        leave(lost)
    except Failure as failure:
        code = failure.code
        said["told"] = {"what": failure.what, "fix": failure.fix}
        if os.environ.get("LOCAL_RANK", "0") == "0":  # on each machine: another's log may be out of sight
            tell(failure.line(), sys.stderr)
    except KeyboardInterrupt:
        code = interrupted()
    except Exception as error:
        if not grouped:
            raise
        traceback.print_exc()
        what = f"rank {rank()} (on {platform.node()}) is gone: {crashed(error)}"
        leave(Lost(DIED, what, "--resume auto goes on", speaks=False))
    finally:
        settle()
    for s in SIGNALS:  # the run is over: a late signal must not turn its end into another
        signal.signal(s, signal.SIG_IGN)
    if report({"rank": rank(), "code": code, **said}):
        code = 0  # `relaunch` knows it
    settle()  # the report may have said something
    if grouped and "told" in said:
        log.end()
        os._exit(code)  # as in `leave`
    return code


def crashed(error: Exception) -> str:
    said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return f"crashed with the lines above or in the log there ({said})"


def leave(lost: Lost) -> NoReturn:
    """End this process, from any thread: taking a broken group down in order would wait for the others."""
    said = {"rank": rank(), "code": lost.code, "run": None, "what": lost.what, "fix": lost.fix}
    if lost.speaks and "RELAUNCH_OUTCOME" not in os.environ:
        tell(lost.line(), sys.stderr)
    known = report(said)  # `relaunch` says it, and ends those that do not leave
    settle()
    log.end()
    os._exit(0 if known else lost.code)


def report(said: dict) -> bool:
    """Tell `relaunch`, if it started this process, how it ends: a line of RELAUNCH_OUTCOME."""
    outcome = os.environ.get("RELAUNCH_OUTCOME")
    if not outcome:
        return False
    line = json.dumps(said).encode() + b"\n"
    try:
        descriptor = os.open(outcome, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        written = os.write(descriptor, line)  # in one piece, whoever else writes
    except OSError as error:
        tell(f"relaunch: cannot write the outcome to {outcome} ({error})", sys.stderr)
        return False
    return written == len(line)  # it is closed as this process ends: an error of that changes nothing
