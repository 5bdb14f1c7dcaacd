"""A comparison: cells of a grid, the runs that measured each, and the JSON that is kept of it.

Comparison(...).to_json()    # compare.json, schema 1; `records.comparison(folder)` reads it
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relaunch.trainers.bench import spread
from relaunch.trainers.bench.measure import Measure, Target
from relaunch.trainers.bench.spread import Spread

SCHEMA = 1
MEASURED, CANNOT, FAILED, WAITING = "measured", "cannot", "failed", "waiting"
NUMBERS = (
    "seconds",
    "samples_per_s",
    "peak_memory_mb",
    "device_memory_mb",
    "data_wait_share",
    "start_seconds",
)


@dataclass
class Cell:
    """One combination of settings. `reason`: why it was not measured, or not to its end."""

    name: str  # batch_size=4 precision=no
    settings: dict[str, str]
    state: str = WAITING
    reason: str = ""
    measures: list[Measure] = field(default_factory=list)

    def repeats(self, name: str) -> Spread | None:
        """A number of Measure over the repeats; None where one of them lacks it."""
        return spread.of(getattr(measure, name) for measure in self.measures)

    def quality(self) -> Spread | None:
        """One value per seed: what is trained twice with one seed is the same training twice."""
        by_seed = {measure.seed: measure.quality for measure in self.measures}
        return spread.of(by_seed.values())

    def causes(self) -> dict[str, float]:
        """Where the time of its runs went, seconds on average; empty where one has no record of it."""
        if not self.measures or not all(measure.causes for measure in self.measures):
            return {}
        runs = [measure.causes for measure in self.measures]
        return {cause: sum(run[cause] for run in runs) / len(runs) for cause in runs[0]}

    @property
    def metric(self) -> str:
        return self.measures[0].metric if self.measures else ""

    @property
    def misses(self) -> int:
        """Runs that came to their end without the target."""
        return sum(not measure.reached for measure in self.measures)

    def to_json(self) -> dict:
        quality = self.quality()
        found: dict = {"name": self.name, "settings": self.settings, "state": self.state}
        found |= {"reason": self.reason, "runs": [measure.run for measure in self.measures]}
        for name in NUMBERS:
            repeats = self.repeats(name)
            found[name] = repeats.to_json() if repeats else None
        found["quality"] = {"metric": self.metric, **quality.to_json()} if quality else None
        found["causes"] = self.causes()
        found["samples"] = [measure.samples for measure in self.measures]
        found["epochs"] = [measure.epochs for measure in self.measures]
        found["facts"] = self.measures[0].facts if self.measures else {}
        return found


@dataclass
class Comparison:
    """Cells in the order of the grid; the first is the baseline."""

    workload: str
    rule: str  # how long each was trained: "2,000 samples each"
    grid: dict[str, list[str]]
    cells: list[Cell]
    repeats: int
    unit: str = "samples"  # what is counted a second
    target: Target | None = None
    equal: bool = True  # all were trained on equally many samples, so that seconds compare
    notes: list[str] = field(default_factory=list)  # what a reader must know of how it was measured
    command: str = ""  # that makes it, and goes on with it

    @property
    def baseline(self) -> Cell:
        return self.cells[0]

    def time(self, cell: Cell) -> Spread | None:
        """What is compared: seconds to the target or for the same samples; else seconds per sample."""
        if cell.state != MEASURED or self.target and cell.misses:
            return None
        if self.equal or self.target:
            return cell.repeats("seconds")
        speed = cell.repeats("samples_per_s")
        return Spread(tuple(1 / value for value in speed.values)) if speed else None

    def timed(self) -> list[Cell]:
        """The cells that can be compared by time, the fastest first."""
        times = [(self.time(cell), cell) for cell in self.cells]
        return [cell for _, cell in sorted(((t.mean, c) for t, c in times if t), key=lambda pair: pair[0])]

    def faster(self, cell: Cell, than: Cell) -> tuple[float, float | None] | None:
        """How many times faster one cell is than another, and the spread of that."""
        mine, other = self.time(cell), self.time(than)
        return spread.ratio(other, mine) if mine and other else None

    def to_json(self) -> dict:
        from relaunch.trainers.bench.reading import reading

        timed = self.timed()
        cells = []
        for cell in self.cells:
            times = self.faster(cell, self.baseline)
            cells.append(cell.to_json() | {"faster": times and {"mean": times[0], "sd": times[1]}})
        return {
            "schema": SCHEMA,
            "workload": self.workload,
            "rule": self.rule,
            "repeats": self.repeats,
            "unit": self.unit,
            "target": self.target and {"metric": self.target.metric, "value": self.target.value},
            "grid": self.grid,
            "baseline": self.baseline.name,
            "best": timed[0].name if timed else None,
            "cells": cells,
            "reading": reading(self),
            "notes": self.notes,
            "command": self.command,
        }
