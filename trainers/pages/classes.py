"""What a classifier mixes up, how good it is at each class, and its mistakes as pictures.

blocks = classes(judged, say) + mistakes(judged, say, images=96)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from relaunch.trainers.pages import charts, numbers
from relaunch.trainers.pages.blocks import Item, Note, Table
from relaunch.trainers.pages.guesses import gallery
from relaunch.trainers.pages.lang import Say

if TYPE_CHECKING:
    from relaunch.trainers.pages.judged import Judged

FEW = 20  # classes that a matrix and a whole table are readable of
SHOWN = 20  # rows of a table that is longer


def confusion(truth: np.ndarray, guess: np.ndarray, count: int) -> np.ndarray:
    """int64 [count, count]: how often a sample of the row's class was taken for the column's."""
    flat = truth.astype(np.int64) * count + guess
    return np.bincount(flat, minlength=count * count).reshape(count, count)


def classes(found: Judged, say: Say) -> list:
    p, names = found.p, found.names
    matrix = confusion(p.truth, p.guess, len(names))
    blocks: list = []
    if len(names) <= FEW:
        title = say("Confusion: rows are the truth, columns what {name} said", name=found.run.name)
        blocks.append(charts.heat(matrix.tolist(), names, names, title))
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
        head = [say("truth"), say("taken for"), say("times"), say("of that class")]
        blocks.append(Table(head, rows, say("The most frequent confusions"), sortable=True))
    return [*blocks, per_class(matrix, names, say)]


def per_class(matrix: np.ndarray, names: list[str], say: Say) -> Table:
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
    head = [say("class"), say("samples"), say("right"), say("accuracy"), say("precision")]
    caption = say("Accuracy per class, the worst first")
    if len(there) > len(rows):
        caption += say(": {n} of {total} classes", n=len(rows), total=len(there))
    return Table(head, rows, caption, sortable=True)


def mistakes(found: Judged, say: Say, images: int) -> list:
    """The most confident mistakes and those with the largest loss, as pictures if the data has them."""
    p = found.p
    wrong = np.flatnonzero(p.guess != p.truth)
    if not len(wrong):
        return [Note(say("No mistakes: all {n:,} are right.", n=len(p)))]
    sure = np.zeros(len(p)) if p.sure is None else p.sure
    half = max(1, images // 2)
    first = wrong[np.argsort(-sure[wrong], kind="stable")][:half]
    costly = wrong[np.argsort(-np.nan_to_num(p.loss[wrong], nan=np.inf), kind="stable")]
    shown = list(dict.fromkeys([*first.tolist(), *costly[: images - half].tolist()]))
    shown.sort(key=lambda i: -sure[i])
    items = []
    for i in shown:
        truth, guess = found.names[p.truth[i]], found.names[p.guess[i]]
        told, values = f"✗ {guess}", {say("loss"): float(p.loss[i])}
        if p.sure is not None:
            told += f" {100 * sure[i]:.1f} %"
            values[say("confidence")] = float(sure[i])
        lines = [told, f"{say('loss')} {p.loss[i]:.3g}"]
        groups = {say("truth"): truth, say("taken for"): guess}
        items.append(Item(b"", f"#{i} {truth}", lines, groups, values))
    caption = say("{n:,} of {total:,} are wrong.", n=len(wrong), total=len(p))
    if len(items) < len(wrong):
        text = say("Here are {n:,}: the most confident, and those of the largest loss.", n=len(items))
        caption += f" {text}"
    return gallery(found, shown, items, len(wrong), caption, say)
