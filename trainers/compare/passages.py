"""The passages of a text whose words' loss moved most between two predictions, with the loss of each word.

page = markdown(words, a.nll, b.nll, count=5, title="A: first@100  B: first@200")
"""

from __future__ import annotations

import numpy as np

from relaunch.data_prep.names import padded, printable, width

LENGTH = 20  # words of a passage: a sentence or so
WIDTH = 110  # columns of a block of words


def moved(change: np.ndarray, count: int) -> list[int]:
    """First rows of at most `count` passages of LENGTH rows: those whose `change` [N] adds up to most.

    The largest come first; none overlap, and all sums are positive.
    """
    found, left = [], np.convolve(np.nan_to_num(change), np.ones(min(LENGTH, len(change))), "valid")
    while len(found) < count and left.size and left.max() > 1e-6:  # below it, nats are rounding
        best = int(left.argmax())
        found.append(best)
        left[max(0, best - LENGTH + 1) : best + LENGTH] = -np.inf
    return found


def markdown(words: list[str], nll_a: np.ndarray, nll_b: np.ndarray, count: int, title: str) -> str:
    """A page of the `count` passages whose loss rose most from A to B, and of those where it fell most.

    `words` are the split's N + 1 words; row i of the losses [N], in nats, is about words[i + 1].
    """
    parts = [
        f"# {title}\n",
        f"Passages of {LENGTH} words. Under each word its loss in nats by A and by B, and the change where",
        "it is at least half a nat. The words before the `|` lead up to the passage.\n",
    ]
    change = nll_b.astype(np.float64) - nll_a
    for heading, starts in (
        ("B is worse than A", moved(change, count)),
        ("B is better than A", moved(-change, count)),
    ):
        parts.append(f"## {heading}\n")
        for start in starts:
            rows = slice(start, min(start + LENGTH, len(nll_a)))
            a, b = nll_a[rows].mean(dtype=np.float64), nll_b[rows].mean(dtype=np.float64)
            parts += [
                f"Words {start + 1:,} to {rows.stop:,}: {a:.2f} -> {b:.2f} nats a word ({b - a:+.2f})\n",
                "~~~~",
                *block(words, nll_a, nll_b, rows),
                "~~~~\n",
            ]
        if not starts:
            parts.append("Nowhere.\n")
    return "\n".join(parts)


def block(words: list[str], nll_a: np.ndarray, nll_b: np.ndarray, rows: slice) -> list[str]:
    """The words in lines of at most WIDTH columns, and under each its losses."""
    context = printable(" ".join(words[max(0, rows.start - 7) : rows.start + 1]))
    lines, columns = [f"    … {context} |"], []
    for i in range(rows.start, rows.stop):
        change = nll_b[i] - nll_a[i]
        cells = (
            printable(words[i + 1]),
            f"{nll_a[i]:.2f}",
            f"{nll_b[i]:.2f}",
            f"{change:+.2f}" if abs(change) >= 0.5 else "",
        )
        wide = max(map(width, cells))
        if columns and sum(width(c[0]) + 2 for c in columns) + wide > WIDTH:
            lines += flush(columns)
        columns.append([padded(cell, wide) for cell in cells])
    return lines + flush(columns)


def flush(columns: list[list[str]]) -> list[str]:
    """Four lines from the columns, which are then empty."""
    lines = [
        f"{label:4}{'  '.join(cells)}".rstrip() for label, cells in zip(("", "A", "B", "B-A"), zip(*columns))
    ]
    columns.clear()
    return lines + [""]
