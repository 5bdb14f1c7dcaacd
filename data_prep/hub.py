"""Any Hugging Face dataset through `datasets`: a Hub id, or parquet, arrow, csv, save_to_disk files on disk.

    relaunch prep fashion --source hub:zalando-datasets/fashion_mnist --size 28
    relaunch prep mine --source my.parquet --columns image=photo,label=species
    relaunch prep ages --source faces.parquet --columns image=photo,target=age       (numbers to predict)
    relaunch prep mine --source list.csv --val-fraction 0.1        (columns path and label)

Labels of all splits, and of all files of a split, are matched by class name.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from relaunch.data_prep.arrays import as_float32
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.images import decode, is_encoded, is_image, measure
from relaunch.data_prep.names import offered
from relaunch.data_prep.splits import one_name_each, refuse_unknown
from relaunch.data_prep.tables import load
from relaunch.data_prep.tally import Tally
from relaunch.data_prep.text import write_lines

TITLE = "a Hugging Face dataset"
LABELS = ("label", "labels", "class", "target", "category")  # where no column is typed as one, in this order


class Hub:
    """A loaded dataset with its columns chosen: `digest` identifies its content, `pack` packs it.

    Failure 64 for columns that are not there, 65 for a dataset that cannot be loaded or packed, 73 for a
    cache of the library's that cannot be written.
    """

    def __init__(self, source: str, columns: dict[str, str]):
        self.name = source if source.startswith("hub:") else Path(source).resolve().name
        path = Path(source)
        self.base = path if path.is_dir() else path.parent  # where the paths in a table begin
        self.folder = path if path.is_dir() else None
        self.left_out = Tally()
        loaded = load(source, self.left_out)
        names = one_name_each(loaded, self.name)
        self.parts: dict[str, list[Any]] = {}  # split -> its datasets
        for name, parts in loaded.items():
            rows = sum(map(len, parts))
            if name in names and rows:
                self.parts[names[name]] = [part for part in parts if len(part)]
            else:
                self.left_out.add("rows of other splits" if rows else "empty splits", name, rows or 1)
        if "train" not in self.parts:
            raise Failure(
                DATA,
                f"{self.name} has no split 'train', it has: {', '.join(loaded) or 'none'}",
                "name its files train-*, validation-*, test-*",
            )
        self._choose(columns)
        for split, parts in self.parts.items():
            self.parts[split] = [self._only_chosen(split, part) for part in parts]
        if not self.is_text and {"val", "test"} <= set(self.parts):
            labels = [label for part in self.parts["test"] for label in part[self.columns["label"]]]
            if all(label in (None, -1) for label in labels):  # as for a competition; val can be scored
                del self.parts["test"]
                self.left_out.add("rows without labels", "test", len(labels))

    def _choose(self, columns: dict[str, str]) -> None:
        import datasets

        features = self.parts["train"][0].features
        typed = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        first = self.parts["train"][0][0] if not typed else {}
        images = typed or [name for name in features if is_encoded(_bytes(first[name]))]
        if not images and "text" not in features:
            images = [name for name in features if isinstance(first[name], str) and is_image(first[name])]
        labels = labels or [name for name in LABELS if name in features]
        self.is_text = "text" in columns or not (images or "image" in columns)
        if self.is_text:
            self.columns = {"text": columns.get("text", "text")}
            return
        if "target" in columns and "label" in columns:
            raise Failure(
                USAGE, "--columns has a label= and a target=", "use label= for classes, else target="
            )
        self.numbers = "target" in columns
        columns = {"label": columns["target"], **columns} if self.numbers else columns
        self.columns = {
            "image": columns.get("image") or (images or ["image"])[0],
            "label": columns.get("label") or (labels or ["label"])[0],
        }
        for role, found in (("image", images), ("label", labels)):
            if role not in columns:
                for other in found[1:]:
                    self.left_out.add(f"columns that could be the {role} as well as {found[0]}", other)

    def _only_chosen(self, split: str, rows: Any) -> Any:
        import datasets

        if missing := [column for column in self.columns.values() if column not in rows.features]:
            there = offered(missing[0], rows.features, "it has:")
            raise Failure(
                USAGE,
                f"{self.name} has no column '{missing[0]}' in {split}",
                f"{there}; add --columns image=…,label=… or --columns text=…",
            )
        rows = rows.select_columns(sorted(set(self.columns.values())))
        if self.is_text:
            return rows
        try:
            return rows.cast_column(self.columns["image"], datasets.Image(decode=False))
        except (TypeError, ValueError, NotImplementedError):
            raise Failure(
                USAGE,
                f"{self.name}: column '{self.columns['image']}' holds no images",
                "choose another with --columns image=…",
            ) from None

    def digest(self) -> dict:
        """The SHA-256 of the chosen columns' content: an id does not say what the Hub holds today."""
        total = hashlib.sha256()
        orders = [self._names(part) for parts in self.parts.values() for part in parts]
        if any(order != orders[0] for order in orders):  # without these, sets of before keep their digest
            total.update(repr(orders).encode())
        for split in sorted(self.parts):
            for row in self._rows(split):
                for part in row:
                    part = part if isinstance(part, bytes) else str(part).encode()
                    total.update(b"%s %d\n%s" % (split.encode(), len(part), part))
        return {"file": self.name, "sha256": total.hexdigest()}

    def pack(self, writer, size: int | None = None) -> None:
        """Images uint8 [N,H,W,C], H = W = `size` pixels if given, or words. Labels are matched by name."""
        writer.left_out.found.update(self.left_out.found)
        splits = [split for split in ("train", "val", "test") if split in self.parts]
        writer.check_splits(splits)
        if self.is_text:
            return write_lines(
                writer,
                {
                    split: (line for (text,) in self._rows(split) for line in text.splitlines() or [""])
                    for split in splits
                },
            )
        if self.numbers:
            labels = self._numbers(writer)
        else:
            writer.classes, labels = self._labels(writer.notes)
        self._count_unlisted(writer.left_out)

        def stream(split):
            return (
                (row, f"{split} row {row}", content) for row, (content, _) in enumerate(self._rows(split))
            )

        total = sum(map(len, labels.values()))
        shape = measure([stream(split) for split in self.parts], total, size, writer.show, writer.changed)
        for split in splits:
            writer.images(
                split,
                labels[split],
                shape,
                decode(stream(split), shape, len(labels[split]), f"packing {split}", writer.show),
            )

    def _file(self, path: str) -> Path:
        return self.base / path.replace("\\", "/")  # a table may come from Windows

    def _count_unlisted(self, left_out: Tally) -> None:
        """Images of the source's folder that no row names, where rows name files."""
        column = self.columns["image"]
        images = [part[column] for parts in self.parts.values() for part in parts]
        named = {image["path"] for rows in images for image in rows if image and not image.get("bytes")}
        if self.folder and named:
            files = {os.path.realpath(self._file(name)) for name in named}
            for file in sorted(self.folder.rglob("*")):
                if is_image(file.name) and file.is_file() and os.path.realpath(file) not in files:
                    left_out.add("images that no row names", file.relative_to(self.folder).as_posix())

    def _numbers(self, writer) -> dict[str, np.ndarray]:
        """Split -> numbers to predict, float32 [N] or [N,K]. Failure 65 for a row that lacks them."""
        column, result = self.columns["label"], {}
        for split, parts in self.parts.items():
            values = [value for part in parts for value in part[column]]
            if None in values:
                empty = f"{self.name}: {column} of {split} row {values.index(None)} is empty"
                raise Failure(DATA, empty, "fill or remove such rows")
            try:
                found = np.asarray(values)
            except ValueError:
                raise Failure(
                    DATA,
                    f"{self.name}: {column} of {split} has rows of several lengths",
                    "make them the same",
                ) from None
            result[split] = as_float32(f"{column} of {split}", found, writer)
        widths = {values.shape[1:] for values in result.values()}
        if len(widths) > 1:
            raise Failure(DATA, f"{self.name}: {column} has rows of several lengths", "make them the same")
        return result

    def _names(self, rows: Any) -> list[str] | None:
        """The class names of a dataset's labels by number, where they have some."""
        return None if self.is_text else getattr(rows.features[self.columns["label"]], "names", None)

    def _labels(self, notes: list[str]) -> tuple[list[str], dict[str, np.ndarray]]:
        """(train's class names, split -> indices into them int64 [N]). Failure 65 for a row without a label,
        and for a class that train does not have."""
        values = {
            split: [(part, list(part[self.columns["label"]])) for part in parts]
            for split, parts in self.parts.items()
        }
        for split, parts in values.items():
            for part, found in parts:
                if not all(isinstance(label, (int, str)) for label in found):
                    raise Failure(
                        DATA,
                        f"{self.name}: column '{self.columns['label']}' has rows of {split} that are neither "
                        "integer nor text",
                        "choose another with --columns label=…, or target=… for numbers to predict",
                    )
                named = self._names(part)
                if named and (bad := set(found) - set(range(len(named)))):
                    raise Failure(  # the Hub writes -1 where a test split has no labels
                        DATA,
                        f"{self.name}: split {split} has unlabelled rows (label {bad.pop()})",
                        "pass a source without that split or those rows",
                    )
        named = [names for part, _ in values["train"] if (names := self._names(part))]
        if named:
            classes = list(dict.fromkeys(name for names in named for name in names))
        else:
            plain = {label for _, found in values["train"] for label in found}
            classes = [
                str(label) for label in sorted(plain, key=lambda label: (isinstance(label, str), label))
            ]
        index = {name: number for number, name in enumerate(classes)}
        result, unknown = {}, set()
        for split, parts in values.items():
            rows: list[int] = []
            for part, found in parts:
                names = self._names(part) or (named[0] if named and isinstance(found[0], int) else None)
                if names and not self._names(part):
                    notes.append(f"labels of {split} have no names: they are taken as train's numbers")
                of = {
                    label: names[label] if names and 0 <= int(label) < len(names) else str(label)
                    for label in set(found)
                }
                unknown |= {f"{split}/{name}" for name in of.values() if name not in index}
                rows += [index.get(of[label], -1) for label in found]
            result[split] = np.asarray(rows, np.int64)
        refuse_unknown(unknown, classes, self.name, "rows")
        orders = [self._names(part) for parts in values.values() for part, _ in parts]
        if any(order != orders[0] for order in orders):
            notes.append("its splits or files number their classes differently: they were matched by name")
        return classes, result

    def _rows(self, split: str):
        """Tuples of the chosen columns, images as encoded bytes."""
        for row in (row for part in self.parts[split] for row in part):
            if self.is_text:
                yield (str(row[self.columns["text"]] or ""),)
                continue
            image = row[self.columns["image"]] or {}
            try:
                content = image.get("bytes") or self._file(image.get("path") or "").read_bytes()
            except OSError:
                raise Failure(
                    DATA,
                    f"{self.name}: an image of split {split} is missing ({image.get('path')})",
                    "check --columns image=…",
                ) from None
            yield content, row[self.columns["label"]]


def _bytes(value: Any) -> Any:
    """What a column without a type holds of an encoded image: bytes, or a struct of bytes and path."""
    return value.get("bytes") if isinstance(value, dict) else value
