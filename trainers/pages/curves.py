"""What trainings logged, as charts: a chart for each number, the runs in it laid over each other.

blocks = curves([Told.of(RunDir("runs/first"))])
"""

from __future__ import annotations

from relaunch.trainers.pages import charts, numbers, theme
from relaunch.trainers.pages.blocks import Chart, Note
from relaunch.trainers.pages.told import Told

TOGETHER = 4  # runs whose training and evaluation share a chart; of more, each has its own
POINTS = 1000  # of a curve: more than a chart has pixels. What is left out is said
MARKS = 6  # upright lines where runs were resumed; of more, nobody could read the words
SECOND = ("lr", "samples_per_s", "data_wait_share", "peak_memory_mb", "skipped")  # not of how good it is
LEFT_OUT = ("data_wait_share", "peak_memory_mb", "skipped")  # told elsewhere


def curves(runs: list[Told]) -> list[Chart | Note]:
    """Charts of everything that two records or more tell of, the losses first."""
    told = [run for run in runs if run.metrics]
    if not told:
        return [Note("Nothing was logged yet.")]
    every = dict.fromkeys(name for run in told for split in ("train", "val") for name in run.names(split))
    names = [n for n in every if not n.startswith("epoch_") and n not in LEFT_OUT]
    names.sort(key=lambda name: name in SECOND)
    x = axis(told)
    found: list[Chart | Note] = []
    for name in names:
        if len(told) <= TOGETHER:
            found += chart(told, ("train", "val"), name, x)
        else:
            found += [c for split in ("val", "train") for c in chart(told, (split,), name, x)]
    if marked := [run for run in told if run.starts()]:
        found += [Note(f"Upright lines: where {listed(marked)} went on after an interruption.")]
    return found or [Note("Too little was logged for a curve: one record.")]


def listed(runs: list[Told]) -> str:
    return ", ".join(run.name for run in runs)


def axis(runs: list[Told]) -> str:
    """Steps, where a step is as much in each run; else epochs."""
    return "step" if len({run.plan.get("steps_per_epoch") for run in runs}) == 1 else "epoch"


def chart(runs: list[Told], splits: tuple[str, ...], name: str, x: str) -> list[Chart]:
    """One number of these splits, of all runs; none where no curve has two points."""
    splits = tuple(split for split in splits if any(run.curve(split, name, x) for run in runs))
    series: dict[str, list[tuple[float, float]]] = {}
    looks, kept = {}, 1
    for i, run in enumerate(runs):
        for split in splits:
            points = run.curve(split, name, x)
            if not points:
                continue
            every = -(-len(points) // POINTS)
            kept = max(kept, every)
            word = run.named(split)
            label = word if len(runs) == 1 else f"{run.name} {word}" if len(splits) > 1 else run.name
            series[label] = points[:-1:every] + points[-1:]
            looks[label] = (splits.index(split), 0) if len(runs) == 1 else (i, _dash(i, split, splits))
    if not any(len(points) > 1 for points in series.values()):
        return []
    title, unit = numbers.NAMES.get(name, (name, ""))
    caption = title[:1].upper() + title[1:]
    if len(splits) == 1:
        caption += f" ({', '.join(dict.fromkeys(run.named(splits[0]) for run in runs))})"
    if kept > 1:
        caption += f", every {kept}th point"
    word = "resumed" if len(runs) == 1 else ""
    marks = [(at, word or run.name) for run in runs for at in places(run, x)]
    last = max(point[0] for points in series.values() for point in points)
    marks = [mark for mark in dict.fromkeys(marks) if mark[0] < last]
    marks = marks if len(marks) <= MARKS else []
    return [charts.lines(series, x, title + (f", {unit}" if unit else ""), caption, marks, looks=looks)]


def _dash(number: int, split: str, splits: tuple[str, ...]) -> int:
    return int(split == "train") if len(splits) > 1 else number // theme.SERIES


def places(run: Told, x: str) -> list[float]:
    """Where the run was gone on with, on that axis."""
    epoch = run.plan.get("steps_per_epoch") or 1
    return [step / epoch if x == "epoch" else float(step) for step in run.starts()]
