"""Any Hugging Face dataset through `datasets`: a Hub id, or parquet, arrow or save_to_disk files on disk.

relaunch prep fashion --source hub:zalando-datasets/fashion_mnist --size 28
relaunch prep mine --source my.parquet --columns image=photo,label=species
"""

import hashlib
from pathlib import Path

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.images import decode, measure
from relaunch.data_prep.text import write_lines

TITLE = "a Hugging Face dataset"
SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}


def is_local(path: Path) -> bool:
    """Whether a path is what `datasets` writes: parquet or arrow files, or a save_to_disk folder."""
    return (
        path.suffix in (".parquet", ".arrow")
        or path.is_dir()
        and any(
            next(path.glob(pattern), None)
            for pattern in ("dataset_dict.json", "state.json", "*.parquet", "*/*.parquet", "*.arrow")
        )
    )


class Hub:
    """A loaded dataset with its columns chosen: `digest` identifies its content, `pack` packs it.

    Failure 64 for columns that are not there, 65 for a dataset that cannot be loaded or packed.
    """

    def __init__(self, source: str, columns: dict[str, str]):
        import datasets

        self.name = source if source.startswith("hub:") else Path(source).resolve().name
        loaded = _load(source)
        self.splits = {}
        for split, rows in loaded.items():
            if split in SPLITS and len(rows):
                self.splits[SPLITS[split]] = rows
        if "train" not in self.splits:
            raise Failure(
                DATA,
                f"{self.name} has no split 'train', it has: {', '.join(loaded) or 'none'}",
                "name its files train-*, validation-*, test-*",
            )
        features = self.splits["train"].features
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        self.is_text = "text" in columns or not (images or "image" in columns)
        if self.is_text:
            self.columns = {"text": columns.get("text", "text")}
        else:
            self.columns = {
                "image": columns.get("image") or (images or ["image"])[0],
                "label": columns.get("label") or (labels or ["label"])[0],
            }
        for split, rows in self.splits.items():
            if missing := [column for column in self.columns.values() if column not in rows.features]:
                there = ", ".join(rows.features)
                raise Failure(
                    USAGE,
                    f"{self.name} has no column '{missing[0]}' in {split}, it has: {there}",
                    "add --columns image=…,label=… or --columns text=…",
                )
            self.splits[split] = rows = rows.select_columns(sorted(set(self.columns.values())))
            if not self.is_text:
                try:
                    self.splits[split] = rows.cast_column(self.columns["image"], datasets.Image(decode=False))
                except (TypeError, ValueError, NotImplementedError):
                    raise Failure(
                        USAGE,
                        f"{self.name}: column '{self.columns['image']}' holds no images",
                        "choose another with --columns image=…",
                    ) from None

    def digest(self) -> dict:
        """The SHA-256 of the chosen columns' content: an id does not say what the Hub holds today."""
        total = hashlib.sha256()
        for split in sorted(self.splits):
            for row in self._rows(split):
                for part in row:
                    part = part if isinstance(part, bytes) else str(part).encode()
                    total.update(b"%s %d\n%s" % (split.encode(), len(part), part))
        return {"file": self.name, "sha256": total.hexdigest()}

    def pack(self, writer, size: int | None = None) -> None:
        """Images uint8 [N,H,W,C], H = W = `size` pixels if given, or words. Labels are matched by name."""
        if self.is_text:
            return write_lines(
                writer,
                {
                    split: (line for (text,) in self._rows(split) for line in text.splitlines() or [""])
                    for split in ("train", "val", "test")
                    if split in self.splits
                },
            )
        label = self.splits["train"].features[self.columns["label"]]
        names = getattr(label, "names", None)  # of a ClassLabel
        labels = {split: list(rows[self.columns["label"]]) for split, rows in self.splits.items()}
        if not all(isinstance(label, (int, str)) for values in labels.values() for label in values):
            raise Failure(
                DATA,
                f"{self.name}: column '{self.columns['label']}' has rows that are neither integer nor text",
                "choose another with --columns label=…",
            )
        known = list(range(len(names))) if names else sorted(set().union(*labels.values()))
        writer.classes = names or [str(value) for value in known]
        index = {value: number for number, value in enumerate(known)}
        for split, values in labels.items():
            if bad := set(values) - set(known):  # the Hub writes -1 where a test split has no labels
                raise Failure(
                    DATA,
                    f"{self.name}: split {split} has unlabelled rows (label {bad.pop()})",
                    "remove that split or those rows",
                )

        def stream(split):
            return (
                (row, f"{split} row {row}", content) for row, (content, _) in enumerate(self._rows(split))
            )

        shape = measure(
            [stream(split) for split in self.splits], sum(map(len, labels.values())), size, writer.show
        )
        for split in ("train", "val", "test"):
            if split in self.splits:
                writer.images(
                    split,
                    [index[value] for value in labels[split]],
                    shape,
                    decode(stream(split), shape, len(labels[split]), f"packing {split}", writer.show),
                )

    def _rows(self, split: str):
        """Tuples of the chosen columns, images as encoded bytes."""
        for row in self.splits[split]:
            if self.is_text:
                yield (str(row[self.columns["text"]] or ""),)
                continue
            image = row[self.columns["image"]] or {}
            try:
                content = image.get("bytes") or Path(image.get("path") or "").read_bytes()
            except OSError:
                raise Failure(
                    DATA,
                    f"{self.name}: an image of split {split} is missing ({image.get('path')})",
                    "check --columns image=…",
                ) from None
            yield content, row[self.columns["label"]]


def _load(source: str) -> dict:
    import datasets
    from huggingface_hub.utils import logging

    datasets.disable_progress_bars()
    logging.set_verbosity_error()  # its retries without a network are not for users to read
    name = source.removeprefix("hub:")
    try:
        if source.startswith("hub:"):
            return dict(datasets.load_dataset(name))
        path = Path(source)
        if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            loaded = datasets.load_from_disk(str(path))
        elif path.is_dir() and not any(path.rglob("*.arrow")):
            loaded = datasets.load_dataset(str(path))
        else:
            kind = "parquet" if path.suffix == ".parquet" else "arrow"
            files = str(path) if path.is_file() else [str(file) for file in sorted(path.glob("*.arrow"))]
            loaded = datasets.load_dataset(kind, data_files=files)
        return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    except Exception as error:  # the library raises dozens of kinds, from no network to a damaged file
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Failure(
            DATA,
            f"datasets cannot load {source}: {why[:300]}",
            "check the id and the network, or download it and pass its path",
        ) from None
