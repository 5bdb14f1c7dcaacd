"""NumPy arrays, an .npz or a folder of .npy: x_train, y_train and x_val, y_val (or test), as Keras has them.

    relaunch prep diabetes --source diabetes.npz
    relaunch prep iris --source iris.npz --val-fraction 0.2       (holds inputs and labels alone)

Whole numbers and words for labels are classes, floats are numbers to predict. Nothing is unpickled.
"""

from __future__ import annotations

import io
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from relaunch.data_prep import npy
from relaunch.data_prep.archive import Source
from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.names import printable, some
from relaunch.data_prep.splits import refuse_unknown, split_of

if TYPE_CHECKING:
    from relaunch.data_prep.writer import Writer

TITLE = "NumPy arrays"
NEEDS = "x_train, y_train and x_val, y_val (or x_test, y_test) as .npy, or inputs and labels alone"
ROLES = {
    "inputs": ("x", "inputs", "input", "features", "data", "images"),
    "labels": ("y", "labels", "label", "targets", "target"),
}
WHOLE_NUMBERS = "store labels as floats to predict numbers"


def role_of(name: str) -> tuple[str, str] | None:
    """(split, `inputs` or `labels`) of x_train.npy, labels.npy, val/inputs.npy …; alone they are train."""
    path = PurePosixPath(name)
    words = re.split(r"[_.-]", path.stem.lower())
    roles = [role for role, known in ROLES.items() for word in words if word in known]
    splits = [split for word in words if (split := split_of(word))]
    if path.suffix != ".npy" or len(roles) != 1 or len(roles) + len(splits) != len(words) or len(splits) > 1:
        return None
    return (splits or [split_of(path.parent.name) or "train"])[0], roles[0]


def find(source: Source) -> dict | None:
    """File name -> (split, role), if train has both roles."""
    roles = {name: role for name in source.sizes if (role := role_of(name))}
    return roles if {("train", "inputs"), ("train", "labels")} <= set(roles.values()) else None


def differs(source: Source) -> str | None:
    """What its arrays are called, where that is not how arrays are found."""
    names = [name.removesuffix(".npy") for name in source.sizes if name.endswith(".npy")]
    return f"its arrays are called {some(names)}, not x_train, y_train, …" if names else None


def pack(source: Source, roles: dict, writer: Writer) -> None:
    """Inputs float32 [N,…] and labels int64 [N] or float32 [N] or [N,K] per split.

    Failure 65 for arrays that are no numbers, not finite, or do not belong together.
    """
    found: dict[tuple[str, str], tuple[str, np.ndarray]] = {}
    for name, content in source.stream(roles):
        if roles[name] in found:
            both = f"{found[roles[name]][0]} and {name}"
            raise Failure(DATA, f"{source.name} has the {' '.join(roles[name])} twice: {both}", "keep one")
        found[roles[name]] = printable(name.removesuffix(".npy")), read(name, content)
    splits = [s for s in ("train", "val", "test") if {(s, "inputs"), (s, "labels")} & set(found)]
    for split in splits:
        for role, other in (("inputs", "labels"), ("labels", "inputs")):
            if (split, role) not in found:
                raise Failure(DATA, f"{found[split, other][0]} has no {role}", f"add {split}'s {role}")
    writer.check_splits(splits)
    inputs = {split: inputs_of(*found[split, "inputs"], writer) for split in splits}
    labels = {split: (found[split, "labels"][0], flat(*found[split, "labels"], writer)) for split in splits}
    for split in splits:
        name, array = found[split, "inputs"][0], inputs[split]
        where, targets = labels[split]
        if len(array) != len(targets):
            raise Failure(
                DATA, f"{name} has {len(array):,} rows, and {where} {len(targets):,}", "make them the same"
            )
        for what, a, b in (
            ("inputs", array.shape[1:], inputs["train"].shape[1:]),
            ("labels", targets.shape[1:], labels["train"][1].shape[1:]),
        ):
            if a != b:
                raise Failure(
                    DATA,
                    f"{what} of {split} are {list(a)} each, and of train {list(b)}",
                    "make them the same",
                )
    numbers = {values.dtype.kind == "f" for _, values in labels.values()}
    if len(numbers) > 1:
        kinds = ", ".join(f"{where} of {values.dtype}" for where, values in labels.values())
        raise Failure(DATA, f"some labels are whole numbers, some are not: {kinds}", "store them alike")
    if numbers == {True}:
        for where, values in labels.values():
            look_out(where, values, writer)
        packed = {split: as_float32(*labels[split], writer) for split in splits}
    else:
        packed = classes_of(labels, source.name, writer)
    for split in splits:
        writer.arrays_of(split, inputs[split], packed[split])


def read(name: str, content: bytes) -> np.ndarray:
    """One .npy. Failure 65 if it is damaged, or holds Python objects, which could be any program."""
    try:
        array = npy.load(io.BytesIO(content))
    except (ValueError, OSError) as error:
        raise Failure(
            DATA, f"{printable(name)} is not an array that can be read ({error})", "save plain numbers"
        ) from None
    if not isinstance(array, np.ndarray) or not array.ndim or not len(array):
        raise Failure(DATA, f"{printable(name)} holds no rows", "save one row for each sample")
    return array


def inputs_of(name: str, array: np.ndarray, writer: Writer) -> np.ndarray:
    """float32 [N,…]."""
    if array.ndim == 1:
        writer.notes.append(f"{name} has one number for each sample: it is kept as [{len(array)}, 1]")
        array = array[:, None]
    if not array[0].size:
        raise Failure(
            DATA, f"{name} is {list(array.shape)}: its samples are empty", "save what is to be seen"
        )
    return as_float32(name, array, writer)


def flat(name: str, labels: np.ndarray, writer: Writer) -> np.ndarray:
    """[N,1] as [N], which means the same."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        writer.notes.append(f"{name} is {list(labels.shape)}: it is kept as [{len(labels)}]")
        labels = labels[:, 0]
    wide = labels.ndim > 2 or labels.ndim == 2 and labels.dtype.kind != "f"
    if wide or not labels[0].size or labels.dtype.kind not in "fiubU":
        raise Failure(
            DATA,
            f"{name} is {list(labels.shape)} of {labels.dtype}, which are no labels",
            "save classes as whole numbers [N], or numbers to predict as floats [N] or [N,K]",
        )
    return labels


def as_float32(name: str, array: np.ndarray, writer: Writer) -> np.ndarray:
    """The same numbers; a line says what became of others. Failure 65 for NaN, infinite and too large."""
    if array.dtype.kind not in "fiub":
        raise Failure(DATA, f"{name} holds {array.dtype}, which are no numbers", "save it as float32")
    with np.errstate(over="ignore"):
        kept = array.astype(np.float32)
    bad = ~np.isfinite(kept).reshape(len(kept), -1)
    if bad.any():
        beyond = np.isfinite(array).reshape(bad.shape)[bad].all()
        what = "beyond float32's 3.4e38" if beyond else "NaN or infinite"
        raise Failure(
            DATA,
            f"{bad.sum():,} values of {name} are {what}, the first in row {bad.any(axis=1).argmax():,}",
            "fill or remove these rows" if not beyond else "scale that column",
        )
    if array.dtype.kind != "f":
        writer.notes.append(f"{name} holds {array.dtype}: its whole numbers are kept as float32")
    if rounded := int((kept != array).sum()):
        writer.changed.add(f"values of {array.dtype} rounded to float32's seven digits", name, rounded)
    return kept


def classes_of(labels: dict, source: str, writer: Writer) -> dict[str, np.ndarray]:
    """split -> indices int64 [N] into train's distinct labels, which in order are the writer's classes."""
    known = np.unique(labels["train"][1])
    writer.classes = [str(value) for value in known.tolist()]
    if known.dtype.kind != "U" and not np.array_equal(known, np.arange(len(known))):
        writer.notes.append(
            f"labels {some(writer.classes)} are the classes 0..{len(known) - 1}, by these names"
        )
    if len(known) > len(labels["train"][1]) / 2:
        writer.notes.append(f"train has {len(known):,} classes of hardly more samples: {WHOLE_NUMBERS}")
    index, result, unknown = {value: i for i, value in enumerate(known.tolist())}, {}, set()
    for split, (_, values) in labels.items():
        unknown |= {f"{split}/{value}" for value in np.unique(values).tolist() if value not in index}
        result[split] = np.array([index.get(value, -1) for value in values.tolist()], np.int64)
    refuse_unknown(unknown, map(str, known.tolist()), source, "rows")
    return result


def look_out(name: str, labels: np.ndarray, writer: Writer) -> None:
    """A line for floats that were probably meant as classes."""
    one_hot = labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
    whole = labels.ndim == 1 and (labels == np.round(labels)).all() and len(np.unique(labels)) <= 10
    if one_hot or whole:
        looks = "one-hot" if one_hot else "class numbers"
        writer.notes.append(
            f"{name} looks like {looks}, but are floats: they are numbers to predict; save whole numbers [N] "
            "for classes"
        )
