"""The machine that a run is trained on, as its plan.json and reports tell of it. Torch-free.

here()    # {"cpu": "AMD EPYC 7763", "cpus": 2, "memory_gb": 16.8, "os": "Debian GNU/Linux 12, Linux 6.1.0"}
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def here() -> dict:
    """What is known of it: names of processor and system, logical processors, memory in 10^9 bytes."""
    found = {"cpu": cpu(), "cpus": os.cpu_count(), "memory_gb": memory(), "os": system()}
    return {name: value for name, value in found.items() if value}


def cpu() -> str:
    told = re.search(r"^model name\s*: (.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return told[1].strip() if told else platform.processor() or platform.machine()


def without_bf16() -> bool:
    """Whether the processor lists its instructions, and none that multiplies bfloat16."""
    told = _read("/proc/cpuinfo")
    return bool(told) and not re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", told)


def memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError):
        return None


def system() -> str:
    told = re.search(r'^PRETTY_NAME="?(.*?)"?$', _read("/etc/os-release"), re.MULTILINE)
    kernel = f"{platform.system()} {platform.release()}"
    return f"{told[1]}, {kernel}" if told else kernel


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
