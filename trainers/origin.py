"""Where a new run's first state comes from: another one's weights (--init), or its whole state (--fork).

    origin.fork("first@20", job)    # the config of `--fork first@20 --lr 0.01`, and the record of the fork

The record stands in the run's plan.json and state.json, under "init" or "fork": what was typed (`source`),
the folder or file that it meant (`path`), and the SHA-256 of its weights. What has a checkpoint of its own
goes on from that, and nothing is read again.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.trainers import records, workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import flag
from relaunch.trainers.job import Job
from relaunch.trainers.resumed import differences
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.schedule import patience_spent, total_steps

if TYPE_CHECKING:
    from torch import Tensor, nn

    from relaunch.data_prep.packed import Packed
    from relaunch.data_prep.sizes import Sizes
    from relaunch.trainers.weights.checkpoint import State
    from relaunch.trainers.weights.source import Source

KINDS = ("init", "fork")


def of(run: RunDir) -> dict[str, dict]:
    """The record of a run, {"init": …} or {"fork": …}; empty if it began with nobody's state."""
    newest = [path / "state.json" for path in records.committed(run)[-1:]]
    for path in (run.plan, *newest):
        if found := recorded(records.read(path, dict.fromkeys(KINDS, dict))):
            return found
    return {}


def recorded(values: dict) -> dict[str, dict]:
    return {kind: values[kind] for kind in KINDS if values.get(kind)}


def said(origin: dict[str, dict]) -> str:
    """`forked from runs/first@20`, `begun with the weights of best.pth`; empty for a run of neither kind."""
    if fork := origin.get("fork"):
        return f"forked from {fork['run']}@{fork['step']}"
    return f"begun with the weights of {origin['init']['source']}" if "init" in origin else ""


def notes(origin: dict[str, dict], fresh: bool) -> list[str]:
    """What a run says when it begins, of its weights and of --init-head."""
    init = origin.get("init", {})
    said = [f"{init['source']}: {note}" for note in init.get("notes", ())]
    if not fresh:
        return said
    names = ", ".join(origin["init"]["fresh"])
    left = f"left as initialised: {names}" if names else "left nothing out: the last layer has the same shape"
    return [*said, f"--init-head fresh {left}"]


def opened(path: str, origin: dict[str, dict], kind: str) -> Source:
    """What a run begins with; Failure 65 where it is not any more what the run's record says."""
    from relaunch.trainers.weights.source import open_source

    source = open_source(path)
    if kind in origin and source.sha256 != origin[kind]["sha256"]:
        what = f"{source.path} is not what this run was begun with (its SHA-256 differs)"
        raise Failure(DATA, what, "put it back, or start a new --run")
    return source


# the weights ------------------------------------------------------------------------------------------------


def read_weights(
    name: str, origin: dict[str, dict], config: RunConfig, packed: Packed, model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, dict]]:
    """The weights that `name` names, and their record, whose `notes` say what was done to make them fit."""
    from relaunch.trainers.weights.match import begin_with

    source = opened(name, origin, "init")
    record = {"source": name, "path": str(source.path.resolve()), "sha256": source.sha256}
    weights, notes = begin_with(source, config, packed, source.weights(), model)
    return weights, {"init": record | ({"notes": notes} if notes else {})} | origin


def fill(model: nn.Module, weights: dict[str, Tensor], where: str, fresh: bool) -> list[str]:
    """Give the model these weights. `fresh`: a last layer of another shape stays as it is; returns its names.

    Failure 65 where they do not fit, in that layer alone or in others, too.
    """
    from relaunch.trainers.weights.state import load_weights

    own = model.state_dict()
    unlike = [name for name, tensor in own.items() if name in weights and weights[name].shape != tensor.shape]
    layers = [name for name, layer in model.named_modules() if list(layer.parameters(recurse=False))]
    head = layers[-1] if layers else ""
    others = [name for name in unlike if name.rpartition(".")[0] != head]
    if fresh and others:
        what = (
            f"{where} has other shapes in {', '.join(others)}, and only the last layer ({head}) may be fresh"
        )
        raise Failure(DATA, what, "give the --arch that it was trained with")
    if unlike and not others and not fresh:
        there, here = (len(tensors[unlike[0]]) for tensors in (weights, own))
        what = f"the last layer of {where} ({head}) has {there:,} outputs, and this model's has {here:,}"
        raise Failure(
            DATA, what, "add --init-head fresh to begin it anew, or give the --data it was trained on"
        )
    load_weights(model, weights | {name: own[name] for name in unlike if fresh}, where)
    return unlike


# the whole state --------------------------------------------------------------------------------------------


def fork(name: str, job: Job) -> tuple[RunConfig, dict[str, dict]]:
    """The config of a fork of `name`: what was typed, over its parent's; and the record of it.

    Failure 64 for settings that the parent's state does not permit, 65 for a parent that is not there.
    """
    source = opened(name, {}, "fork")
    if source.config is None or source.step is None:
        what = f"--fork {name} is a file of weights, without optimizer and position"
        raise Failure(USAGE, what, f"begin with its weights: --init {name}")
    if source.config.code != job.config.code:
        what = f"the files of {job.config.workload} are not those that {name} was trained with"
        raise Failure(USAGE, what, f"put them back, or begin with its weights: --init {name}")
    config = merged(source.config, job)
    # the launcher has no task of somebody's own: there the worker looks
    if "sizes" in source.meta and hasattr(workloads.load(config.workload).task, "samples_done"):
        check_fork(source.config, config, source.sizes, source.meta, name)
    record = {
        "source": name,
        "path": str(source.path.resolve()),
        "run": str(source.run.path if source.run else source.path),
        "step": source.step,
        "sha256": source.sha256,
    }
    return config, {"fork": record}


# a state cannot be gone on with under another value of these: why
STATE_HAS = {
    "arch": "its weights are another model's",
    "optimizer": "its optimizer's state is another rule's",
    "freeze": "its optimizer has no state of what was frozen",
    "elastic_exact": "the open sums of its log are those of other shards",
}


def merged(old: RunConfig, job: Job) -> RunConfig:
    """A fork's config: its parent's, with what was typed. Failure 64 for what no state can go on under."""
    new, options = job.config, {f.name for f in dataclasses.fields(old.options)}
    if new.workload != old.workload:
        what = f"--fork {job.launch.fork} trains {old.workload}, not {new.workload}"
        raise Failure(USAGE, what, "choose another one")
    typed = {name: getattr(new.options if name in options else new, name) for name in job.given}
    for name, why in STATE_HAS.items():
        was = getattr(old, name)
        if typed.get(name, was) != was:
            what = f"{flag(name)} {typed[name]} cannot go on from {job.launch.fork}, which has {was}: {why}"
            raise Failure(USAGE, what, "leave it out, or begin another run")
    return replaced(old, typed)


def replaced(config: RunConfig, values: dict) -> RunConfig:
    """The config with other values of its fields and its options'."""
    options = {name: value for name, value in values.items() if hasattr(config.options, name)}
    common = {name: value for name, value in values.items() if name not in options}
    return dataclasses.replace(config, **common, options=dataclasses.replace(config.options, **options))


def check_fork(old: RunConfig, new: RunConfig, sizes: Sizes, meta: dict[str, Any], name: str) -> None:
    """Failure 64 if training cannot go on with the config `new` from the state of one with `old`."""
    step, task = meta["step"], workloads.load(old.workload).task

    def position(config: RunConfig) -> tuple[int, int]:
        return task.steps_per_epoch(config, sizes), task.samples_done(config, sizes, step)

    here, instead = position(old), f"leave it out, or begin a run with its weights: --init {name}"
    moves = position(new) != here
    for field, was, now in differences(old, new):
        alone = None
        with suppress(Failure):  # it may need another typed setting beside it
            alone = position(replaced(old, {field: now}))
        if moves and alone != here:
            what = f"{flag(field)} {now} would shift the position in the data of {name}, which counts {was}"
            raise Failure(USAGE, what, instead)
        if field == "seed" and step % here[0]:
            what = f"--seed {now} cannot end an epoch whose order is that of --seed {was}"
            raise Failure(
                USAGE, what, f"fork at an epoch's end (a multiple of {here[0]} steps), or {instead}"
            )
    if step >= total_steps(new, here[0]):
        short = new.max_steps and new.max_steps <= step
        limit = f"{new.max_steps} steps" if short else f"{new.epochs} epochs"
        what = f"{name} is at step {step}, where a training of {limit} has ended"
        raise Failure(USAGE, what, f"add a larger {'--max-steps' if short else '--epochs'}")
    if patience_spent(new, meta.get("since_best", 0)):
        what = f"{name} is at the end of --patience {new.patience}"
        raise Failure(USAGE, what, "add a larger --patience")


def read_fork(
    path: str, origin: dict[str, dict], config: RunConfig, model: nn.Module, packed: Packed, given: bool
) -> State:
    """The state that a fork begins with. `given`: whether --data was typed.

    Failure 64 or 65 where data, model or position do not fit it.
    """
    from relaunch.trainers.weights import checkpoint
    from relaunch.trainers.weights.state import load_weights, weights_of

    state = checkpoint.load(opened(path, origin, "fork").path)
    parent = said(origin).removeprefix("forked from ")
    if state.meta["data_hash"] != packed.hash:
        what = f"{packed.path} is not the data that {parent} was trained on"
        raise Failure(
            USAGE if given else DATA, what, "give the same --data, or begin with its weights: --init"
        )
    old = RunConfig.from_json(state.meta["config"], f"{path}/state.json")
    check_fork(old, config, packed.sizes, state.meta, parent)
    own = [(n, now) for n, _, now in differences(old, config) if hasattr(config.options, n)]
    changed = [f"{flag(name)} {now}" for name, now in own]
    try:
        load_weights(model, state.model, parent)
        fits = weights_of(model).keys() == state.model.keys()  # tied in one, and not in the other
    except Failure:
        if not changed:
            raise
        fits = False
    if not fits:
        what = f"{parent} holds another model than {' '.join(changed)} makes"
        raise Failure(USAGE, what, "leave out what changes the model's layers")
    if config.threads:
        state.meta["threads"] = config.threads
    return state


def keep_best(run: RunDir, origin: dict[str, dict], best: dict | None) -> list[str]:
    """Copy the best checkpoint of a fork's parent, so that RUN@best is there; says so if that cannot be.

    After the fork has a checkpoint of its own: a resume takes the newest, and this one is its parent's.
    """
    from relaunch.trainers.weights import checkpoint

    fork = origin["fork"]
    target = run.checkpoint(best["step"] if best else fork["step"])
    if best is None or best["step"] == fork["step"] or target.exists():
        return []
    part = target.with_name(f".{target.name}.fork.part")
    try:
        checkpoint.verify(theirs := Path(fork["path"]).with_name(target.name))
        shutil.copytree(theirs, part)
        part.rename(target)
        files.sync(run.checkpoints)
    except (Failure, OSError) as error:
        files.remove(part)
        return [f"no copy of the best so far, step {best['step']} of {fork['run']}, is to be had ({error})"]
    return []
