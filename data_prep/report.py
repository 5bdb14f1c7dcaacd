"""What prep says of a set: images of each class and split, what was left out, what was changed."""

import numpy as np

from relaunch.data_prep.images import RULES
from relaunch.data_prep.names import printable
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.tally import lines

LISTED = 10  # classes: of more only the smallest and the largest are named


def packed_lines(data: Packed) -> list[str]:
    """One line per split: `  train: 12 images of 2 classes (cat: 8, dog: 4)`; none for texts."""
    if data.kind == "text":
        return []
    if data.sizes.numbers:
        return [f"  {split}: {numbers(data.labels(split))}" for split in data.splits]
    what = "images" if data.kind == "images" else "samples"
    result = []
    for split in data.splits:
        counts = np.bincount(data.labels(split), minlength=len(data.classes))
        there = [(int(count), printable(name)) for name, count in zip(data.classes, counts) if count]
        fewest, most = min(there, key=lambda pair: pair[0]), max(there, key=lambda pair: pair[0])
        if fewest[0] == most[0]:
            each = f"{most[0]:,} each"
        elif len(there) <= LISTED:
            each = ", ".join(f"{name}: {count:,}" for count, name in there)
        else:
            each = f"from {fewest[1]}: {fewest[0]:,} to {most[1]}: {most[0]:,}"
        result.append(f"  {split}: {counts.sum():,} {what} of {len(there):,} classes ({each})")
    return result


def numbers(labels: np.ndarray) -> str:
    """`40 numbers to predict, from 1 to 9, mean 4.5`; of several per sample what the first is like."""
    first = labels.reshape(len(labels), -1)[:, 0].astype(float)
    each = f" x {labels.shape[1]}" if labels.ndim > 1 else ""
    return (
        f"{len(labels):,}{each} numbers to predict, {'the first ' if each else ''}from {first.min():.4g} to "
        f"{first.max():.4g}, mean {first.mean():.4g}"
    )


def said_lines(data: Packed, existed: bool) -> list[str]:
    """What was left out, what was changed, and the notes, one line each."""
    meta = data.meta
    result = lines("left out", meta.get("left_out", [])) + lines("changed", meta.get("changed", []))
    result += [f"note: {printable(note)}" for note in meta.get("notes", [])]
    if (
        existed
        and data.kind == "images"
        and meta["recipe"] in ("folder", "hub")
        and meta.get("rules", 1) < RULES
    ):
        result.append(
            f"note: {meta['made_by'].partition(',')[0]} packed it, without EXIF orientation and depth beyond "
            "8 bits; it stays as it is, and packed under another name it may be another set"
        )
    return result
