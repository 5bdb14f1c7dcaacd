"""Checkpoints: committed whole or not at all, hashed, without pickle, found newest valid first.

    save(run, State(model, optimizer, meta), keep=3)
    state = load(newest_valid(run))

A checkpoint is a folder `step-000001200` of model.safetensors, optimizer.safetensors, state.json and, written
last, MANIFEST.json with the size and SHA-256 of each. It is written beside its place and renamed into it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, DIVERGED, Failure
from relaunch.data_prep.names import listed
from relaunch.trainers.group.faults import fault
from relaunch.trainers.records import checkpoints, step_of
from relaunch.trainers.rundir import RunDir

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
FACTS = (
    "step",
    "samples",
    "world",
    "global_batch",
    "config_hash",
    "data_hash",
)  # of state.json, in the manifest too
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass
class State:
    """Everything a run needs to go on.

    `meta` is state.json: step, best, open sums, … (Training.meta makes it).
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    meta: dict


def save(run: RunDir, state: State, keep: int, protect: Set[int] = frozenset()) -> Path:
    """Commit `state`; then drop all but the newest `keep`, the best and the steps `protect`.

    OSError on a full disk; Failure 70 rather than commit a number that is not finite.
    """
    from safetensors.torch import save as pack

    for tensors in (state.model, state.optimizer):
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise Failure(
                    DIVERGED,
                    f"{name} is not finite after step {state.meta['step']}: not saved",
                    "lower --lr, or set --clip",
                )
    target = run.checkpoint(state.meta["step"])
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        contents = (pack(state.model), pack(state.optimizer), files.dump_json(state.meta).encode())
        written = {}
        for name, content in zip(FILES, contents):
            written[name] = {"bytes": len(content), "sha256": files.write_synced(part / name, content)}
        manifest = {"schema": SCHEMA, **{k: state.meta[k] for k in FACTS}, "files": written}
        files.write_synced(part / "MANIFEST.json", files.dump_json(manifest).encode())
        files.sync(part)
        fault("save", state.meta["step"])
        if target.exists():  # the same step again, after an evaluation that the stop had cut short
            os.rename(target, aside(target))
        os.rename(part, target)
        files.sync(run.checkpoints)
    finally:
        files.remove(part)
    files.remove(aside(target))
    prune(run, state.meta["step"], keep, protect | {(state.meta["best"] or {}).get("step", -1)})
    return target


def aside(target: Path) -> Path:
    """Where a checkpoint waits while another of the same step takes its place."""
    return target.with_name(f".{target.name}.old")


def recover(run: RunDir) -> None:
    """Clear what a killed save left: only for the process that holds the run's lock."""
    for old in run.checkpoints.glob(".step-*.old"):
        target = old.with_name(old.name[1:].removesuffix(".old"))
        if target.exists():
            files.remove(old)
        else:
            os.rename(old, target)
    for part in run.checkpoints.glob(".step-*.part"):
        files.remove(part)


def prune(run: RunDir, newest: int, keep: int, protect: Set[int]) -> None:
    """Drop old checkpoints, as step `newest` is committed. Later ones stay: a resume found them damaged."""
    for path in [p for p in checkpoints(run) if step_of(p) <= newest][:-keep]:
        if step_of(path) not in protect:
            files.remove(path)


def verify(path: Path) -> dict:
    """The manifest of a checkpoint whose every byte is as it was written. Failure 65 names what is not."""
    try:
        manifest = json.loads((path / "MANIFEST.json").read_text())
        if manifest["schema"] != SCHEMA:
            raise Failure(DATA, f"{path} has schema {manifest['schema']}, this version reads {SCHEMA}")
        for name, facts in manifest["files"].items():
            size = (path / name).stat().st_size
            if size != facts["bytes"]:
                raise Failure(DATA, f"{path / name} has {size} bytes instead of {facts['bytes']}")
            if files.sha256(path / name) != facts["sha256"]:
                raise Failure(DATA, f"{path / name} is damaged (its SHA-256 differs from the manifest's)")
        meta = json.loads((path / "state.json").read_text())
        if sorted(manifest["files"]) != sorted(FILES) or any(manifest[k] != meta[k] for k in FACTS):
            raise Failure(DATA, f"{path / 'MANIFEST.json'} is damaged (it differs from state.json)")
        return manifest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(DATA, f"{path} is not a whole checkpoint ({error})") from error


def newest_valid(run: RunDir) -> Path | None:
    """The newest checkpoint that verifies; None if there are none. Failure 65 if there are, and none does."""
    found = checkpoints(run)
    for path in reversed(found):
        try:
            verify(path)
            return path
        except Failure as failure:
            print(
                f"relaunch: {failure.what}; falling back to an older checkpoint", file=sys.stderr, flush=True
            )
    if found:
        raise Failure(
            DATA,
            f"none of the {len(found)} checkpoints in {run.checkpoints} is valid",
            "start a new --run; nothing here was changed",
        )
    return None


def load(path: Path) -> State:
    """Read a checkpoint that `verify` has passed. Failure 65 if it has gone since, as a training prunes."""
    from safetensors.torch import load_file

    try:
        return State(load_file(path / FILES[0]), load_file(path / FILES[1]), files.read_json(path / FILES[2]))
    except OSError as error:
        raise Failure(DATA, f"{path} cannot be read any more ({error})", "run it again") from error


def select(run: RunDir, selector: str | None) -> Path:
    """A run's best checkpoint, that of a step, or (None) the newest valid one; else Failure 65."""
    newest = newest_valid(run)
    if newest is None:
        raise Failure(DATA, f"{run.path} has no checkpoint yet")
    if selector is None:
        return newest
    if selector == "best":
        best = files.read_json(newest / "state.json")["best"]
        if best is None:
            raise Failure(
                DATA,
                f"{run.path} has not been evaluated yet, so it has no best checkpoint",
                "use the run's name alone",
            )
        selector = best["step"]
    path = run.checkpoint(int(selector))
    if not path.exists():
        steps = sorted(map(step_of, checkpoints(run)), key=lambda step: abs(step - int(selector)))
        fix = f"it has {listed(map(str, steps))}"  # the nearest first
        raise Failure(DATA, f"{run.path} has no checkpoint of step {selector}", fix)
    verify(path)
    return path
