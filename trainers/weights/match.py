"""A source's weights and another set's data: which output is which class, and what was done to make them fit.

matched = match(source, config, packed, weights)
rows = score_split(runtime, scorer, matched.model)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor, nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import listed
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers import workloads
from relaunch.trainers.build import make_model
from relaunch.trainers.config import RunConfig
from relaunch.trainers.tasks.images import written
from relaunch.trainers.weights import foreign
from relaunch.trainers.weights.source import Source
from relaunch.trainers.weights.state import load_weights

WAY = " (--raw PATH reads those)"


@dataclass
class Match:
    model: nn.Module  # on the CPU; its outputs are the set's classes, in the set's order
    inputs: dict  # what was scored: task.inputs, and `classes` where they are not simply the set's
    notes: list[str]  # what was left out, taken for granted or converted


class Chosen(nn.Module):
    """Some of a model's outputs [B,classes], in another order."""

    def __init__(self, model: nn.Module, columns: list[int]):
        super().__init__()
        self.model, self.columns = model, columns

    def forward(self, *inputs):
        return self.model(*inputs)[:, self.columns]


def match(
    source: Source, config: RunConfig, packed: Packed, weights: dict[str, Tensor], said: str | None = None
) -> Match:
    """The model of `weights` for a packed set. Failure 64 where the set has classes or words that it lacks.

    `config` is config_for's; `said` is the --normalise that was given, which counts only for weights that do
    not say their own.

    Labels and predictions are numbered as in the set. Classes are matched by name where the source says them;
    those that the set lacks are no answers, nor have they a share of the probability.
    """
    task, about = workloads.load(config.workload).task, source.about
    columns, outputs, notes = None, packed.sizes.outputs, []
    if task.facts.classes:
        columns, outputs, notes = by_name(source, packed)
    sizes = dataclasses.replace(packed.sizes, outputs=outputs)
    if sizes.shape:
        sizes = dataclasses.replace(sizes, shape=tuple(task.example(config, sizes).shape[1:]))
    model = make_model(config, sizes)
    weights, changes = foreign.fit(weights, model.state_dict())
    more = foreign.outputs(weights, model.state_dict(), outputs)
    if more and sizes.names and not about:
        model = make_model(config, dataclasses.replace(sizes, outputs=more))
        columns = list(range(outputs))
        notes.append(f"it tells {more:,} classes apart, {packed.name} has {outputs:,}: the first {outputs:,}")
        outputs = more
    load_weights(model, weights, str(source.path))
    inputs = task.inputs(config, packed.sizes)
    if columns is not None and len(columns) < outputs:
        inputs |= {"classes": f"{len(columns):,} of {outputs:,}"}
    notes += changes + differences(source, packed, inputs)
    if source.config is None and packed.sizes.mean and "mean" not in inputs:  # arrays
        check_unsaid(source, packed, notes)
    if said and (source.config or source.normalise):
        asked = dataclasses.replace(config, options=dataclasses.replace(config.options, normalise=said))
        if any(task.inputs(asked, packed.sizes)[key] != inputs[key] for key in ("mean", "std")):
            notes.append(f"--normalise {said} is left out, as it says itself how it was trained")
    return Match(model if columns is None else Chosen(model, columns).eval(), inputs, notes)


def check_unsaid(source: Source, packed: Packed, notes: list[str]) -> None:
    """Of weights that do not say how arrays were normalised: numbers have no unit then, Failure 64."""
    if source.about.get("data_hash") == packed.hash:
        return
    if packed.sizes.numbers:
        what = f"{source.name} does not say by which mean and deviation its targets were scaled"
        raise Failure(USAGE, what, "score its run, or an export of ours on the set that it was trained on")
    notes.append(f"it does not say how its inputs were normalised: here by those of {packed.name}")


def begin_with(
    source: Source, config: RunConfig, packed: Packed, weights: dict[str, Tensor], model: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights as `load_weights` takes them, for a training that begins with them, and notes.

    The run's own normalisation holds; a note says where the weights had another one.
    """
    task = workloads.load(config.workload).task
    weights, changes = foreign.fit(weights, model.state_dict())
    return weights, changes + differences(source, packed, task.inputs(config, packed.sizes))


def by_name(source: Source, packed: Packed) -> tuple[list[int] | None, int, list[str]]:
    """(the output of each of the set's classes, or None where they are its own; all outputs; notes)."""
    sizes, about = packed.sizes, source.about
    same = about.get("data_hash") == packed.hash
    if sizes.kind == "text":
        return None, sizes.outputs, [] if same else check_words(source, sizes)
    if not sizes.names or same:
        return None, sizes.outputs, []
    names = about.get("classes")
    if not names:
        note = f"it does not say its classes: they are matched by number with the {sizes.outputs:,} of "
        return None, sizes.outputs, [f"{note}{packed.name}"]
    place = {name: i for i, name in enumerate(names)}
    if lacking := [name for name in sizes.names if name not in place]:
        what = f"{packed.name} has classes that {source.name} does not know: {listed(lacking)}"
        raise Failure(USAGE, what, f"score it on a set of its own classes: {listed(names)}")
    columns = [place[name] for name in sizes.names]
    if columns == list(range(len(names))):
        return None, len(names), []
    notes = []
    if len(columns) < len(names):
        notes.append(
            f"{packed.name} has {len(columns):,} of its {len(names):,} classes, matched by name: "
            f"the others ({listed(n for n in names if n not in sizes.names)}) are left out"
        )
    elif columns != sorted(columns):
        notes.append(f"the classes of {packed.name} stand in another order: matched by name")
    return columns, len(names), notes


def check_words(source: Source, sizes: Sizes) -> list[str]:
    """A note where a source does not say its vocabulary. Failure 64 where it is another than the set's."""
    known = source.about.get("vocabulary")
    if not known:
        return [
            f"it does not say its vocabulary: words are matched by their line in {sizes.data}'s vocab.txt"
        ]
    if known != sizes.vocabulary:
        what = f"{sizes.data} has another vocabulary than the one that {source.name} was trained with"
        raise Failure(USAGE, what, "score it on the set that it was trained on, or one of the same vocab.txt")
    return []


def differences(source: Source, packed: Packed, inputs: dict) -> list[str]:
    """Notes on how inputs were made in the weights' training, where that was otherwise or is unknown."""
    about, notes = source.about, [source.remark] * bool(source.remark)
    if "mean" not in inputs:
        return notes
    if resized := {key: inputs[key] for key in ("resize", "crop") if key in inputs}:
        was, now = ("x".join(map(str, shape[1:])) for shape in (packed.sizes.shape, inputs["shape"]))
        how = " and ".join(f"--eval-{key} {value}" for key, value in resized.items())
        if "images" in inputs:
            notes.append(f"scored on {now}, made of the original images by {how}")
        else:
            notes.append(
                f"scored on {now}, made of the packed {was} images by {how}, not of the originals{WAY}"
            )
    told = about.get("shape")
    if told and told != inputs["shape"]:
        was, now = ("x".join(map(str, shape[1:])) for shape in (told, inputs["shape"]))
        notes.append(f"it was trained on images of {was}, and these are {now}")
    if "mean" not in about and about.get("data_hash", packed.hash) != packed.hash:
        notes.append(f"it does not say how its images were normalised: here by those of {packed.name}")
    elif "mean" in about and any(about[key] != inputs[key] for key in ("mean", "std")):
        was, now = (written(of["mean"], of["std"]) for of in (about, inputs))
        notes.append(f"its images were normalised by {was} in its training, and are by {now} here")
    return notes
