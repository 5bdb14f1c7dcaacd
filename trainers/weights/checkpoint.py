"""Checkpoints: committed whole or not at all, hashed, without pickle, found newest valid first.

    save(run, State(model, optimizer, meta), keep=3)    # a training's saves: see trainers/saving.py
    state = load(newest_valid(run))

A checkpoint is a folder `step-000001200` of model.safetensors, optimizer.safetensors, state.json and, written
last, MANIFEST.json with the size and SHA-256 of each. It is written beside its place and renamed into it.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, DIVERGED, Failure
from relaunch.data_prep.names import listed
from relaunch.data_prep.talk import tell
from relaunch.trainers import aside, origin, records
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import flag
from relaunch.trainers.group.faults import fault
from relaunch.trainers.records import NAME, checkpoints, step_of
from relaunch.trainers.resumed import differences
from relaunch.trainers.rundir import RunDir, without_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from relaunch.trainers.weights.kept import Kept

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


def save(
    run: RunDir, state: State, keep: int, protect: Set[int] = frozenset(), logged: dict | None = None
) -> Path:
    """Commit `state`, as `commit` does what is copied already."""
    from relaunch.trainers.weights.kept import Kept

    parts = [Kept(state.model), Kept(state.optimizer)]
    for kept, tensors in zip(parts, (state.model, state.optimizer)):
        kept.copy(tensors)
    return commit(run, parts, state.meta, keep, protect, logged)


def commit(
    run: RunDir, parts: Sequence[Kept], meta: dict, keep: int, protect: Set[int], logged: dict | None
) -> Path:
    """Commit the state of `parts` (model, optimizer) and `meta`; from any thread.

    Then drop all but the newest `keep`, the best and the steps `protect`.
    `logged`: size and SHA-256 of the metrics so far. Equal states log other times, so it is in the manifest.
    OSError on a full disk; Failure 70 rather than commit a number that is not finite.
    """
    for kept in parts:
        kept.wait()
        if name := kept.not_finite():
            what = f"{name} is not finite after step {meta['step']}: not saved"
            raise Failure(DIVERGED, what, "lower --lr, or set --clip")
    target = run.checkpoint(meta["step"])
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    first = not run.checkpoints.is_dir()
    part.mkdir(parents=True)
    try:
        if first:  # the folder's own name, too, is to outlive a power cut
            files.sync(run.path)
        contents = [*(kept.content for kept in parts), memoryview(files.dump_json(meta).encode())]
        written = {}
        for name, content in zip(FILES, contents):
            written[name] = {"bytes": len(content), "sha256": files.write_synced(part / name, content)}
        manifest = {"schema": SCHEMA, **{k: meta[k] for k in FACTS}, "files": written}
        manifest |= {"metrics": logged} if logged else {}
        manifest["sha256"] = itself(manifest)
        files.write_synced(part / "MANIFEST.json", files.dump_json(manifest).encode())
        files.sync(part)
        fault("save", meta["step"])
        # the same step again comes after an evaluation that a stop had cut short; one always has its name
        if not target.exists():
            os.rename(part, target)
        elif not files.exchange(part, target):
            os.rename(target, waiting(target))
            os.rename(part, target)
        files.sync(run.checkpoints)
    finally:
        files.remove(part)
    files.remove(waiting(target))
    prune(run, meta["step"], keep, protect | {(meta["best"] or {}).get("step", -1)})
    return target


def waiting(target: Path) -> Path:
    """Where a checkpoint waits while another of the same step takes its place, on disks that cannot swap."""
    return target.with_name(f".{target.name}.old")


def recover(run: RunDir) -> None:
    """Put back what a killed save left aside: only for the process that holds the run's lock."""
    for name in records.names(run.checkpoints):
        if name.startswith(".step-") and name.endswith(".old"):
            target = run.checkpoints / name[1:].removesuffix(".old")
            if not target.exists():
                os.rename(run.checkpoints / name, target)


def leftovers(run: RunDir) -> list[Path]:
    """What killed saves left, or one that is being made will have renamed."""
    names = [name for name in records.names(run.checkpoints) if name.startswith(".step-")]
    return [run.checkpoints / name for name in names if name.endswith((".old", ".part", ".gone"))]


def sweep(run: RunDir) -> None:
    """Clear them, after `recover` and once the checkpoint to go on from is found."""
    for path in leftovers(run):
        files.remove(path)


def surplus(run: RunDir, newest: int, keep: int, protect: Set[int]) -> list[Path]:
    """The checkpoints that `prune` drops, as step `newest` is committed: all before the newest `keep`.

    Those of `protect` stay, and later ones, which a resume found damaged; and what a restore went back to, as
    long as what came after it is kept aside.
    """
    protect = protect | aside.bases(run)
    old = [path for path in checkpoints(run) if step_of(path) <= newest][:-keep]
    return [path for path in old if step_of(path) not in protect]


def prune(run: RunDir, newest: int, keep: int, protect: Set[int]) -> None:
    for path in surplus(run, newest, keep, protect):
        gone = path.with_name(f".{path.name}.gone")
        try:
            os.rename(path, gone)  # a kill leaves no half of it by its name
        except OSError as error:  # the new one is committed all the same
            tell(f"relaunch: cannot drop {path} ({error.strerror})", sys.stderr)
        files.remove(gone)


def verify(path: Path) -> dict:
    """The manifest of a checkpoint whose every byte is as it was written. Failure 65 names what is not."""
    try:
        manifest = files.parse_json(files.read_small(path / "MANIFEST.json"))
        if manifest["schema"] != SCHEMA:
            raise Failure(DATA, f"{path} has schema {manifest['schema']}, this version reads {SCHEMA}")
        if manifest.get("sha256", whole := itself(manifest)) != whole:  # one of an older version says none
            raise Failure(DATA, f"{path / 'MANIFEST.json'} is damaged (its own SHA-256 differs)")
        if odd := sorted(set(manifest) - {"schema", *FACTS, "files", "metrics", "sha256"}):
            raise Failure(DATA, f"{path / 'MANIFEST.json'} is damaged (it says {listed(odd)})")
        if sorted(manifest["files"]) != sorted(FILES):
            raise Failure(DATA, f"{path / 'MANIFEST.json'} is damaged (it lists other files)")
        for name, facts in manifest["files"].items():
            size = (path / name).stat().st_size
            if size != facts["bytes"]:
                raise Failure(DATA, f"{path / name} has {size} bytes instead of {facts['bytes']}")
            if files.sha256(path / name) != facts["sha256"]:
                raise Failure(DATA, f"{path / name} is damaged (its SHA-256 differs from the manifest's)")
        meta = files.parse_json(files.read_small(path / "state.json"))
        if any(manifest[k] != meta[k] for k in FACTS):
            raise Failure(DATA, f"{path / 'MANIFEST.json'} is damaged (it differs from state.json)")
        # a copy elsewhere may be called anything; among a run's, the name is the place in their order
        if NAME.fullmatch(path.name) and step_of(path) != manifest["step"]:
            raise Failure(
                DATA, f"{path} holds step {manifest['step']}: it was renamed, or copied over another"
            )
        return manifest
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(DATA, f"{path} is not a whole checkpoint ({reason(error)})") from error


def itself(manifest: dict) -> str:
    """The SHA-256 of a manifest without its own."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(files.dump_json(content).encode()).hexdigest()


def reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def newest_valid(run: RunDir) -> Path | None:
    """The newest checkpoint that verifies; None if there was none ever. Failure 65 if none can be read.

    A training may commit and prune while we look: what has gone since is passed by, and what came is seen.
    """
    tried: set[Path] = set()
    told = records.saved(run) or 0
    while left := [path for path in checkpoints(run) if path not in tried]:
        path = left[-1]
        tried.add(path)
        try:
            verify(path)
        except Failure as failure:
            if os.path.lexists(path):
                tell(f"relaunch: {failure.what}; falling back to an older checkpoint", sys.stderr)
            continue
        if told > step_of(path) and run.checkpoint(told) not in tried:
            gone = f"the checkpoint of step {told:,}, of which {run.status} tells, is not there"
            tell(f"relaunch: {gone}; falling back to step {step_of(path):,}", sys.stderr)
        return path
    if tried:
        raise Failure(
            DATA,
            f"none of the {len(tried)} checkpoint{'s' * (len(tried) > 1)} in {run.checkpoints} is valid",
            "put a whole one back, or start a new --run; nothing here was changed",
        )
    if signs := records.signs(run):
        raise Failure(
            DATA,
            f"{run.path} had checkpoints, and none is there ({'; '.join(signs)})",
            "mount or copy back what held them, or start a new --run; nothing here was changed",
        )
    return None


def load(path: Path) -> State:
    """Read a checkpoint that `verify` has passed. Failure 65 if it has gone since, as a training prunes."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return State(load_file(path / FILES[0]), load_file(path / FILES[1]), files.read_json(path / FILES[2]))
    except (OSError, SafetensorError) as error:
        raise Failure(DATA, f"{path} cannot be read any more ({error})", "run it again") from error


def refuse_anothers(run: RunDir, path: Path) -> None:
    """Failure 65 for a checkpoint of other settings than the run's config.json has, if that can be read.

    The best one that a fork began with is its parent's, and may have other settings.
    """
    if step_of(path) < origin.of(run).get("fork", {}).get("step", 0):
        return
    try:
        config = RunConfig.from_json(files.read_json(run.config))
        saved = RunConfig.from_json(files.read_json(path / "state.json")["config"])
    except Failure:
        return
    for name, then, now in differences(saved, config)[:1]:
        what = f"{run.config} says {flag(name)} {now}, and {path} was trained with {then}"
        raise Failure(DATA, what, "put back what was changed, or the run's own checkpoints")


def select(run: RunDir, selector: str | None) -> Path:
    """A run's best checkpoint, that of a step, or (None) the newest valid one; else Failure 65."""
    newest = newest_valid(run)
    if newest is None:
        raise without_checkpoint(run)
    refuse_anothers(run, newest)
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
    refuse_anothers(run, path)
    return path
