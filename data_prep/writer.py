"""The only writer of packed sets, into the folder of `making`.

with exclusive(root, "mine"), new_folder(root / "mine") as folder:
    writer = Writer(folder)
    writer.classes = ["cat", "dog"]
    writer.images("train", labels, (64, 64, 3), [(range(len(images)), images)])
    writer.finish("mine", "folder", source={"file": "mine.zip"}, options={})
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from relaunch.data_prep import VERSION
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.files import sha256, storage
from relaunch.data_prep.images import RULES
from relaunch.data_prep.moments import of_inputs, of_targets
from relaunch.data_prep.names import printable, some
from relaunch.data_prep.packed import FLAG, SCHEMA, data_hash
from relaunch.data_prep.splits import TAKE, Holdout
from relaunch.data_prep.tally import Tally

NEARLY_ALL = 0.99  # of the values are one: 0.81 in MNIST, 0.96 in drawings of thin lines


class Writer:
    """What a recipe packs into: arrays split by split, then `finish` writes meta.json.

    Failure 65 for what a set cannot be made of, 73 for a disk that does not take it.
    """

    def __init__(self, folder: Path, show: bool = False, holdout: Holdout | None = None):
        self.folder, self.show = folder, show  # show: print progress
        self.holdout = holdout  # what is taken out of train as val; a val of the source's is then test
        self.classes: list[str] = []
        self.left_out, self.changed = Tally(), Tally()
        self.notes: list[str] = []  # what else to say of the set
        self.splits: dict[str, dict[str, Any]] = {}
        self.arrays: dict[str, dict[str, Any]] = {}

    def images(
        self,
        split: str,
        labels: Sequence[int] | np.ndarray,
        shape: tuple[int, ...],
        batches: Iterable[tuple[Iterable[int], Sequence[np.ndarray] | np.ndarray]],
    ) -> None:
        """Write a split's labels (see `arrays`) and its N images of `shape` [H,W,C].

        `batches` yields (row numbers, uint8 [n,H,W,C]): in any order, so that a stream is packed in bounded
        memory, and each row once.
        """
        labels, parts = self._parts(split, labels)
        part, position = np.zeros(len(labels), np.int8), np.zeros(len(labels), np.int64)  # where a row goes
        stride, seen = int(np.prod(shape)), 0
        # plain writes, not a map: on a full disk a map dies of SIGBUS
        with storage(self.folder / split, FLAG), ExitStack() as stack:
            files: list[BinaryIO] = []
            for name, chosen in parts.items():
                self._save(f"{name}/labels.npy", labels[chosen])
                file = stack.enter_context(open(self.folder / name / "images.npy", "wb"))
                header = {"descr": "|u1", "fortran_order": False, "shape": (int(chosen.sum()), *shape)}
                np.lib.format.write_array_header_1_0(file, header)
                part[chosen] = len(files)
                position[chosen] = file.tell() + np.arange(chosen.sum()) * stride
                files.append(file)
            for rows, pixels in batches:
                for row, image in zip(rows, pixels):
                    file = files[part[row]]
                    file.seek(position[row])
                    file.write(image.tobytes())
                seen += len(pixels)
        if seen != len(labels):
            raise Failure(
                DATA, f"split '{split}' has {len(labels):,} labels but {seen:,} images", "check the source"
            )
        for name, chosen in parts.items():
            count = int(chosen.sum())
            self._record(f"{name}/images.npy", "uint8", [count, *shape])
            self.splits[name] = {"count": count, "shape": list(shape)}
            self._note_missing(name, labels[chosen])

    def arrays_of(self, split: str, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Write a split's inputs float32 [N,…] and labels: int64 [N], indices into `classes`, or numbers to
        predict, float32 [N] or [N,K].
        """
        labels, parts = self._parts(split, labels)
        for name, chosen in parts.items():
            self._save(f"{name}/labels.npy", labels[chosen])
            self._save(f"{name}/inputs.npy", inputs[chosen])
            self.splits[name] = {"count": int(chosen.sum()), "shape": list(inputs.shape[1:])}
            self._note_missing(name, labels[chosen], "samples")

    def _parts(self, split: str, labels: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The labels as they are written, and which rows go into which split: name -> bool [N]."""
        labels = np.asarray(labels)
        numbers = labels.dtype.kind == "f"
        labels = labels.astype(np.float32 if numbers else np.int64)
        if not len(labels):
            raise Failure(DATA, f"the source has nothing for split '{split}'", "check what --source holds")
        if not numbers and (labels.min() < 0 or labels.max() >= len(self.classes)):
            raise Failure(
                DATA, f"split '{split}' has a label outside 0..{len(self.classes) - 1}", "check the source"
            )
        if split != "train" or not self.holdout:
            return labels, {self._called(split): np.ones(len(labels), bool)}
        held = self.holdout.rows(np.zeros(len(labels), np.int64) if numbers else labels)
        return labels, {"train": ~held, "val": held}

    def text(self, vocab: list[str], splits: dict[str, Any]) -> None:
        """Write vocab.txt and, per split, its token ids [N] in the smallest unsigned type that holds them."""
        with storage(self.folder, FLAG):
            (self.folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocab), "utf-8")
        self._record("vocab.txt", "utf-8", [len(vocab)])
        self.check_splits(splits)
        if self.holdout:
            at = self.holdout.cut(splits["train"], vocab.index("<eos>") if "<eos>" in vocab else -1)
            train = splits["train"]
            others = {self._called(split): ids for split, ids in splits.items() if split != "train"}
            splits = {"train": train[:at], "val": train[at:], **others}
        known = np.zeros(len(vocab), bool)
        known[splits.get("train", [])] = True
        for split, ids in splits.items():
            new = np.asarray(ids)[~known[ids]] if split != "train" else []
            if len(new):
                share = f"{len(new):,} of {len(ids):,} words of {split}"
                self.notes.append(f"{share} do not occur in train, e.g. {vocab[new[0]]}")
        dtype = np.uint16 if len(vocab) <= 1 << 16 else np.uint32
        for split, ids in splits.items():
            if not len(ids):
                what = f"the source has no words for split '{split}'"
                raise Failure(DATA, what, "check what --source holds")
            self._save(f"{split}/tokens.npy", np.asarray(ids).astype(dtype))
            self.splits[split] = {"count": len(ids), "shape": []}

    def finish(self, name: str, recipe: str, source: dict[str, Any], options: dict[str, Any]) -> None:
        """Write meta.json: facts of the data, no times or places, so that equal sources give equal bytes."""
        from importlib.metadata import version

        stems = {Path(file).stem for file in self.arrays}
        kind = "text" if "vocab" in stems else "arrays" if "inputs" in stems else "images"
        mean, std = {
            "text": lambda: ([], []),
            "arrays": lambda: of_inputs(self.folder, self.notes),
            "images": self._mean_std,
        }[kind]()
        if not {"val", "test"} & set(self.splits):
            self.notes.append(f"it has neither val nor test, so nothing can be scored: {TAKE}")
        targets = of_targets(self.folder, self.notes)  # may add a note
        said = {
            "left_out": self.left_out.facts(),
            "changed": self.changed.facts(),
            "notes": [printable(note) for note in dict.fromkeys(self.notes)],
            "rules": RULES if kind == "images" and recipe in ("folder", "hub") else None,
            "targets": targets,
        }
        meta = {
            "schema": SCHEMA,
            "name": name,
            "recipe": recipe,
            "kind": kind,
            "splits": self.splits,
            "classes": self.classes,
            "mean": mean,
            "std": std,
            "source": source,
            "options": options,
            "arrays": self.arrays,
            "made_by": f"relaunch {VERSION}, Pillow {version('pillow')}",
        } | {key: value for key, value in said.items() if value}
        meta["hash"] = data_hash(meta)
        text = json.dumps(meta, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        with storage(self.folder, FLAG):
            (self.folder / "meta.json").write_text(text, "utf-8")

    def check_splits(self, splits: Iterable[str]) -> None:
        """Failure 64 if val is to be taken out of train and the source's own val has nowhere to go."""
        if self.holdout and {"val", "test"} <= set(splits):
            raise Failure(
                USAGE,
                "the source has val and test already, so none is to be taken out of train",
                "leave --val-fraction and --holdout away",
            )

    def _called(self, split: str) -> str:
        if not self.holdout or split != "val":
            return split
        self.notes.append("val is taken out of train; the source's own val is this set's test")
        return "test"

    def _note_missing(self, split: str, labels: np.ndarray, what: str = "images") -> None:
        counts = np.bincount(labels, minlength=len(self.classes)) if labels.dtype.kind == "i" else np.ones(0)
        names = [name for name, count in zip(self.classes, counts) if not count]
        if names:
            self.notes.append(
                f"{split} has no {what} of {len(names):,} of {len(counts):,} classes: {some(names)}"
            )

    def _mean_std(self) -> tuple[list[float], list[float]]:
        """Per channel over all pixels of train, 0..1, from exact counts: the same on every machine."""
        images = np.load(self.folder / "train" / "images.npy", mmap_mode="r")
        counts = np.zeros((images.shape[-1], 256), dtype=np.int64)
        for first in range(0, len(images), 1024):
            for channel, row in enumerate(counts):
                row += np.bincount(images[first : first + 1024, ..., channel].ravel(), minlength=256)
        levels, total = np.arange(256) / 255, counts.sum(axis=1)
        mean = counts @ levels / total
        std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0))
        value, share = int(counts.sum(axis=0).argmax()), counts.sum(axis=0).max() / counts.sum()
        if share > NEARLY_ALL or std.max() < 1 / 255:
            self.notes.append(
                f"{share:.1%} of all values of train are {value}, and they deviate by {255 * std.max():.2f} "
                "of 255 levels: are these the images that you mean?"
            )
        elif std.min() <= 1e-6:
            self.notes.append("a channel of train has the same value in all pixels")
        return mean.tolist(), np.where(std > 1e-6, std, 1.0).tolist()  # 1 for a constant channel

    def _save(self, file: str, array: np.ndarray) -> None:
        with storage(self.folder / file, FLAG):
            (self.folder / file).parent.mkdir(exist_ok=True)
            np.save(self.folder / file, array, allow_pickle=False)
        self._record(file, str(array.dtype), list(array.shape))

    def _record(self, file: str, dtype: str, shape: list[int]) -> None:
        path = self.folder / file
        self.arrays[file] = {
            "dtype": dtype,
            "shape": shape,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
