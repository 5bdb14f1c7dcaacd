"""The colours of pages and charts, in light and dark. A chart says var(--c1, #0072b2), so that it follows the
page that it stands in, and is itself where it stands alone.

Series: Okabe and Ito's colours (2008), which colour-blind people tell apart, each darkened for white paper or
brightened for a dark screen until it has a contrast of 3:1 and more.
"""

from __future__ import annotations

# name: (light, dark)
COLOURS = {
    "ink": ("#1b1f24", "#e4e7eb"),
    "soft": ("#5b6470", "#9aa5b1"),  # of what is said beside
    "line": ("#d8dde3", "#39424d"),
    "faint": ("#f4f6f8", "#1d232b"),  # behind code, and every second thing
    "paper": ("#ffffff", "#13171c"),
    "good": ("#007a5a", "#3fd0a2"),
    "bad": ("#c0392b", "#ff8a75"),
    "c1": ("#0072b2", "#5ab4f0"),
    "c2": ("#d55e00", "#ff9052"),
    "c3": ("#00875f", "#3fd0a2"),
    "c4": ("#a8478a", "#e79bcb"),
    "c5": ("#a87800", "#ecc04f"),
    "c6": ("#4b5563", "#b6bec9"),
    "c7": ("#2c8fc9", "#9ad4ff"),
    "c8": ("#7d3c12", "#d9a27e"),
}
SERIES = 8  # colours of series, c1 to c8
FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", "PingFang SC", '
    '"Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", sans-serif'
)
LIGHT, DARK = ({name: pair[i] for name, pair in COLOURS.items()} for i in (0, 1))


def variables(colours: dict[str, str]) -> str:
    """CSS declarations of LIGHT or DARK."""
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def series(number: int) -> str:
    """The colour of the series with that number, from 0; after eight they begin again."""
    return LIGHT[f"c{number % SERIES + 1}"]
