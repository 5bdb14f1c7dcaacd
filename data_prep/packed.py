"""Packed data sets: the one on-disk format that every workload trains from. Opening a set never writes one.

    ROOT/NAME/meta.json                 written last: a folder without it is not a set
    ROOT/NAME/SPLIT/images.npy          uint8 [N,H,W,C]       ROOT/NAME/SPLIT/labels.npy   int64 [N], or
    ROOT/NAME/SPLIT/inputs.npy          float32 [N,…]           float32 [N] or [N,K]: numbers to predict
    ROOT/NAME/SPLIT/tokens.npy          uint16 or uint32 [N]  ROOT/NAME/vocab.txt          one word a line

`relaunch prep NAME --verify` hashes a set again; writer.py writes them.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from relaunch.data_prep import npy
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.files import parse_json, read_small, sha256
from relaunch.data_prep.names import listed, nearest, offered, quoted
from relaunch.data_prep.sizes import Sizes, sizes

SCHEMA = 1
FLAG = "--data-root ROOT"  # names another place to whatever packs; prep calls it --out as well
AGAIN = "prepare it again, under another name or after moving it away"  # what is damaged
OFFICIAL = ("mnist", "cifar10", "tiny_imagenet", "wikitext2")  # can be downloaded
EMBEDDED = ("digits", "pydoc")  # come with installed packages: what trains or scores packs them when needed


def data_root(flag: str | None = None) -> Path:
    """The folder that holds the packed sets: the flag, else $RELAUNCH_DATA, else `data`."""
    return Path(flag or os.environ.get("RELAUNCH_DATA") or "data")


class Packed:
    """One packed set, opened: facts from meta.json, arrays as memory maps that nobody writes.

    Failure 64 when a split or an array is asked for that the set does not have.
    """

    def __init__(self, path: Path, meta: dict[str, Any]):
        self.path, self.meta = path, meta
        self.name: str = meta["name"]
        self.kind: str = meta["kind"]  # "images", "arrays" or "text"
        self.hash: str = meta["hash"]  # identifies the data, whatever it is called and wherever it lies
        self.classes: list[str] = meta["classes"]
        self.mean: list[float] = meta["mean"]  # per channel of the train images, 0..1
        self.std: list[float] = meta["std"]
        self.splits: dict[str, int] = {split: facts["count"] for split, facts in meta["splits"].items()}
        self.sizes = sizes(meta)

    def as_trained(self, trained: Sizes) -> Packed:
        """The same arrays with the statistics of the set that a model was trained on: by those it reads its
        inputs and says its numbers, whatever else it is scored on.
        """
        if (trained.kind, len(trained.mean)) != (self.kind, len(self.mean)):
            return self  # no model takes both, which is refused elsewhere
        names = ("mean", "std", "target_mean", "target_std")
        found = copy.copy(self)
        found.sizes = dataclasses.replace(self.sizes, **{name: getattr(trained, name) for name in names})
        found.mean, found.std = list(trained.mean), list(trained.std)
        return found

    def check_split(self, split: str) -> None:
        """Failure 64 if the set has no such split."""
        if split not in self.splits:
            what = f"data set '{self.name}' has no split {split!r}"
            raise Failure(USAGE, what, offered(split, self.splits, "it has:"))

    @property
    def eval_split(self) -> str:
        """`val` if the set has it, else `test`."""
        if "val" not in self.splits and "test" not in self.splits:
            raise Failure(
                USAGE,
                f"data set '{self.name}' has neither val nor test",
                "pack its source under another name with --val-fraction 0.1",
            )
        return "val" if "val" in self.splits else "test"

    def images(self, split: str) -> np.ndarray:
        """uint8 [N,H,W,C]."""
        return self._array(split, "images.npy")

    def inputs(self, split: str) -> np.ndarray:
        """float32 [N,…]."""
        return self._array(split, "inputs.npy")

    def labels(self, split: str) -> np.ndarray:
        """int64 [N], indices into `classes`, or numbers to predict, float32 [N] or [N,K]."""
        return self._array(split, "labels.npy")

    def tokens(self, split: str) -> np.ndarray:
        """uint16 or uint32 [N], indices into `vocab()`."""
        return self._array(split, "tokens.npy")

    def vocab(self) -> list[str]:
        """The words, by token id."""
        return (self.path / "vocab.txt").read_text("utf-8").split("\n")[:-1]

    def names(self) -> list[str]:
        """What its labels are called: classes, or words."""
        return self.vocab() if self.kind == "text" else self.classes

    def _array(self, split: str, filename: str) -> np.ndarray:
        self.check_split(split)
        if f"{split}/{filename}" not in self.meta["arrays"]:
            raise Failure(
                USAGE,
                f"data set '{self.name}' holds {self.kind}, it has no {filename}",
                "choose a data set of the workload's kind",
            )
        # "c" (copy on write): torch.from_numpy warns about read-only maps
        try:
            return npy.load(self.path / split / filename, "c")
        except ValueError as error:
            what = f"{self.path / split / filename} is damaged ({error})"
            raise Failure(DATA, what, AGAIN) from error


def locate(name_or_path: str | Path, root: str | Path) -> Path:
    """Where a set lies or would lie: NAME under `root`, else the path itself."""
    text, path = str(name_or_path), Path(root) / name_or_path
    if os.sep in text or text in (".", "..") or not path.is_dir() and Path(text, "meta.json").is_file():
        return Path(text)
    return path


def not_packed_yet(name: str | Path, root: str | Path) -> bool:
    """Whether NAME is an embedded set that is not there yet: `recipes.ensure` would pack it."""
    return str(name) in EMBEDDED and not locate(name, root).exists()


def open_packed(name_or_path: str | Path, root: str | Path) -> Packed:
    """Open NAME under `root`, or a path. Reads meta.json and compares file sizes; hashes and writes nothing.

    Failure 65 with the command that prepares it, when the set is missing or incomplete.
    """
    path = locate(name_or_path, root)
    source = "" if path.name in OFFICIAL + EMBEDDED else " --source PATH"
    again = f"run: relaunch prep {quoted(path.name)}{source} --out {quoted(str(path.parent))}"
    if not path.exists():
        raise Failure(DATA, f"no packed data set '{path.name}' in {path.parent}", _instead(path, again))
    again = f"move it away, then {again}"
    try:
        meta = parse_json(read_small(path / "meta.json"), _refuse_constant)
        if meta["schema"] != SCHEMA:
            raise Failure(DATA, f"{path} has schema {meta['schema']}, this version reads {SCHEMA}", again)
        packed = Packed(path, meta)
        sizes = {file: facts["bytes"] for file, facts in meta["arrays"].items()}
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(DATA, f"{path} has no meta.json, so it is not a packed data set", again) from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise Failure(DATA, f"{path}/meta.json cannot be read ({error})", again) from None
    for file, size in sizes.items():
        found = (path / file).stat().st_size if (path / file).is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
            raise Failure(DATA, f"{path / file} {state}", again)
    return packed


def _instead(path: Path, again: str) -> str:
    """The set that was probably meant, those that are there, and the command that makes one."""
    there = sorted(p.parent.name for p in path.parent.glob("*/meta.json"))
    ours = OFFICIAL + EMBEDDED
    if path.name in ours:
        return again
    near = nearest(path.name, [*there, *ours])
    meant = f"did you mean {quoted(near)}? " if near else ""
    return f"{meant}{f'packed there: {listed(map(quoted, there))}; or ' if there else ''}{again}"


def verify(packed: Packed) -> None:
    """Hash every array again. Failure 65 names the first file that differs from meta.json."""
    for file, facts in packed.meta["arrays"].items():
        if sha256(packed.path / file) != facts["sha256"]:
            raise Failure(
                DATA, f"{packed.path / file} is damaged: its SHA-256 is not the one in meta.json", AGAIN
            )
    if packed.hash != data_hash(packed.meta):
        raise Failure(DATA, f"{packed.path}/meta.json is damaged: its hash does not fit its contents", AGAIN)


def data_hash(meta: dict[str, Any]) -> str:
    """What identifies the data in every checkpoint and prediction ever written: this rule never changes.

    It covers schema, kind, classes and arrays (names, types, shapes, sizes, SHA-256); new facts lie outside.
    """
    facts = {key: meta[key] for key in ("schema", "kind", "classes", "arrays")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def describe(packed: Packed) -> str:
    """One line: `mnist: train 60,000, test 10,000 images 28x28x1, 10 classes, 55.0 MB in data/mnist`."""
    counts = ", ".join(f"{split} {count:,}" for split, count in packed.splits.items())
    known = packed.sizes
    if packed.kind == "text":
        what = f"tokens of {known.outputs:,} words"
    else:
        shape = "x".join(map(str, next(iter(packed.meta["splits"].values()))["shape"]))
        labels = f"number{'s' * (known.outputs > 1)} to predict" if known.numbers else "classes"
        what = f"{packed.kind} {shape}, {known.outputs} {labels}"
    size = sum(facts["bytes"] for facts in packed.meta["arrays"].values()) / 1e6
    return f"{packed.name}: {counts} {what}, {size:,.1f} MB in {packed.path}"


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
