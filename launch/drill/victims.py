"""A start of a training on this machine: the processes below its launcher, and SIGKILL for some of them.

    victims.ranks(child.pid, first=4711)    # {0: 4711, 1: 4712}

By process ids alone, and none but descendants of ours.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from relaunch.data_prep import files
from relaunch.launch import PROGRAM, processes, supervise
from relaunch.launch.compare.run import why
from relaunch.launch.drill.moments import FIRST, LAUNCHER, TREE, Moment
from relaunch.trainers.rundir import RunDir

LEAVE = 120.0  # s that what a kill left alive has to save and leave


class Launched:
    """One start by `relaunch train`."""

    looks, tick = 0.2, 0.01  # s between looks while it starts, which read all of /proc; and while it trains

    def __init__(self, words: list[str], run: RunDir, *more: str):
        """Its output goes into a log beside the run. It is told to stop if we die."""
        processes.adopt_orphans()  # of a launcher that is killed: we see them to their end
        self.log, self.group = run.path.with_suffix(".log"), dict[int, int]()
        with files.storage(self.log, "--run"):
            output = open(self.log, "ab", opener=files.shyly)
        with output:
            command = [sys.executable, PROGRAM, "train", *words, "--run", str(run.path), *more]
            self.child = supervise.start(command, dict(os.environ), output)

    def ended(self) -> bool:
        return self.child.poll() is not None

    def trains(self, first: int | None) -> bool:
        """Whether rank 0, which says of itself that it is process `first`, is of this start."""
        self.group = ranks(self.child.pid, first)
        return bool(self.group)

    def strike(self, moment: Moment) -> str:
        return strike(self.child, moment, self.group)

    def gone(self, hurry: Callable[[], bool]) -> None:
        """Wait until the launcher has left, and what was killed with it; others have time to save."""
        deadline = time.monotonic() + LEAVE
        while not self.ended():
            if hurry() or time.monotonic() > deadline:
                self.child.kill()
            time.sleep(self.tick)
        processes.sweep(LEAVE, hurry)

    def stop(self, number: int) -> None:
        self.child.send_signal(number)

    def outcome(self) -> tuple[int, str]:
        """(exit code, what it said of a failure) of one that has ended."""
        code = self.child.returncode
        said = re.sub(r"^\d+ ", "", why(self.log)) or f"code {code}"
        return (code if code >= 0 else 128 - code), f"{said} (see {self.log})"


def ranks(launcher: int, first: int | None) -> dict[int, int]:
    """By rank, the processes that train together with rank 0, `first`; empty if that is not below ours."""
    if first is None or first not in processes.children(launcher, deep=True):
        return {}
    beside = processes.children(_parent(first))
    return {0: first} | {rank: pid for pid in beside if (rank := _rank(pid)) is not None}


def _parent(pid: int) -> int:
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def _rank(pid: int) -> int | None:
    """As accelerate told it; None for what is no rank of several."""
    told = dict(word.partition("=")[::2] for word in _proc(pid, "environ").split("\0"))
    return int(told["RANK"]) if told.get("RANK", "").isdecimal() else None


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:  # it has just ended
        return ""


def strike(child: subprocess.Popen, moment: Moment, group: dict[int, int]) -> str:
    """SIGKILL for what the moment is for; returns what that was."""
    if moment.victim == LAUNCHER:
        what, hit = "the launcher", [child.pid]
    elif moment.victim == TREE:
        hit = [child.pid, *processes.children(child.pid, deep=True)]
        what = f"all {len(hit)} processes"
    else:
        others = sorted(group)[1:]
        rank = 0 if moment.victim == FIRST or not others else others[int(moment.share * len(others))]
        what, hit = f"rank {rank}", [group[rank]]
    for pid in hit:
        processes.tell(pid, signal.SIGKILL)
    return what if len(hit) > 1 else f"{what} (process {hit[0]})"
