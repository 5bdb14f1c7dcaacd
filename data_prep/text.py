"""Any three text files -> token ids: words are what stands between spaces, every line ends with <eos>.

    relaunch prep mybook --source FOLDER      (train.txt, valid.txt or val.txt, test.txt)

Read as pytorch/examples' word_language_model/data.py does: ids in order of first appearance over train, val,
test.
"""

import io
import re
from array import array

import numpy as np

from relaunch.data_prep.archive import Source
from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.progress import Progress

TITLE = "three text files"
NEEDS = "train.txt and valid.txt (or val.txt) or test.txt"
SPLITS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}


def find(source: Source) -> dict | None:
    """File name -> split, for .txt or .tokens files of one folder named after train, valid or val, test."""
    folders: dict[str, dict] = {}
    for name in source.sizes:
        folder, _, file = name.rpartition("/")
        match = re.search(
            r"(?:^|[^a-z])(train|validation|valid|val|test)(?:[^a-z].*)?\.(?:txt|tokens)$", file.lower()
        )
        if match:
            folders.setdefault(folder, {}).setdefault(SPLITS[match[1]], name)
    for folder in sorted(folders, key=len):
        if "train" in folders[folder] and len(folders[folder]) > 1:
            return {name: split for split, name in folders[folder].items()}
    return None


def pack(source: Source, roles: dict, writer) -> None:
    """Token ids [N] per split. Failure 65 for what is not UTF-8."""
    texts = {roles[name]: (name, content) for name, content in source.stream(roles)}
    write_lines(
        writer,
        {split: _lines(*texts[split]) for split in ("train", "val", "test") if split in texts},
        sum(source.sizes[name] for name in roles),
    )


def write_lines(writer, splits: dict, total: int | None = None) -> None:
    """Packs, per split, an iterable of lines; `total` is their size in bytes, for the progress."""
    ids: dict[str, int] = {}
    tokens = {}
    with Progress("reading words", total, "B", writer.show) as progress:
        for split, lines in splits.items():
            found = array("I")
            for line in lines:
                for word in (*line.split(), "<eos>"):
                    found.append(ids.setdefault(word, len(ids)))
                progress.add(len(line))
            tokens[split] = np.asarray(found)
    writer.text(list(ids), tokens)


def _lines(name: str, content: bytes):
    try:
        yield from io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(
            DATA, f"{name} is not UTF-8 text ({error.reason} at byte {error.start:,})", "convert it to UTF-8"
        ) from None
