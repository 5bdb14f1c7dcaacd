"""What torch's profiler recorded of some steps, as numbers: phases, operators and their shares.

figures.read(profiler.events(), steps=10)    # {"profiled_ms": 2.9, "phases": {…}, "operators": [{…}, …], …}
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable

STEP, WAIT = "step", "wait for the device"  # our ranges that hold all that is measured
PHASES = ("input", "forward", "backward", "optimizer")  # our ranges inside a step
OUTSIDE = "outside operators"  # Python, autograd's and the optimizer's own bookkeeping


def read(events: Iterable, steps: int) -> dict:
    """Of torch's FunctionEvents of `steps` steps; all times in ms a step, memory in 10^6 bytes a step.

    `profiled_ms` is the length of the steps by the profiler's own clock. An operator's `self_ms` is host time
    without the operators that it calls, `device_ms` that of the kernels that it launched itself, `memory_mb`
    what it allocates less what it frees, with those that it calls; `share` is that of device time where there
    is a device, else that of the step. Shares sum to 1: what was spent in no
    operator is one of its own, OUTSIDE. Operators are sorted by what `share` is of.
    """
    host = [e for e in events if e.device_type.name == "CPU" and not e.is_async and e.name != "[memory]"]
    ours = [e for e in host if e.is_user_annotation]
    spans = Spans(e for e in ours if e.name in (STEP, WAIT) and not e.cpu_parent)
    phases = {name: Spans(e for e in ours if e.name == name and in_step(e)) for name in PHASES}
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(FIELDS))
    on_device = dict.fromkeys(PHASES, 0.0)
    for e in host:
        # by the time, not by the parent: on a GPU the backward pass has a thread of its own
        if e.is_user_annotation or not spans.hold(e):
            continue
        device_ms = e.self_device_time_total / 1e3
        memory = (e.cpu_memory_usage + e.device_memory_usage) / 1e6
        values = (e.self_cpu_time_total / 1e3, e.cpu_time_total / 1e3, 1, memory, device_ms)
        sums[e.name] = [a + b for a, b in zip(sums[e.name], values)]
        for phase in (name for name in PHASES if phases[name].hold(e)):
            on_device[phase] += device_ms / steps
    found = {name: dict(zip(FIELDS, (value / steps for value in values))) for name, values in sums.items()}
    inside = sum(row["self_ms"] for row in found.values())
    total = spans.length / 1e3 / steps
    outside = max(0.0, total - inside)
    found[OUTSIDE] = dict.fromkeys(FIELDS, 0.0) | {"self_ms": outside, "total_ms": outside}
    device_ms = sum(row["device_ms"] for row in found.values())
    by = "device_ms" if device_ms else "self_ms"
    whole = sum(row[by] for row in found.values())
    rows = [{"name": name, **row, "share": row[by] / whole if whole else 0.0} for name, row in found.items()]
    return {
        "profiled_ms": total,
        "phases": {name: span.length / 1e3 / steps for name, span in phases.items()},
        "device_phases": on_device if device_ms else {},
        "device_ms": device_ms,
        "operators": sorted(rows, key=lambda row: -row["share"]),
    }


FIELDS = ("self_ms", "total_ms", "calls", "memory_mb", "device_ms")


def in_step(event) -> bool:
    """Whether a range of that name is ours, and not one that a model of somebody's own has opened."""
    return event.cpu_parent is not None and event.cpu_parent.name == STEP


class Spans:
    """Stretches of time that do not overlap, in us; `length` is their sum."""

    def __init__(self, events: Iterable):
        ranges = sorted((e.time_range.start, e.time_range.end) for e in events)
        self.starts, self.ends = [start for start, _ in ranges], [end for _, end in ranges]
        self.length = sum(end - start for start, end in ranges)

    def hold(self, event) -> bool:
        """Whether the event began in one of them."""
        at = bisect.bisect_right(self.starts, event.time_range.start) - 1
        return at >= 0 and event.time_range.start < self.ends[at]
