"""What this process may use of the machine: its CPU set, and what a container's control groups grant.

limits.cpus()      # 4: hyper-threads that may run at a time
limits.memory()    # bytes, or None without a limit
limits.available() # bytes that are free now, or None where nobody says so
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
GROUPS = "sys/fs/cgroup"
UNLIMITED = 1 << 60  # bytes: version 1 writes "none" as almost 2^63


def cpus(root: Path = ROOT) -> int:
    """Logical cores that this process may use; a quota of 1.5 is two, of which one waits now and then."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = quota(root)
    return there if granted is None else max(1, min(there, math.ceil(granted)))


def quota(root: Path = ROOT) -> float | None:
    """CPU time that the control groups grant, in CPUs (1.5); None without a limit."""
    found = []
    for folder in _folders(root, "cpu"):
        granted, period = (_words(folder / "cpu.max") + ["100000"])[:2]  # version 2
        if granted == "":  # version 1
            granted = "".join(_words(folder / "cpu.cfs_quota_us"))
            period = "".join(_words(folder / "cpu.cfs_period_us"))
        if granted.isdigit() and period.isdigit() and int(granted) and int(period):
            found.append(int(granted) / int(period))
    return min(found, default=None)


def memory(root: Path = ROOT) -> int | None:
    """Bytes that the control groups grant; None without a limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    words = [_words(folder / name)[0] for folder in _folders(root, "memory") for name in names]
    found = [int(word) for word in words if word.isdigit()]
    return min((limit for limit in found if limit < UNLIMITED), default=None)


def available(root: Path = ROOT) -> int | None:
    """Bytes of memory that can still be taken on this machine; None where it does not say so."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return int(found[1]) * 1024 if found else None


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Of this process's groups that a controller may limit: the innermost, and all above it.

    A container often sees its own group as the top, and is told its path on the host all the same.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        for name in (controllers, controller) if controllers else ("", "unified"):
            top = root / GROUPS / name
            inner = top / path.lstrip("/")
            while inner != top:
                yield inner
                inner = inner.parent
            yield top


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split() or [""]
    except (OSError, ValueError):
        return [""]
