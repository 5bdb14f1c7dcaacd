"""A comparison as rows: for the terminal, for the page, and as the CSV that lab reports hand in.

tables.text(comparison)    # lines
tables.csv_text(comparison)
"""

from __future__ import annotations

import csv
import io

from relaunch.data_prep.names import table as aligned
from relaunch.trainers.bench.comparison import MEASURED, Cell, Comparison
from relaunch.trainers.bench.reading import PERCENT, number, quality, shown, times
from relaunch.trainers.bench.spread import Spread

# as such reports have them, in these words; more columns follow
LAB = ("Optimization Technique", "Training Time (seconds)", "Accuracy (%)", "Memory Usage (MB)", "Epochs")
STATES = {"cannot": "not here", "failed": "failed", "waiting": "not yet"}


def head(c: Comparison) -> list[str]:
    wait = ["data wait"] if any(cell.repeats("data_wait_share") for cell in c.cells) else []
    return ["", "time", f"{c.unit}/s", "times the baseline", metric(c) or "quality", "memory", *wait]


def metric(c: Comparison) -> str:
    """What all cells are scored by, if it is one."""
    names = {cell.metric for cell in c.cells if cell.measures}
    return names.pop() if len(names) == 1 else ""


def row(c: Comparison, cell: Cell) -> list[str]:
    """Its cells as text; of one that was not measured, its state in place of the time."""
    columns = len(head(c))
    if cell.state != MEASURED:
        return [cell.name, STATES[cell.state], *[""] * (columns - 2)]
    pair = c.faster(cell, c.baseline)
    seconds = shown(c.time(cell), "s") if c.equal or c.target else ""
    if c.target and cell.misses:
        seconds = f"not reached ({cell.misses} of {len(cell.measures)})"
    memory = cell.repeats("device_memory_mb") or cell.repeats("peak_memory_mb")
    wait = cell.repeats("data_wait_share")
    scored = quality(cell)
    return [
        (cell.name or c.workload) + " (baseline)" * (cell is c.baseline and len(c.cells) > 1),
        seconds,
        shown(cell.repeats("samples_per_s")),
        "1" if cell is c.baseline else times(pair).removesuffix(" times") if pair else "",
        scored.removeprefix(f"{cell.metric} ") if metric(c) else scored,
        f"{memory.mean:,.0f} MB" if memory else "",
        *([f"{100 * wait.mean:.0f} %" if wait else ""] if columns > 6 else []),
    ]


def text(c: Comparison) -> str:
    """For a terminal: the rows, the fastest first, then what was not measured."""
    timed = c.timed()
    cells = timed + [cell for cell in c.cells if cell not in timed]
    return "\n".join(aligned([head(c), *(row(c, cell) for cell in cells)]))


def csv_text(c: Comparison) -> str:
    """The CSV: a row a cell. Its numbers are means over the repeats, `sd` their standard deviations."""
    more = ["Runs", "Time sd", "Samples/s", "Samples/s sd", "Times faster", "Times faster sd"]
    more += ["Quality metric", "Quality", "Quality sd", "Host memory (MB)", "Device memory (MB)"]
    more += ["Data wait (%)", "Start-up (seconds)", "Samples", "State", "Reason", *c.grid]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*LAB, *more])
    for cell in c.cells:
        time = cell.repeats("seconds") if not (c.target and cell.misses) else None
        speed, scored = cell.repeats("samples_per_s"), cell.quality()
        host, device = cell.repeats("peak_memory_mb"), cell.repeats("device_memory_mb")
        wait, start = cell.repeats("data_wait_share"), cell.repeats("start_seconds")
        first = cell.measures[0] if cell.measures else None
        accuracy = scored if cell.metric in PERCENT else None
        writer.writerow(
            [
                cell.name or c.workload,
                *plain(time)[:1],
                *plain(accuracy)[:1],
                *plain(device or host)[:1],
                f"{first.epochs:g}" if first else "",
                len(cell.measures),
                *plain(time)[1:],
                *plain(speed),
                *pair(c.faster(cell, c.baseline)),
                cell.metric,
                *plain(scored),
                *plain(host)[:1],
                *plain(device)[:1],
                f"{100 * wait.mean:.2f}" if wait else "",
                *plain(start)[:1],
                first.samples if first else "",
                cell.state,
                cell.reason,
                *cell.settings.values(),
            ]
        )
    return out.getvalue()


def plain(repeats: Spread | None) -> list[str]:
    return pair((repeats.mean, repeats.sd) if repeats else None)


def pair(found: tuple[float, float | None] | None) -> list[str]:
    """Mean and spread as a program reads them; empty where there is none."""
    return ["" if value is None else f"{value:.6g}" for value in (found or (None, None))]


def progress(c: Comparison, cell: Cell) -> str:
    """The newest run of a cell in a few words."""
    measure = cell.measures[-1]
    said = [f"{number(measure.seconds)} s" if measure.seconds is not None else "not timed"]
    if measure.samples_per_s:
        said.append(f"{number(measure.samples_per_s)} {c.unit}/s")
    if measure.quality is not None:
        said.append(f"{measure.metric} {number(measure.quality)}{' %' * (measure.metric in PERCENT)}")
    return ", ".join(said)
