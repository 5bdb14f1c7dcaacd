"""Processes as the kernel shows them: children, who listens to a signal, orphans. Linux's; elsewhere, less.

processes.children(os.getpid())    # [4711]
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """In a new child: ask the kernel for SIGTERM when `parent` dies, which it may have done already."""
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def adopt_orphans() -> None:
    """From now on the kernel gives us the descendants whose parents die, instead of giving them to init."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def children(root: int, deep: bool = False) -> list[int]:
    """Living children of `root`; with `deep`, all its descendants."""
    if not LINUX:
        return []
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    state, parent = f.read().rpartition(")")[2].split()[:2]
            except OSError:  # it ended while we looked
                continue
            if state != "Z":
                parents.setdefault(int(parent), []).append(int(entry))
    found = list(parents.get(root, []))
    if deep:
        for pid in found:  # grows while we walk
            found += parents.get(pid, [])
    return found


def listens(pid: int, number: int) -> bool:
    """Whether the process has a handler for this signal."""
    try:
        with open(f"/proc/{pid}/status") as f:
            caught = next(line for line in f if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return not LINUX
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def lives(pid: int) -> bool:
    """Whether there is a process of this number, of whatever user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def tell(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def sweep(patience: float, hurry: Callable[[], bool]) -> None:
    """See the last of our descendants off: they have `patience` seconds to save, unless there is `hurry`."""
    deadline = time.monotonic() + patience
    while left := children(os.getpid(), deep=True):
        if hurry() or time.monotonic() > deadline:
            for pid in left:
                tell(pid, signal.SIGKILL)
        time.sleep(0.05)
        reap()
    reap()


def reap() -> None:
    """Take note of adopted orphans that ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
