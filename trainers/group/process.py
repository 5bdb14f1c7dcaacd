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
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import HARDWARE, Failure
from relaunch.data_prep.names import shown
from relaunch.trainers.group import faults

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGHUP,
)  # the last: a terminal closed
PR_SET_PDEATHSIG = 1

_asked: signal.Signals | None = None
_interrupted_at = 0.0


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
        if (
            _interrupted_at and now - _interrupted_at >= 2
        ):  # a person who insists; launchers repeat theirs at once
            os._exit(130)
        _interrupted_at = _interrupted_at or now
    _asked = _asked or signal.Signals(number)


def asked_to_stop() -> signal.Signals | None:
    """The first stop signal that came, if any."""
    return _asked


def listen() -> None:
    """Turn stop signals and the parent's death into a request to save and leave."""
    for s in SIGNALS:
        if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN:  # nohup
            signal.signal(s, _on_signal)
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the kernel was asked
            _on_signal(signal.SIGTERM, None)


def tell(text: str, to=None, write: Callable = print) -> None:
    """Print a line (to stdout): a log on a full disk, or a reader that has gone, must not end a training."""
    with contextlib.suppress(OSError):
        write(shown(text), file=to or sys.stdout)
        (to or sys.stdout).flush()


def interrupted() -> int:
    """Say that Ctrl-C ended something that saves nothing; returns the code."""
    tell("relaunch: 130 interrupted", sys.stderr)
    return 128 + signal.SIGINT


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def main(run: Callable[[list[str]], tuple[int, str | None]], saves: bool = True) -> int:
    """Run an entry point that returns (code, run folder) or raises Failure; returns the process's exit code.

    Under `relaunch` the code goes into the file RELAUNCH_OUTCOME and the process ends with 0, so that
    accelerate, which is between the two, adds no traceback. Beside the code goes `told`, the failure whose
    line is printed already, or `what` and `fix` of one that `relaunch` is to say. `saves`: a stop signal sets
    a flag; without it, it ends the process.
    """
    faulthandler.enable()  # a crash of native code says where it was
    if saves:
        listen()
    outcome = os.environ.get("RELAUNCH_OUTCOME")
    said: dict = {"run": None}
    try:
        faults.arm()
        faults.fault("start")
        code, said["run"] = run(sys.argv[1:])
    except Lost as lost:
        code = lost.code
        said |= {"what": lost.what, "fix": lost.fix}  # `relaunch` says it, and ends those that do not leave
        if lost.speaks and not outcome:
            tell(lost.line(), sys.stderr)
    except Failure as failure:
        code = failure.code
        said["told"] = {"what": failure.what, "fix": failure.fix}
        if os.environ.get("LOCAL_RANK", "0") == "0":  # on each machine: another's log may be out of sight
            tell(failure.line(), sys.stderr)
    except KeyboardInterrupt:
        code = interrupted()
    for s in SIGNALS:  # the run is over: a late signal must not turn its end into another
        signal.signal(s, signal.SIG_IGN)
    if outcome and (rank() == 0 and "what" not in said or not os.path.getsize(outcome)):
        files.write_atomic(Path(outcome), json.dumps({"code": code, **said}))  # whole, whoever else writes
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the interpreter would try again at its end, and make it the exit code
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if "what" in said:
        os._exit(0 if outcome else code)  # taking a broken group down in order would wait for the missing
    return 0 if outcome else code
