"""Whether metrics.jsonl still holds what was logged: a checkpoint's manifest seals the rows up to it.

logged.changed(RunDir("runs/first"), 1200)    # "line 7 of metrics.jsonl is not as it was logged"
"""

from __future__ import annotations

import hashlib

from relaunch.data_prep import files
from relaunch.trainers import origin, records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.shapes import shaped


def changed(run: RunDir, newest: int | None = None) -> str:
    """Which lines are not those that were logged up to the checkpoint of step `newest`; empty: all are.

    Without `newest`, up to the last one that the status tells of. Runs of older versions have no seals.
    """
    if newest is None:
        newest = records.status(run).get("step")
    first_own = origin.of(run).get("fork", {}).get("step", 0)  # before it, checkpoints seal the parent's rows
    found = {}  # step -> (bytes, SHA-256)
    for path in records.committed(run):
        seal = shaped(records.read(path / "MANIFEST.json", {}).get("metrics"), {"bytes": int, "sha256": str})
        step = records.step_of(path)
        if {"bytes", "sha256"} <= seal.keys() and first_own <= step and (newest is None or step <= newest):
            found[step] = seal["bytes"], seal["sha256"]
    if not found:
        return ""
    step = max(found)
    size, sha256 = found[step]
    try:
        with files.open_plain(run.metrics) as f:
            content = f.read(size)
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() == sha256:
        return ""
    whole = max((b for b, sha in found.values() if hashlib.sha256(content[:b]).hexdigest() == sha), default=0)
    first, last = content[:whole].count(b"\n") + 1, content.count(b"\n")
    if len(content) < size or first > last:
        return f"{run.metrics.name} lacks rows of line {first:,} on that were logged up to step {step:,}"
    lines = f"line {first:,}" if first == last else f"lines {first:,} to {last:,}"
    return (
        f"{lines} of {run.metrics.name} {'is' if first == last else 'are'} not as logged up to step {step:,}"
    )
