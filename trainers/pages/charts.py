"""Charts as SVG, each with the points that it shows.

lines({"first": [(0, 2.3), (100, 0.4)]}, x="step", y="loss", title="Loss")

Matplotlib draws them; it is imported when the first one is drawn. Numbers that are not finite are left out of
lines, and of bars they are said to be missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from relaunch.data_prep.names import printable, shortened, width
from relaunch.trainers.pages import draw, theme
from relaunch.trainers.pages.blocks import Chart

HALF, WHOLE = 5.0, 10.3  # inches: half of a page's width, and all of it
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))  # when the colours begin again
LEGEND = 24  # names in a legend, and columns of one


def number(value: float | None) -> str:
    """A value as it stands above a bar: three or four digits, thousands separated."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 or abs(value) < 1 else f"{value:.3g}"


def finite(value) -> bool:
    return value is not None and math.isfinite(value)


def label(text: str, columns: int = LEGEND) -> str:
    return shortened(printable(str(text)), columns)


def lines(
    series: dict[str, list[tuple[float, float]]],
    x: str,
    y: str,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
    *,
    looks: dict[str, tuple[int, int]] | None = None,
    log: bool = False,
) -> Chart:
    """Curves by their names, each a list of (x, y), and `marks`: upright lines at an x with a word.

    `looks`: (colour, dashes) by name, numbers from 0, where the order of the series does not say it.
    `log`: the y axis is logarithmic.
    """
    drawn = {name: [(a, b) for a, b in points if finite(a) and finite(b)] for name, points in series.items()}
    with draw.figure(HALF, 2.9 + 0.16 * max(0, (len(drawn) - 3) // 2)) as (fig, ax):
        for i, (name, points) in enumerate(drawn.items()):
            colour, dash = (looks or {}).get(name, (i, i // theme.SERIES))
            shown = "o" if len(points) <= 30 else None
            ax.plot(
                [p[0] for p in points],
                [p[1] for p in points],
                color=theme.series(colour),
                linestyle=DASHES[dash % len(DASHES)],
                linewidth=1.6 if dash == 0 else 1.2,
                marker=shown,
                markersize=3,
                label=label(name, 40),
            )
        for at, word in marks:
            ax.axvline(at, color=theme.LIGHT["soft"], linewidth=0.9, linestyle=(0, (2, 2)))
            ax.annotate(
                label(word),
                (at, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize=7.5,
                color=theme.LIGHT["soft"],
            )
        if log:
            ax.set_yscale("log")
        ax.grid(True, axis="y")
        ax.set(xlabel=printable(x), ylabel=printable(y))
        ax.xaxis.get_major_formatter().set_scientific(False)
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.6g}")
        if 1 < len(drawn) <= LEGEND:
            long = max(width(label(name, 40)) for name in drawn) > 18
            fig.legend(
                loc="outside upper left",
                ncols=2 if long or len(drawn) == 4 else 3,
                handlelength=1.8,
                columnspacing=1.2,
            )
        svg = draw.element(fig, title)
    data = {"x": x, "y": y, "series": {n: [[a, b] for a, b in p] for n, p in drawn.items()}}
    return Chart(svg, title, data | ({"marks": [[a, w] for a, w in marks]} if marks else {}))


def room(labels: list[str]) -> tuple[float, float, bool]:
    """(width, height, whether the labels lie aslant) of a chart with a bar for each of them."""
    longest = max((width(label(name)) for name in labels), default=0)
    whole = len(labels) > 9
    aslant = longest * len(labels) > (110 if whole else 50)
    return WHOLE if whole else HALF, 3.0 + (0.045 * longest if aslant else 0), aslant


def ticks(ax, labels: list[str], aslant: bool) -> None:
    ax.set_xticks(range(len(labels)), [label(name) for name in labels])
    if aslant:
        ax.tick_params(axis="x", rotation=35)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(labels) - 0.4)


def bars(
    labels: list[str],
    values: list[float | None],
    y: str,
    title: str,
    spread: list[float] | None = None,
) -> Chart:
    """A bar for each label with its value above it, and plus or minus `spread`. None: a dash in its place."""
    wide, high, aslant = room(labels)
    spread = spread or [0.0] * len(labels)
    with draw.figure(wide, high) as (fig, ax):
        known = [i for i, value in enumerate(values) if finite(value)]
        ax.bar(known, [values[i] for i in known], 0.62, color=theme.LIGHT["c1"])
        for i, value in enumerate(values):
            around = spread[i] if finite(spread[i]) else 0.0
            if finite(value) and around:
                ax.errorbar(i, value, around, color=theme.LIGHT["ink"], capsize=3, linewidth=1)
            top = (value + around if value >= 0 else 0) if finite(value) else 0
            ax.annotate(
                number(value),
                (i, top),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=theme.LIGHT["ink" if finite(value) else "soft"],
            )
        ticks(ax, labels, aslant)
        ax.grid(True, axis="y")
        ax.set_ylabel(printable(y))
        ax.margins(y=0.12)
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.6g}")
        svg = draw.element(fig, title)
    points = [[str(n), v if finite(v) else None, s] for n, v, s in zip(labels, values, spread)]
    return Chart(svg, title, {"y": y, "bars": points}, wide == WHOLE)


def stacked(labels: list[str], parts: dict[str, list[float]], y: str, title: str) -> Chart:
    """A bar for each label, made of the `parts` by their names, each with a value for every label."""
    wide, high, aslant = room(labels)
    longest = max((width(label(name)) for name in parts), default=0)
    ncols = max(1, min(4, len(parts), int(wide / (0.07 * longest + 0.45))))  # inches of a name, and beside it
    with draw.figure(wide, high + 0.2 * -(-len(parts) // ncols)) as (fig, ax):
        below = [0.0] * len(labels)
        for i, (name, values) in enumerate(parts.items()):
            heights = [value if finite(value) else 0.0 for value in values]
            look = {"color": theme.series(i), "edgecolor": theme.LIGHT["paper"], "linewidth": 0.8}
            hatch = "///" if i >= theme.SERIES else None
            ax.bar(range(len(labels)), heights, 0.62, below, label=label(name), hatch=hatch, **look)
            below = [a + b for a, b in zip(below, heights)]
        ticks(ax, labels, aslant)
        ax.grid(True, axis="y")
        ax.set_ylabel(printable(y))
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.6g}")
        fig.legend(loc="outside upper left", ncols=ncols, handlelength=1, columnspacing=1.2)
        svg = draw.element(fig, title)
    kept = {name: [v if finite(v) else None for v in values] for name, values in parts.items()}
    return Chart(svg, title, {"y": y, "labels": [*map(str, labels)], "parts": kept}, wide == WHOLE)


def scatter(
    points: list[tuple[float, float]], x: str, y: str, title: str, line: tuple[float, float] | None = None
) -> Chart:
    """A dot for each (x, y); `line`: (slope, offset) of where they would lie if all were right."""
    drawn = [(a, b) for a, b in points if finite(a) and finite(b)]
    with draw.figure(HALF, 3.4) as (fig, ax):
        if line:
            ax.axline((0, line[1]), slope=line[0], color=theme.LIGHT["soft"], linewidth=0.9)
        across, up = zip(*drawn) if drawn else ((), ())
        ax.plot(across, up, "o", color=theme.LIGHT["c1"], markersize=3, markeredgewidth=0, alpha=0.5)
        ax.grid(True)
        ax.set(xlabel=printable(x), ylabel=printable(y))
        for each in (ax.xaxis, ax.yaxis):
            each.set_major_formatter(lambda v, _: f"{v:,.6g}")
        svg = draw.element(fig, title)
    return Chart(svg, title, {"x": x, "y": y, "points": [[a, b] for a, b in drawn]})


def heat(
    matrix: Sequence[Sequence[float]], rows: list[str], columns: list[str], title: str, *, root: bool = False
) -> Chart:
    """A matrix [rows, columns] of numbers from 0 up, the largest darkest; up to 12 x 12 they are
    written into the cells. `root`: the darkness is that of the square root, so that small ones are seen, too.
    """
    import numpy as np

    values = np.nan_to_num(np.asarray(matrix, float))
    least, most = min(0.0, values.min(initial=0)), values.max(initial=0)
    share = ((values - least) / ((most - least) or 1)) ** (0.5 if root else 1)
    colour = [int(theme.LIGHT["c7"][i : i + 2], 16) for i in (1, 3, 5)]  # halfway between the two papers
    pixels = np.zeros((*values.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = colour, np.round(share * 217)  # not all of it: ink must be read on it
    few = max(values.shape) <= 12
    longest = max((width(label(name)) for name in rows), default=0)
    cell = 0.36 if few else 0.26 if max(values.shape) <= 24 else 7.0 / max(values.shape)
    wide = min(WHOLE, max(3.2, cell * values.shape[1] + 0.09 * longest + 0.6))
    with draw.figure(wide, max(2.2, cell * values.shape[0] + 0.07 * longest + 0.5)) as (fig, ax):
        ax.imshow(pixels, interpolation="none", aspect="auto")
        if few:
            for (i, j), value in np.ndenumerate(values):
                if value:
                    ax.text(j, i, number(value), ha="center", va="center", fontsize=7)
        each = max(1, -(-max(values.shape) // 40))  # names that have room
        ax.set_yticks(range(0, len(rows), each), [label(name) for name in rows[::each]])
        ax.set_xticks(range(0, len(columns), each), [label(name) for name in columns[::each]])
        ax.tick_params(length=0)
        if longest > 3:
            ax.tick_params(axis="x", rotation=90)
        for spine in ax.spines.values():
            spine.set_visible(False)
        svg = draw.element(fig, title)
    data = {"rows": [*map(str, rows)], "columns": [*map(str, columns)], "matrix": values.tolist()}
    return Chart(svg, title, data, wide > HALF)
