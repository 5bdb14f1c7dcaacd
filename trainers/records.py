"""A run as its folder tells of it, for everybody who reads runs. Never imports torch.

    records.newest(RunDir("runs/first"))    # 1200

Runs are read while they are written, of other versions, and damaged: what cannot be read is passed by, and
ends no reader. `damaged` names the files for whoever wants to say so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relaunch.trainers.rundir import RunDir

STATUS = {
    "state": str,
    "code": int,
    "step": int,
    "reason": str,
    "time": str,
    "pid": int,
    "seconds": (int, float),
}
PLAN = {"command": list, "config": str, "host": str, "data_hash": str, "precision": str, "total_steps": int}
CONFIG = {"workload": str, "data": str}


def shaped(values, kinds: dict) -> dict:
    """The fields of a JSON object, less those of another type than `kinds` says; empty for anything else."""
    if not isinstance(values, dict):
        return {}
    return {k: v for k, v in values.items() if k not in kinds or isinstance(v, kinds[k])}


def read(path: Path, kinds: dict) -> dict:
    """A small JSON object; empty if it is not there, or damaged."""
    try:
        return shaped(json.loads(path.read_bytes()), kinds)
    except (OSError, ValueError):
        return {}


def status(run: RunDir) -> dict:
    return read(run.status, STATUS)


def plan(run: RunDir) -> dict:
    return read(run.plan, PLAN)


def config(run: RunDir) -> dict:
    """config.json as it stands, for those who show it; what trains it goes through RunConfig.from_json."""
    return read(run.config, CONFIG)


def damaged(run: RunDir) -> list[str]:
    """Names of the run's small files that are there and tell nothing."""
    small = (run.config, run.plan, run.status)
    return [path.name for path in small if path.exists() and not read(path, {})]


def record(line: bytes) -> dict:
    """A line of metrics.jsonl; empty if it is none: cut short, or being written."""
    try:
        found = shaped(json.loads(line), {"step": int, "split": str})
    except ValueError:
        return {}
    return found if {"step", "split"} <= found.keys() else {}


def metrics(run: RunDir) -> list[dict]:
    """The records of metrics.jsonl in their order; lines that are none are passed by."""
    try:
        return [found for line in run.metrics.read_bytes().split(b"\n") if (found := record(line))]
    except OSError:
        return []


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(run: RunDir) -> list[Path]:
    """A run's checkpoint folders, oldest first, whole or not."""
    found = (p for p in run.checkpoints.glob("step-*") if p.name.removeprefix("step-").isdecimal())
    return sorted(found, key=step_of)


def committed(run: RunDir) -> list[Path]:
    """The checkpoints that were written to their end, oldest first; their bytes are not looked at."""
    return [p for p in checkpoints(run) if (p / "MANIFEST.json").exists()]


def newest(run: RunDir) -> int | None:
    """Step of the newest committed checkpoint."""
    found = committed(run)
    return step_of(found[-1]) if found else None


def checkpoint_bytes(run: RunDir) -> int:
    """What all checkpoints take of the disk, and what is being written of another."""
    total = 0
    for path in run.checkpoints.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # dropped while we looked
            continue
    return total


def predictions(run: RunDir) -> list[Path]:
    return sorted(run.predictions.glob("*.parquet"))


def seconds(run: RunDir) -> float:
    """How long the run has been trained, in all its starts together, up to its last word.

    A status that says no `seconds` was written before they were counted: then it is the last start's time.
    """

    def written(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0

    told = status(run).get("seconds")
    since = written(run.config) if told is None else written(run.status)
    last = max(written(run.metrics), written(run.status))
    return (told or 0.0) + max(0.0, last - since if since else 0.0)
