"""Whether a step of a lab is done: what it left says so, wherever that was made.

    proofs.look(step, lab, facts)    # State("done")

A run or a comparison that another machine made counts as ours does, if it is what was asked. What says
nothing of how it was made (a diff, an export) counts with the note that the engine left at its end.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import open_packed
from relaunch.launch import command
from relaunch.launch.facts import Facts
from relaunch.launch.lab.steps import Lab, Step
from relaunch.trainers import records
from relaunch.trainers.config import RunConfig
from relaunch.trainers.resumed import differences
from relaunch.trainers.rundir import RunDir

NOTE = {"words": list, "seconds": (int, float), "cpu_seconds": (int, float), "inputs": dict, "host": str}
FREE = {"threads", "eval_batch_size", "deterministic"}  # of a run: another machine may have others


@dataclass(frozen=True)
class State:
    """done, todo, cannot (this machine) or other (something else is there); `why` is a key of words.py."""

    kind: str
    why: str = ""
    facts: dict = field(default_factory=dict)


def note_of(lab: Lab, step: Step) -> Path:
    return lab.path("logs", f"{step.name}.json")


def note(lab: Lab, step: Step) -> dict:
    """What the engine wrote at a step's end; empty for a step that another machine ran."""
    return records.read(note_of(lab, step), NOTE)


def look(step: Step, lab: Lab, steps: dict[str, Step], facts: Facts) -> State:
    """How a step stands on this machine. Reads only small files."""
    found = LOOKS.get(step.words[0], noted)(step, lab, steps, facts)
    if found.kind == "todo" and step.gpus > facts.gpus:
        return State("cannot", "gpus", {"asked": step.gpus, "here": facts.gpus})
    return found


def packed(step: Step, lab: Lab, steps: dict, facts: Facts) -> State:
    try:
        open_packed(lab.data, step.leaves.parent)
    except Failure:
        return State("todo")
    return State("done")


def trained(step: Step, lab: Lab, steps: dict, facts: Facts) -> State:
    """A run that is done counts if it is the run that was asked for."""
    run = RunDir(step.leaves)
    if not run.begun():
        return State("todo")
    asked = command.job(command.split(list(step.words[1:]))[1]).config
    try:
        there = RunConfig.from_json(records.config(run))
    except Failure as failure:
        return State("other", "unreadable", {"path": str(run.path), "what": failure.what})
    pairs = [(n, was, now) for n, was, now in differences(there, asked) if n not in FREE]
    pairs += [
        (name, getattr(there, name), getattr(asked, name))
        for name in ("epochs", "max_steps")
        if getattr(there, name) != getattr(asked, name)
    ]
    pairs += [("data", there.data, asked.data)] if Path(there.data).name != Path(asked.data).name else []
    launched = records.plan(run)
    world = (launched.get("world", 1), launched.get("device", "cpu"))
    wanted = (max(1, step.gpus), "cuda" if step.gpus else "cpu")
    done = records.status(run).get("state") == "done"
    if done and world != wanted:
        pairs.append(("device", *("{} x {}".format(*each) for each in (world, wanted))))
    if pairs:
        name, was, now = pairs[0]
        return State("other", "other", {"path": str(run.path), "name": name, "was": was, "now": now})
    return State("done" if done else "todo")


def noted(step: Step, lab: Lab, steps: dict[str, Step], facts: Facts) -> State:
    """What it left is there, and its note says: made by this command, of what is there now."""
    said = note(lab, step)
    made = os.path.exists(step.leaves) and said.get("words") == list(step.words)
    return State("done" if made and said.get("inputs") == inputs(step, steps) else "todo")


def profiled(step: Step, lab: Lab, steps: dict[str, Step], facts: Facts) -> State:
    """As noted; or made elsewhere, of the batch sizes that were asked."""
    if noted(step, lab, steps, facts).kind == "done":
        return State("done")
    asked = step.words[step.words.index("--batch-size") + 1].split(",")
    found = records.profile(step.leaves.parent)
    settings = found.get("settings", []) if found.get("data") == lab.data else []
    there = {str(each.get("batch_size")) for each in settings}
    device = {str(each.get("device")).split(":")[0] for each in settings}
    return State("done" if there >= set(asked) and device == {"cuda" if step.gpus else "cpu"} else "todo")


def compared(step: Step, lab: Lab, steps: dict[str, Step], facts: Facts) -> State:
    """As noted, and no cell waits for a GPU that is here: the comparison goes on where it stopped."""
    cells = records.comparison(step.leaves.parent).get("cells", [])
    cannot = any(cell.get("state") == "cannot" for cell in cells)
    return State("todo") if facts.gpus and cannot else noted(step, lab, steps, facts)


LOOKS = {"prep": packed, "train": trained, "profile": profiled, "compare": compared}


def inputs(step: Step, steps: dict[str, Step]) -> dict[str, str]:
    """What a step reads of others, by a hash: a run by its newest checkpoint's manifest."""
    return {name: print_of(steps[name]) for name in step.after if name != "prep"}


def print_of(step: Step) -> str:
    run = RunDir(step.leaves)
    path = records.committed(run)[-1] / "MANIFEST.json" if records.committed(run) else step.leaves
    try:
        return hashlib.sha256(files.read_small(path)).hexdigest()
    except OSError:
        return ""
