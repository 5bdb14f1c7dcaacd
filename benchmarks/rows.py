"""What a benchmark measures: blocks of work, and the row that a comparison of two sides becomes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """What a block of units took."""

    units: int
    wall: float  # seconds
    cpu: float  # seconds, of all threads
    faults: int  # minor page faults
    peak_mb: float  # the largest resident size of its process until now
    loss: float | None  # the units' mean


def spread(values: list[float]) -> tuple[float, float, float]:
    """(first quartile, median, third quartile)."""
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclass(frozen=True)
class Row:
    """One comparison, as it is written to --json."""

    program: str
    what: str
    ratios: dict[str, tuple[float, float, float]]  # of each measure its spread, the first side to the second
    bound: float | None  # that the medians of all measures must keep
    least: bool  # whether the bound is the least that will do, and not the most
    before: str  # the same before the work on speed
    unit: str
    samples: dict[str, float]  # in a second of wall time, by side; empty where none are counted
    sides: dict[str, dict]  # of each: wall and CPU ms a unit, faults a unit, peak_mb, loss
    setting: dict  # date, machine, versions, threads, rounds, command

    @property
    def met(self) -> bool | None:
        """Whether the bound is kept, by each of the measures; None where there is none."""
        if self.bound is None:
            return None
        return all((m >= self.bound) if self.least else (m <= self.bound) for _, m, _ in self.ratios.values())


@dataclass(frozen=True)
class Reached:
    """Runs of one command with several seeds, as they are written to --json: each one's accuracy and time."""

    program: str
    what: str
    goal: float  # top-1 in percent, that each should reach
    bound: float | None  # CPU seconds, that the median should keep
    top1: list[float]
    cpu: list[float]  # seconds of all processes
    wall: list[float]  # seconds
    peer: dict[str, float] | None  # the CPU and wall seconds of another program to that accuracy
    setting: dict

    @property
    def met(self) -> bool:
        """Whether all reach the goal, and the median the bound if there is one."""
        fast = self.bound is None or statistics.median(self.cpu) <= self.bound
        return fast and min(self.top1) >= self.goal


def told_reached(row: Reached) -> str:
    """The runs for a terminal."""
    mean, cpu, wall = statistics.fmean(row.top1), statistics.median(row.cpu), statistics.median(row.wall)
    said = f"{row.what}: {mean:.2f} % ({min(row.top1):.2f}-{max(row.top1):.2f}, {len(row.top1)} seeds)"
    said += f" in {cpu:.1f} s of CPU, {wall:.1f} s"
    said += f"; must take {row.bound:g} s" if row.bound else ""
    if row.peer:
        said += f"; theirs {row.peer['cpu']:.0f} s of CPU: {cpu / row.peer['cpu']:.3f} of it"
    return said + ("" if row.met else ": NOT MET")


def told(row: Row) -> str:
    """The row for a terminal."""
    ratios = ", ".join(f"{name} {m:.3g} ({a:.3g}-{b:.3g})" for name, (a, m, b) in row.ratios.items())
    bound = "" if row.bound is None else f"; must reach {row.bound}: {'met' if row.met else 'NOT MET'}"
    lines = [f"{row.program} {row.what}: {ratios}{bound}"]
    for name, side in row.sides.items():
        rate = f", {row.samples[name]:,.0f} samples/s" if name in row.samples else ""
        loss = "" if side["loss"] is None else f", loss {side['loss']:.4f}"
        cost = f"{side['wall_ms']:.2f} ms a {row.unit} ({side['cpu_ms']:.2f} of CPU)"
        lines.append(
            f"  {name:8} {cost}{rate}, {side['faults']:,.0f} faults, {side['peak_mb']:,.0f} MB{loss}"
        )
    return "\n".join(lines)


def of_side(blocks: list[Block]) -> dict:
    """Medians of a unit, the peak, and the loss over the second half of the rounds."""
    late = [b.loss for b in blocks[len(blocks) // 2 :] if b.loss is not None]
    return {
        "wall_ms": statistics.median(b.wall / b.units for b in blocks) * 1e3,
        "cpu_ms": statistics.median(b.cpu / b.units for b in blocks) * 1e3,
        "faults": statistics.median(b.faults / b.units for b in blocks),
        "peak_mb": blocks[-1].peak_mb,
        "loss": statistics.fmean(late) if late and all(map(math.isfinite, late)) else None,
        "units": sum(b.units for b in blocks),
    }


def row_of(
    blocks: dict[str, list[Block]],
    figure: Callable[[Block, Block], dict[str, float]],
    samples: int,
    **rest,
) -> Row:
    """The row of two sides' blocks, by rounds; `samples` are those of a unit, `rest` its other fields."""
    found = [figure(*pair) for pair in zip(*blocks.values())]
    rates = {
        name: statistics.median(samples * block.units / block.wall for block in of)
        for name, of in blocks.items()
    }
    return Row(
        ratios={name: spread([ratios[name] for ratios in found]) for name in found[0]},
        samples=rates if samples else {},
        sides={name: of_side(of) for name, of in blocks.items()},
        **rest,
    )


def times(ours: Block, theirs: Block) -> dict[str, float]:
    """Our time as a multiple of theirs."""
    return {"CPU": ours.cpu / theirs.cpu, "wall": ours.wall / theirs.wall}


def faster(ours: Block, theirs: Block) -> dict[str, float]:
    """How many times as fast ours is."""
    return {name: 1 / ratio for name, ratio in times(ours, theirs).items()}
