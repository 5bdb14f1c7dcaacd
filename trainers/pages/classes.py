"""What a classifier mixes up, how good it is at each class, and its mistakes as pictures.

blocks = classes(judged) + mistakes(judged, images=96)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from relaunch.trainers.pages import charts, numbers
from relaunch.trainers.pages.blocks import Item, Note, Table
from relaunch.trainers.pages.guesses import gallery

if TYPE_CHECKING:
    from relaunch.trainers.pages.judged import Judged

FEW = 20  # classes that a matrix and a whole table are readable of
SHOWN = 20  # rows of a table that is longer


def confusion(truth: np.ndarray, guess: np.ndarray, count: int) -> np.ndarray:
    """int64 [count, count]: how often a sample of the row's class was taken for the column's."""
    flat = truth.astype(np.int64) * count + guess
    return np.bincount(flat, minlength=count * count).reshape(count, count)


def classes(found: Judged) -> list:
    p, names = found.p, found.names
    matrix = confusion(p.truth, p.guess, len(names))
    blocks: list = []
    if len(names) <= FEW:
        title = f"Confusion: rows are the truth, columns what {found.run.name} said"
        blocks.append(charts.heat(matrix.tolist(), names, names, title, root=True))
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    pairs = np.argsort(-wrong, axis=None, kind="stable")[: SHOWN if len(names) > FEW else 10]
    rows = []
    for flat in pairs:
        i, j = divmod(int(flat), len(names))
        if wrong[i, j]:
            share = numbers.percent(wrong[i, j], matrix[i].sum())
            rows.append([names[i], names[j], f"{wrong[i, j]:,}", share])
    if rows:
        head = ["truth", "taken for", "times", "of that class"]
        blocks.append(Table(head, rows, "The most frequent confusions", sortable=True))
    return [*blocks, per_class(matrix, names)]


def per_class(matrix: np.ndarray, names: list[str]) -> Table:
    counts, said, right = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    accuracy = right / np.maximum(counts, 1)
    there = [int(c) for c in np.argsort(accuracy, kind="stable") if counts[c]]
    rows = [
        [
            names[c],
            f"{counts[c]:,}",
            f"{right[c]:,}",
            numbers.percent(right[c], counts[c]),
            numbers.percent(right[c], said[c]),
        ]
        for c in (there if len(there) <= FEW else there[:SHOWN])
    ]
    head = ["class", "samples", "right", "accuracy", "precision"]
    caption = "Accuracy per class, the worst first"
    if len(there) > len(rows):
        caption += f": {len(rows)} of {len(there)} classes"
    return Table(head, rows, caption, sortable=True)


def mistakes(found: Judged, images: int) -> list:
    """The most confident mistakes and those with the largest loss, as pictures if the data has them."""
    p = found.p
    wrong = np.flatnonzero(p.guess != p.truth)
    if not len(wrong):
        return [Note(f"No mistakes: all {len(p):,} are right.")]
    sure = np.zeros(len(p)) if p.sure is None else p.sure
    half = max(1, images // 2)
    first = wrong[np.argsort(-sure[wrong], kind="stable")][:half]
    costly = wrong[np.argsort(-np.nan_to_num(p.loss[wrong], nan=np.inf), kind="stable")]
    shown = list(dict.fromkeys([*first.tolist(), *costly.tolist()]))[:images]
    shown.sort(key=lambda i: -sure[i])
    items = []
    for i in shown:
        truth, guess = found.names[p.truth[i]], found.names[p.guess[i]]
        told, values = f"✗ {guess}", {"loss": float(p.loss[i])}
        if p.sure is not None:
            told += f" {100 * sure[i]:.1f} %"
            values["confidence"] = float(sure[i])
        lines = [told, f"loss {p.loss[i]:.3g}"]
        groups = {"truth": truth, "taken for": guess}
        items.append(Item(b"", f"#{i} {truth}", lines, groups, values))
    caption = f"{len(wrong):,} of {len(p):,} are wrong."
    if len(items) < len(wrong):
        text = f"Here are {len(items):,}: the most confident, and those of the largest loss."
        caption += f" {text}"
    return gallery(found, shown, items, len(wrong), caption)
