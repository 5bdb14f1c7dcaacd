"""Numbers as people read them, with their units.

metric("top1", 99.1234)     # 99.12 %
duration(3725)              # 1 h 02 min
"""

from __future__ import annotations

import math

# of metrics.jsonl and predictions: name -> (what it is called, its unit)
NAMES = {
    "loss": ("loss", ""),
    "top1": ("top-1 accuracy", "%"),
    "top5": ("top-5 accuracy", "%"),
    "nll": ("loss, nats a word", ""),
    "ppl": ("perplexity", ""),
    "mae": ("mean absolute error", ""),
    "r2": ("R²", ""),
    "lr": ("learning rate", ""),
    "samples_per_s": ("samples/s", ""),
    "data_wait_share": ("share of time spent waiting for data", ""),
    "peak_memory_mb": ("peak memory, MB", ""),
}


def metric(name: str, value) -> str:
    """A value of metrics.jsonl; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    unit = NAMES.get(name, ("", ""))[1]
    if unit == "%":
        return f"{value:.2f} %"
    if name == "data_wait_share":
        return f"{100 * value:.1f} %"
    if name in ("samples_per_s", "peak_memory_mb"):
        return f"{value:,.0f}"
    return f"{value:.4f}" if name in ("loss", "nll", "mae", "r2") else f"{value:,.5g}"


def percent(part: float, whole: float, digits: int = 1) -> str:
    return f"{100 * part / whole:.{digits}f} %" if whole else "–"


def size(count: float) -> str:
    """Bytes: `1.35 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def many(count: float) -> str:
    """Parameters and operations: `1,199,882`, `11.7 M`, `3.6 G`."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e7)):
        if count >= factor:
            return f"{count / (1e6 if unit == 'M' else factor):.3g} {unit}"
    return f"{count:,.0f}"
