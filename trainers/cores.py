"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from relaunch.data_prep import limits


def physical_cores(root: Path = limits.ROOT) -> int:
    """Cores that this process may use, hyper-threads counted once, and no more than a container grants."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as f:
                siblings.add(f.read())
        except OSError:
            siblings.add(str(cpu))
    granted = limits.quota(root)
    return len(siblings) if granted is None else max(1, min(len(siblings), int(granted)))
