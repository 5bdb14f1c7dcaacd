"""A run as its folder tells of it, for everybody who reads runs. Never imports torch.

    records.newest(RunDir("runs/first"))    # 1200

Runs are read while they are written, of other versions, and damaged: what cannot be read is passed by, and
ends no reader. `damaged` names the files for whoever wants to say so.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.trainers import goodput
from relaunch.trainers.shapes import (
    COMPARISON,
    CONFIG,
    OPERATOR,
    PLAN,
    PROFILE,
    SETTING,
    STATUS,
    TIME,
    needed_numbers,
    shaped,
)

if TYPE_CHECKING:
    from relaunch.trainers.rundir import RunDir


def read(path: Path, kinds: dict) -> dict:
    """A small JSON object; empty if it is not there, or damaged."""
    try:
        return shaped(files.parse_json(files.read_small(path)), kinds)
    except (OSError, ValueError):
        return {}


def status(run: RunDir) -> dict:
    return read(run.status, STATUS)


def plan(run: RunDir) -> dict:
    return read(run.plan, PLAN)


def config(run: RunDir) -> dict:
    """config.json as it stands, for those who show it; what trains it goes through RunConfig.from_json."""
    return read(run.config, CONFIG)


def profile(folder: Path) -> dict:
    """The profile.json of a folder, with those of its settings that are whole; empty if there is none."""
    found = read(folder / "profile.json", PROFILE)
    if found.get("schema") != 1 or not PROFILE.keys() <= found.keys():
        return {}

    def whole(rows, kinds: dict) -> list[dict]:
        return [row for r in rows if kinds.keys() <= (row := shaped(r, kinds)).keys()]

    settings = [s | {"operators": whole(s["operators"], OPERATOR)} for s in whole(found["settings"], SETTING)]
    return found | {"settings": settings}


def starts(run: RunDir) -> list[dict]:
    """The starts of a run, each with the `step` that it went on from; empty if none were recorded."""
    found = plan(run).get("starts")
    found = [shaped(each, {"step": int}) for each in found] if isinstance(found, list) else []
    return [each for each in found if "step" in each]


def damaged(run: RunDir) -> list[str]:
    """The run's small files that are there and tell nothing, and metrics of which lines are no records."""
    small = (run.config, run.plan, run.status, run.time)
    found = [path.name for path in small if os.path.lexists(path) and not read(path, {})]
    if os.path.lexists(run.metrics):
        try:
            with files.open_plain(
                run.metrics
            ) as f:  # its last line may be in the making, or cut off by a kill
                bad = sum(line.endswith(b"\n") and not record(line) for line in f)
            found += [f"{bad:,} line{'s' * (bad > 1)} of {run.metrics.name}"] if bad else []
        except OSError:
            found.append(run.metrics.name)
    return found


COORDINATES = ("step", "samples", "epoch", "split")  # of a record; everything else was measured
UNITS = {"samples_per_s": " samples/s", "peak_memory_mb": " MB"}


def shown(name: str, value: float) -> str:
    """A number of a record, for people: `loss 0.1234`, `top1 56.1 %`, `955 samples/s`."""
    if name == "data_wait_share":
        return f"data wait {100 * value:.0f} %"
    if name in UNITS:
        return f"{value:,.0f}{UNITS[name]}"
    digits = f"{value:.4f}" if name.endswith(("loss", "nll")) else f"{value:.4g}"
    return f"{name} {digits}" + (" %" if "top" in name else "")


def record(line: bytes) -> dict:
    """A line of metrics.jsonl; empty if it is none: cut short, or being written."""
    try:
        found = shaped(files.parse_json(line), {"step": int, "split": str})
    except ValueError:
        return {}
    return found if {"step", "split"} <= found.keys() else {}


def metrics(run: RunDir) -> list[dict]:
    """The records of metrics.jsonl in their order; lines that are none are passed by."""
    try:
        with files.open_plain(run.metrics) as f:
            return [found for line in f if (found := record(line))]
    except OSError:
        return []


def comparison(folder: Path) -> dict:
    """compare.json of a folder that `relaunch compare` wrote, with the cells that can be read; empty if none.

    Of a later schema nothing is told: what it would mean is not known.
    """
    found = read(Path(folder) / "compare.json", COMPARISON)
    if COMPARISON.keys() - found.keys() or found["schema"] != 1:
        return {}
    kinds = {"name": str, "settings": dict, "state": str, "reason": str, "runs": list}
    cells = [cell for each in found["cells"] if (cell := shaped(each, kinds)) and kinds.keys() <= cell.keys()]
    return found | {"cells": cells}


NAME, LEFT = re.compile(r"step-[0-9]{1,15}"), re.compile(r"\.?step-|aside-")


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def names(folder: Path) -> list[str]:
    """Of what lies in a folder, sorted; none if it cannot be read, whatever the reason."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def within(folder: Path) -> list[Path]:
    """The checkpoint folders in a folder, oldest first, whole or not."""
    return sorted((folder / name for name in names(folder) if NAME.fullmatch(name)), key=step_of)


def checkpoints(run: RunDir) -> list[Path]:
    return within(run.checkpoints)


def committed(run: RunDir) -> list[Path]:
    """The checkpoints that were written to their end, oldest first; their bytes are not looked at."""
    return [p for p in checkpoints(run) if os.path.exists(p / "MANIFEST.json")]


def newest(run: RunDir) -> int | None:
    """Step of the newest committed checkpoint."""
    found = committed(run)
    return step_of(found[-1]) if found else None


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # dropped while we looked
            continue
    return total


def predictions(run: RunDir) -> list[Path]:
    return [run.predictions / name for name in names(run.predictions) if name.endswith(".parquet")]


def saved(run: RunDir) -> int | None:
    """Step of the newest checkpoint that the run's status tells of, whether it is still there or not."""
    told = status(run)
    if "saved" in told:
        return told["saved"] or None
    # an older version's. One that failed may have come further than its last checkpoint
    came = told.get("step") if told.get("state") in ("running", "done", "preempted", "stopped") else 0
    return came or None


def signs(run: RunDir) -> list[str]:
    """What says that the run had a checkpoint, other than one that can be read."""
    found = []
    if step := saved(run):
        found.append(f"status.json tells of step {step:,}")
    if os.path.lexists(run.checkpoints):
        try:
            left = [n for n in os.listdir(run.checkpoints) if LEFT.match(n) and not n.endswith(".part")]
            found += [f"{run.checkpoints.name}/ holds {left[0]}"] if left else []
        except OSError as error:
            found.append(f"{run.checkpoints.name} cannot be read: {error.strerror}")
    every = config(run).get("save_every"), plan(run).get("steps_per_epoch")  # the first may be a time
    # a status that tells of none saved may be that of a disk on which none fitted, up to its step
    none = told.get("step", 0) if (told := status(run)).get("saved") == 0 else 0
    due = sorted({none // n * n + n * k for n in every if isinstance(n, int) and n for k in (1, 2)})[:2]
    last = max((r["step"] for r in metrics(run)), default=0)
    # one is written beside the steps that follow, and ends before the next begins
    if due and last > due[1]:
        found.append(f"metrics.jsonl reaches step {last:,}; checkpoints were due at {due[0]:,}, {due[1]:,}")
    if scored := predictions(run):
        found.append(f"there is predictions/{scored[-1].name}")
    return found


def seconds(run: RunDir) -> float:
    """How long the run has been trained, in all its starts together, up to its last word.

    A status that says no `seconds` was written before they were counted: then it is the last start's time.
    """

    told = status(run).get("seconds")
    since = written(run.config) if told is None else written(run.status)
    return (told or 0.0) + max(0.0, last_word(run) - since if since else 0.0)


def written(path: Path) -> float:
    """When a file was last written, as time.time() gives it; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def last_word(run: RunDir) -> float:
    """When the run last wrote of itself, as time.time() gives it."""
    return max(written(run.metrics), written(run.status))


# where the time went ----------------------------------------------------------------------------------------

# of two runs with the same, only the number of processes makes the speed
AS_FAST = (
    *("workload", "data", "arch", "batch_size", "grad_accum_steps", "optimizer", "clip", "freeze"),
    *("options", "code", "deterministic", "tf32", "elastic_exact", "compile", "check_every"),
)
ON_THE_SAME = ("device", "device_name", "precision", "threads", "data_hash")  # of plan.json


def times(run: RunDir) -> dict:
    """The run's time record, which trainers/spent.py writes; empty if there is none, or it is damaged."""
    found = read(run.time, TIME)
    if not TIME.keys() <= found.keys():
        return {}
    seconds = [found["causes"], *found["saves"].values()]
    ranks = {"steps": 0.0, "waited": 0.0}
    for values, needed in [(s, goodput.CAUSES) for s in seconds] + [(r, ranks) for r in found["ranks"]]:
        if not needed_numbers(values, needed):
            return {}
    return found if all(step.isdecimal() for step in found["saves"]) else {}


def time_spent(run: RunDir) -> dict:
    """Where the run's time went, up to its last save or its end; empty for runs without a record.

    {"wall": s, "causes": {cause: s}, "goodput": share, "samples_per_s", "peak_memory_mb", "bound", "advice",
    "starts", "between": s, "step", "world", …}: `goodput.judged` makes it. The causes add up to `wall`.
    """
    found = times(run)
    if not found:
        return {}
    return goodput.judged(found, config(run), plan(run), metrics(run), single(run))


def single(run: RunDir) -> dict | None:
    """Of the runs beside this one, the longest of one process with the same settings on the same hardware.

    {"run": its name, "samples_per_s"}; None if there is none, or this one has one process itself.
    """
    mine, ours = config(run), plan(run)
    if ours.get("world", 1) < 2:
        return None
    best, longest = None, 0.0
    for name in names(run.path.parent):
        other = type(run)(run.path.parent / name)
        theirs, record = plan(other), times(other) if plan(other).get("world") == 1 else {}
        if not record or any(config(other).get(n) != mine.get(n) for n in AS_FAST):
            continue
        if any(theirs.get(n) != ours.get(n) for n in ON_THE_SAME):
            continue
        trained = sum(record["causes"][cause] for cause in goodput.IN_STEPS)
        if trained > longest:
            samples = record["samples"] - record["from_samples"]
            best, longest = {"run": name, "samples_per_s": samples / trained}, trained
    return best
