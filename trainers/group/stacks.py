"""Where a process is: the stacks of all its threads, in RUN/logs/stacks-rank-N.txt once its ranks hang.

    stacks.listen()                            # others may ask from now on
    stacks.keep(RunDir("runs/first"))
    stacks.write(1, "rank 1 of 2", "waits")    # of this process
    stacks.ask(someone)                        # of another one on this machine; `answer` has them soon after

Who is asked answers from a signal's handler, also while native code holds Python's lock. Who is stopped, or
waits in the kernel for a disk, cannot: then `answer` says how the kernel has it.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import signal
import sys
import sysconfig
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.talk import tell
from relaunch.trainers.rundir import RunDir

ASK = signal.SIGRTMIN + 5 if sys.platform == "linux" else None  # one that nobody else is known to use
WRITING = 2.0  # s for a disk to take the stacks: it may be what the ranks wait for
PYTHON = sysconfig.get_path("stdlib") + os.sep
GROUP, RELAUNCH = (str(Path(__file__).absolute().parents[n]) + os.sep for n in (0, 2))
STATES = {"T": "stopped", "t": "stopped by a debugger", "D": "in the kernel, as for a disk", "Z": "dead"}

_run: RunDir | None = None
_answers: int | None = None  # a file in memory, which others read under /proc


@dataclass(frozen=True)
class Someone:
    """A rank's process, as others of its machine find it."""

    host: str
    pid: int
    answers: int | None


def listen() -> None:
    global _answers
    if ASK and _answers is None:
        with suppress(OSError):  # a sandbox may refuse it: then nobody is asked
            _answers = os.memfd_create("relaunch-stacks")
            faulthandler.register(ASK, file=_answers)


def myself() -> Someone:
    return Someone(platform.node(), os.getpid(), _answers)


def keep(run: RunDir | None) -> None:
    """Whose folder it is that stacks go to; before, and with None, none are written."""
    global _run
    _run = run


def kept() -> str:
    """Where they are, as a line says it; empty: none."""
    return f" (stacks: {_run.stacks('*')})" if _run else ""


def where() -> str:
    """What the main thread does, in code of ours or of a user's own: `batch, flowers.py:12`."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame and not told(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{frame.f_code.co_name}, {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def told(file: str) -> bool:
    """Whether a line of this file says something: not Python's, torch's, or those by which ranks wait."""
    here = file.removeprefix(RELAUNCH)  # which may itself lie among the libraries
    library = "-packages" + os.sep in here or here.startswith((PYTHON, "<"))
    return not (library or file.startswith(GROUP))


def write(rank: int, who: str, does: str, answer: bytes | None = None) -> threading.Thread:
    """Append this process's stacks to the file of `rank`, or the `answer` of another one; after a line.

    In a thread, to be joined for WRITING seconds at most.
    """

    def work():
        if _run is None:
            return
        path = _run.stacks(rank)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab", buffering=0, opener=files.shyly) as f:
                when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                f.write(f"==== {who}, {when}: {does}\n".encode())
                if answer is None:
                    faulthandler.dump_traceback(f)
                else:
                    f.write(answer)
        except OSError as error:
            tell(f"relaunch: no stacks in {path} ({error.strerror or error})", sys.stderr)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def ask(someone: Someone) -> None:
    """Ask a process of this machine for its stacks, if it is one of ours still, and listens."""
    caught = int(status(someone.pid).get("SigCgt", "0"), 16)
    if ASK and someone.answers is not None and caught >> (ASK - 1) & 1:
        with suppress(OSError):
            os.kill(someone.pid, ASK)


def state(someone: Someone) -> str:
    """Why it does not answer by itself."""
    found = status(someone.pid)
    return STATES.get(found["State"][:1], "busy in native code") if found else "gone" if ASK else "silent"


def answer(someone: Someone) -> bytes:
    """Its stacks; without them, where the kernel has it."""
    place = Path("/proc", str(someone.pid))
    with suppress(OSError):
        if stacks := (place / "fd" / str(someone.answers)).read_bytes():
            return stacks
    found = [f"State: {status(someone.pid).get('State', 'no such process')}"]
    for name in ("wchan", "stack"):  # where it waits there, as far as this user may know
        with suppress(OSError):
            found.append(f"{name}: {(place / name).read_text().rstrip()}")
    return "".join(f"{line}\n" for line in found).encode()


def status(pid: int) -> dict[str, str]:
    """What /proc says of a process; empty: there is none."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}
