"""A run as a report tells of it: its small files, read once, whatever state they are in.

run = Told.of(RunDir("runs/first"))
run.curve("val", "top1")        # [(step, value), …]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relaunch.data_prep.names import printable
from relaunch.trainers import records
from relaunch.trainers.shapes import shaped

if TYPE_CHECKING:
    from relaunch.trainers.rundir import RunDir

POSITION = ("step", "samples", "epoch", "split")  # of a record; the rest are numbers to draw


@dataclass
class Told:
    """What one run's files say. Everything may be empty."""

    run: RunDir
    name: str
    config: dict
    plan: dict
    status: dict
    metrics: list[dict]
    damaged: list[str]
    state: str
    spent: dict = field(default_factory=dict)  # records.time_spent

    @staticmethod
    def of(run: RunDir, name: str = "") -> Told:
        status = records.status(run)
        state = status.get("state", "unknown")
        if state == "running" and run.held() is False:
            state = "crashed"
        return Told(
            run,
            name or printable(run.path.name or str(run.path)),
            records.config(run),
            records.plan(run),
            status,
            records.metrics(run),
            records.damaged(run),
            state,
            records.time_spent(run),
        )

    @property
    def workload(self) -> str:
        return str(self.config.get("workload", "?"))

    @property
    def step(self) -> int:
        """The last that anything tells of."""
        steps = [self.status.get("step"), records.newest(self.run), *(r["step"] for r in self.metrics[-1:])]
        return max(step or 0 for step in steps)

    def named(self, split: str) -> str:
        """What a split of the records is called in the data: val may be test. Older runs do not tell."""
        return self.plan.get("eval_split", split) if split == "val" else split

    def curve(self, split: str, name: str, x: str = "step") -> list[tuple[float, float]]:
        """(x, value) of the records that have both, in their order."""
        found = [(r.get(x), r.get(name)) for r in self.metrics if r["split"] == split]
        return [(float(a), float(b)) for a, b in found if _finite(a) and _finite(b)]

    def names(self, split: str) -> list[str]:
        """Of the numbers that the records of a split have, in the order of their first use."""
        found = [k for r in self.metrics if r["split"] == split for k in r if k not in POSITION]
        return list(dict.fromkeys(found))

    def last(self, split: str) -> dict:
        """The last record of a split."""
        return next((r for r in reversed(self.metrics) if r["split"] == split), {})

    def best(self) -> tuple[str, float, int] | None:
        """(metric, value, step) of the evaluation that was best: by top-1, else by the loss."""
        for name, sign in (("top1", 1), ("nll", -1), ("loss", -1)):
            points = self.curve("val", name)
            if name == "top1" and any("ppl" in r for r in self.metrics):
                continue  # of a language model it is the share of next words that were guessed
            if points:
                step, value = max(points, key=lambda p: (sign * p[1], -p[0]))
                return name, value, int(step)
        return None

    def starts(self) -> list[int]:
        """Steps at which the run was gone on with, but for its beginning."""
        return sorted({start["step"] for start in records.starts(self.run)} - {0})


def _finite(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def several(runs: list[RunDir]) -> list[Told]:
    """Each run by its folder's name, or by its path where two have one name."""
    names = [run.path.name for run in runs]
    return [Told.of(run, printable(str(run.path)) if names.count(run.path.name) > 1 else "") for run in runs]


def layers(run: RunDir) -> dict:
    """The model as the run began: {"layers", "parameters", "flops", "nodes", "edges"} of summary.layers.

    Empty for runs of before it was recorded, and for what is damaged.
    """
    kinds = {"layers": list, "parameters": int, "flops": int, "nodes": list, "edges": list}
    found = records.read(run.layers, kinds)
    layer = {"name": str, "type": str, "output": list, "parameters": int, "flops": int}
    whole = kinds.keys() <= found.keys() and all(
        [layer.keys() <= shaped(x, layer).keys() for x in found["layers"]]
        + [{"name", "label"} <= shaped(x, {"name": str, "label": str}).keys() for x in found["nodes"]]
        + [isinstance(x, list) and len(x) == 2 and all(isinstance(y, str) for y in x) for x in found["edges"]]
    )
    return found if whole else {}


def shown(run: RunDir) -> dict[str, dict]:
    """What the task wrote to look at, tag -> {"step", "text"}: the last of each tag."""
    found = records.read(run.shown, {})
    texts = {tag: shaped(value, {"step": int, "text": str}) for tag, value in found.items()}
    return {tag: value for tag, value in texts.items() if "text" in value}
