"""What was measured of a window, with where: one of the settings of a profile.json.

written(window, plain, Path("profiles/mnist"))
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from relaunch.data_prep import VERSION
from relaunch.trainers.profiling import results
from relaunch.trainers.profiling.window import Took, Window


def written(window: Window, plain: list[Took], folder: Path) -> dict:
    """A window as a setting of profile.json, its trace written. OSError."""
    runtime, found = window.training.runtime, window.found(plain)
    alone = runtime.device.type + str(runtime.world) * (runtime.world > 1)  # without our launcher
    config = os.environ.get("RELAUNCH_CONFIG") or alone
    trace = results.trace_name(config, found["batch_size"])
    window.write_trace(folder / trace)
    return {
        "config": config,
        "device": runtime.device.type,
        "device_name": device_name(runtime.device),
        "world": runtime.world,
        "threads": runtime.threads,
        "precision": runtime.precision,
        **found,
        "trace": trace,
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as f:
            found = re.search(r"^model name\s*:\s*(.+)$", f.read(), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    return {"relaunch": VERSION, "python": platform.python_version(), "torch": torch.__version__}
