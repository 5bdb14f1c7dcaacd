"""The processes of a training, found below the launcher that we started; and SIGKILL for some of them.

    victims.ranks(child.pid, first=4711)    # {0: 4711, 1: 4712}

By process ids alone, and none but descendants of ours.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from relaunch.launch import processes
from relaunch.launch.drill.moments import FIRST, LAUNCHER, TREE, Moment


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
