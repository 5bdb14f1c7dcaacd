"""What differs in two models themselves: their tensors, and the settings they were trained with.

weights_that_differ(a, b)     # of two Sources
settings_that_differ(one, other)
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING

import numpy as np

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.compare.predictions import Predictions
from relaunch.trainers.flags import flag, shown
from relaunch.trainers.resumed import CHANGEABLE_ON_RESUME
from relaunch.trainers.weights.source import Source
from relaunch.trainers.workloads import own

if TYPE_CHECKING:
    from torch import Tensor

# what a twin may differ in: the seed, where its data lie (they are compared by hash), what changes no weight
FREE_IN_TWINS = CHANGEABLE_ON_RESUME - {"patience", "eval_every"} | {"seed", "data"}
IDENTICAL = {"identical": True, "differ": [], "only_a": [], "only_b": []}


def between(a: tuple[Source | None, Predictions], b: tuple[Source | None, Predictions]) -> dict:
    """diff.json's `weights` and `settings`; what is not known of both is not in it."""
    found, same = {}, a[1].facts["model_sha256"] == b[1].facts["model_sha256"]
    if same or a[0] and b[0]:
        found["weights"] = IDENTICAL if same else weights_that_differ(a[0], b[0])
    settings = settings_of(*a), settings_of(*b)
    if None not in settings:
        found["settings"] = settings_that_differ(*settings)
    return found


# tensors ------------------------------------------------------------------------------------------


def weights_that_differ(a: Source, b: Source) -> dict:
    """diff.json's `weights`: `differ` are the tensors of another value, each with its name and the largest
    absolute difference of an element, in the model's own order where that is known (`order`: model | name).

    Failure 65 if either cannot be read.
    """
    ours, theirs = (bare(source.weights()) for source in (a, b))
    order = own_order(a)
    names = sorted(ours, key=lambda name: (order.get(name, len(order)), name))
    largest = {name: difference(ours[name], theirs[name]) for name in names if name in theirs}
    found = {
        "order": "model" if order else "name",
        "tensors": len(names),
        "differ": [{"name": name, "largest": value} for name, value in largest.items() if value != 0],
        "only_a": [name for name in names if name not in theirs],
        "only_b": [name for name in theirs if name not in ours],
    }
    return found | {"identical": not (found["differ"] or found["only_a"] or found["only_b"])}


def bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the one prefix before all names that a wrapper adds."""
    prefix = next(iter(weights), "").partition(".")[0] + "."
    wrapped = prefix in ("module.", "_orig_mod.") and all(name.startswith(prefix) for name in weights)
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()} if wrapped else weights


def difference(one: Tensor, other: Tensor) -> float | None:
    """The largest absolute difference of an element; None for another shape, or where it is not finite."""
    if one.shape != other.shape:
        return None
    if not one.numel() or one.equal(other):
        return 0.0
    largest = float((one.double() - other.double()).abs().max())
    return largest if np.isfinite(largest) else None


def own_order(source: Source) -> dict[str, int]:
    """Where each tensor stands in the model; empty of foreign weights and of code that is not ours."""
    config = source.config
    if config is None or config.code or isinstance(config.options, types.SimpleNamespace):
        return {}
    from relaunch.trainers.build import new_model

    try:
        model = new_model(config, source.sizes)
    except Failure:  # its library is not here
        return {}
    return {name: place for place, name in enumerate(model.state_dict())}


# settings -----------------------------------------------------------------------------------------


def settings_of(source: Source | None, p: Predictions) -> dict | None:
    """Every setting by name, the workload's own among them; None where that is not known."""
    config = source and source.config
    try:
        config = config or own.config_of(p.about()["config"], None, execute=False, where=str(p.path))
    except (Failure, KeyError, TypeError):  # of a file that somebody wrote, or of another version
        return None
    return {k: v for k, v in vars(config).items() if k != "options"} | vars(config.options)


def settings_that_differ(one: dict, other: dict) -> dict[str, dict]:
    """diff.json's `settings`: name -> its value in A and in B, None where it has no such setting."""
    pairs = {name: (one.get(name), other.get(name)) for name in one | other}
    differ = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if "code" in differ:  # hashes of files, which nobody reads
        old, new = ((code or {}).get("files", {}) for code in differ.pop("code"))
        files = [name for name in old | new if old.get(name) != new.get(name)]
        differ |= {f"code of {name}": ("there", "other") for name in files}
    return {name: {"a": a, "b": b} for name, (a, b) in differ.items()}


def check_twin(name: str, a: dict | None, twin: dict | None) -> None:
    """Failure 64 if a twin's settings are not A's but for the seed."""
    for whose, settings in (("A", a), (name, twin)):
        if settings is None:
            what = f"--twin: {whose} does not say how it was trained"
            raise Failure(USAGE, what, "compare runs, or leave --twin out")
    assert a and twin
    differ = {n: v for n, v in settings_that_differ(a, twin).items() if n not in FREE_IN_TWINS}
    if differ:
        field, values = next(iter(differ.items()))
        what = f"--twin {name} is not A's recipe: {flag(field)} is {shown(values['b'])}"
        raise Failure(USAGE, f"{what}, in A {shown(values['a'])}", "train one that differs in --seed alone")
    if a.get("seed") == twin.get("seed"):
        what = f"--twin {name} has A's seed, {a.get('seed')}: it is A once more"
        raise Failure(USAGE, what, f"train one with --seed {int(a.get('seed') or 0) + 1}")
