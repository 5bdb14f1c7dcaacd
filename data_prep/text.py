"""Any three text files -> token ids: words are what stands between spaces, every line ends with <eos>.

    relaunch prep mybook --source FOLDER      (train.txt, valid.txt or val.txt, test.txt)
    relaunch prep mybook --source book.txt --val-fraction 0.1

Read as pytorch/examples' word_language_model/data.py does: ids in order of first appearance over train, val,
test.
"""

import io
import re
from array import array

import numpy as np

from relaunch.data_prep.archive import Source, is_text
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import printable, some
from relaunch.data_prep.progress import Progress
from relaunch.data_prep.splits import SPLITS, TAKE, split_of

TITLE = "three text files"
NEEDS = "train.txt and valid.txt (or val.txt) or test.txt"
WHOLE = "all"  # in the place of a split: one text that nobody has divided into train and val
NAMED = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?:[^a-z].*)?\.[a-z]+$")


def find(source: Source) -> dict | None:
    """File name -> split, for the text files of one folder named after train, valid or val, test.

    Failure 65 for a second such folder, and for two files that are the same split.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name, split in _named(source).items():
        found.setdefault(name.rpartition("/")[0], {}).setdefault(split, []).append(name)
    whole = {folder: splits for folder, splits in found.items() if "train" in splits and len(splits) > 1}
    if not whole:
        return None
    source.only_one(whole)
    (splits,) = whole.values()
    for split, names in splits.items():
        if len(names) > 1:
            raise Failure(
                DATA,
                f"{source.name} has {len(names)} texts for {split}: {some(names)}",
                "join them into one, or pass a source that has only one of them",
            )
    return {names[0]: split for split, names in splits.items()}


def find_whole(source: Source) -> dict | None:
    """File name -> WHOLE for the only text, or the only one that is named after train."""
    texts = [name for name in source.sizes if is_text(name)]
    train = [name for name, split in _named(source).items() if split == "train"]
    for names in (texts, train):
        if len(names) == 1:
            return {names[0]: WHOLE}
    return None


def pack(source: Source, roles: dict, writer) -> None:
    """Token ids [N] per split. Failure 64 for one text that nothing divides, 65 for what is not UTF-8."""
    if WHOLE in roles.values() and not writer.holdout:
        raise Failure(
            USAGE, f"{source.name} is one text without validation", TAKE.replace("train", "its end")
        )
    texts = {roles[name].replace(WHOLE, "train"): (name, text) for name, text in source.stream(roles)}
    write_lines(
        writer,
        {split: _lines(*texts[split]) for split in ("train", "val", "test") if split in texts},
        sum(source.sizes[name] for name in roles),
    )


def differs(source: Source) -> str:
    """How a source is not what `find` finds, in a few words, for a refusal."""
    texts = [name for name in source.sizes if is_text(name)]
    return f"none of its {len(texts):,} texts is named after train and valid" if texts else ""


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


def _named(source: Source) -> dict[str, str]:
    """Text file -> the split that its name says, for those whose name does."""
    matches = {
        name: match
        for name in source.sizes
        if is_text(name) and (match := NAMED.search(name.rpartition("/")[2].lower()))
    }
    return {name: split for name, match in matches.items() if (split := split_of(match[1]))}


def _lines(name: str, content: bytes):
    try:
        yield from io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(
            DATA,
            f"{printable(name)} is not UTF-8 text ({error.reason} at byte {error.start:,})",
            "convert it to UTF-8",
        ) from None
