"""Guesses that are near or far: of numbers, of words, and of tasks of one's own; samples with their images.

blocks = residuals(judged, images=96)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from relaunch.trainers.pages import charts, numbers
from relaunch.trainers.pages.blocks import Gallery, Item, Note, Table
from relaunch.trainers.pages.thumbs import thumb

if TYPE_CHECKING:
    from relaunch.trainers.pages.judged import Judged

SHOWN = 20  # rows of a table of samples or words
DOTS = 2000  # of a scatter
CONTEXT = 8  # words before a mistake in a text


def gallery(found: Judged, shown: list[int], items: list[Item], total: int, caption: str) -> list:
    """The items with the images of the samples `shown`; without them, a table of the same."""
    if found.p.roles.view == "images" and found.packed:
        images = found.packed.images(found.split)
        return [Gallery([replace(it, image=thumb(images[i])) for it, i in zip(items, shown)], total, caption)]
    if len(items) > SHOWN:
        caption += f": the first {SHOWN}"
    rows = [[item.title, *(line.lstrip("✗✓ ") for line in item.lines)] for item in items[:SHOWN]]
    width = max(map(len, rows), default=1)
    table = Table(["sample", *[""] * (width - 1)], [r + [""] * (width - len(r)) for r in rows], caption)
    if found.p.roles.view != "images":
        return [table]
    data = f"{found.p.facts['data']} (hash {found.p.facts['data_hash'][:12]})"
    return [
        table,
        Note(f"No images: the data set {data} is not here; add --data-root FOLDER."),
    ]


def residuals(found: Judged, images: int) -> list:
    """Guess against truth, what is left of it, and the worst, for each number that is predicted (up to 4)."""
    p = found.p
    truth, guess = (np.asarray(c, np.float64).reshape(len(p), -1) for c in (p.truth, p.guess))
    blocks: list = []
    dots = np.unique(np.linspace(0, len(p) - 1, min(DOTS, len(p))).astype(int))
    rows = []
    for k in range(truth.shape[1]):
        t, g = truth[:, k], guess[:, k]
        left, spread = g - t, ((t - t.mean()) ** 2).sum()
        r2 = 1 - (left**2).sum() / spread if spread else float("nan")
        figures = (left.mean(), np.abs(left).mean(), np.sqrt((left**2).mean()))
        rows.append([str(k), *(f"{x:.4g}" for x in figures), "–" if np.isnan(r2) else f"{r2:.4f}"])
        if k < 4:
            which = f" {k}" if truth.shape[1] > 1 else ""
            some = "" if len(dots) == len(p) else f", {len(dots):,} of {len(p):,}"
            for values, name, title, line in (
                (g, "guess", "Guess against truth", (1, 0)),
                (left, "guess − truth", "What is left", (0, 0)),
            ):
                points = [*zip(t[dots].tolist(), values[dots].tolist())]
                blocks.append(charts.scatter(points, "truth", name, title + which + some, line))
    head = ["number", "mean error", "mean absolute error", "root mean square", "R²"]
    return [*blocks, Table(head, rows), *worst(found, images)]


def worst(found: Judged, images: int) -> list:
    """The samples of the largest loss."""
    p = found.p
    shown = np.argsort(-np.nan_to_num(p.loss, nan=np.inf), kind="stable")
    shown = shown[: images if p.roles.view == "images" else SHOWN].tolist()

    def written(column: np.ndarray, i: int) -> str:
        return " ".join(f"{v:.4g}" for v in np.atleast_1d(column[i])[:6])

    items = []
    for i in shown:
        lines = [f"loss {p.loss[i]:.4g}"]
        if p.truth is not None and p.guess is not None:
            lines = [f"truth {written(p.truth, i)}", f"guess {written(p.guess, i)}", *lines]
        items.append(Item(b"", f"#{i}", lines, {}, {"loss": float(p.loss[i])}))
    caption = f"The {len(items):,} of {len(p):,} with the largest loss"
    return gallery(found, shown, items, len(p), caption)


# words --------------------------------------------------------------------------------------------


def words(found: Judged) -> list:
    """The frequent words, how well they are foreseen, and the most confident mistakes."""
    p, names = found.p, found.names
    counts = np.bincount(p.truth, minlength=len(names))
    right = np.bincount(p.truth[p.truth == p.guess], minlength=len(names))
    losses = np.bincount(p.truth, weights=p.loss, minlength=len(names))
    rows = [
        [names[c], f"{counts[c]:,}", numbers.percent(right[c], counts[c]), f"{losses[c] / counts[c]:.2f}"]
        for c in np.argsort(-counts, kind="stable")[:SHOWN]
        if counts[c]
    ]
    head = ["word", "times", "foreseen", "loss, nats"]
    blocks: list = [Table(head, rows, "The most frequent words", sortable=True)]
    wrong = np.flatnonzero(p.guess != p.truth)
    sure = p.sure if p.sure is not None else -p.loss
    tokens = found.packed.tokens(found.split) if found.packed else None
    rows = []
    for i in wrong[np.argsort(-sure[wrong], kind="stable")][:SHOWN]:
        before = (
            " ".join(names[t] for t in tokens[max(0, i + 1 - CONTEXT) : i + 1]) if tokens is not None else ""
        )
        share = "–" if p.sure is None else f"{100 * p.sure[i]:.1f} %"
        rows.append([f"{i + 1:,}", before, names[p.truth[i]], names[p.guess[i]], share, f"{p.loss[i]:.2f}"])
    head = ["word no.", "after", "truth", "guess", "confidence", "loss, nats"]
    if rows:
        blocks.append(Table(head, rows, "The most confident mistakes", sortable=True))
    return blocks
