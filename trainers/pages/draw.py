"""A matplotlib figure as an SVG element that belongs in a page: text stays text, colours follow the page.

with figure(5, 3) as (fig, ax):
    ax.plot([1, 2], [3, 4], color=theme.LIGHT["c1"])
    svg = element(fig, "loss")
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

from relaunch.data_prep.names import printable
from relaunch.trainers.pages import theme

SETTINGS = {
    "svg.fonttype": "none",  # the reader's fonts draw the text, whatever its language
    "svg.hashsalt": "relaunch",  # equal charts are equal bytes
    "text.parse_math": False,  # a $ in a name is a dollar
    "font.family": ["DejaVu Sans"],  # matplotlib's own: it only measures here
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": theme.LIGHT["soft"],
    "axes.edgecolor": theme.LIGHT["line"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": theme.LIGHT["line"],
    "grid.linewidth": 0.6,
    "xtick.color": theme.LIGHT["line"],
    "ytick.color": theme.LIGHT["line"],
    "xtick.labelcolor": theme.LIGHT["soft"],
    "ytick.labelcolor": theme.LIGHT["soft"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": theme.LIGHT["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "lines.solid_capstyle": "round",
    "path.simplify_threshold": 0.2,  # of a pixel: what nobody sees
}
BY_VALUE = {value: f"var(--{name}, {value})" for name, value in reversed(theme.LIGHT.items())}


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple]:
    """(figure, axes) of so many inches, in our style. Draw and call `element` within the block."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its caches
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # it measures with a font that lacks Chinese
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        fig = Figure(figsize=(width, height), layout="constrained")
        yield fig, fig.add_subplot()


def element(fig, title: str) -> str:
    """The figure as one <svg> element, whose ids no other chart has."""
    content = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    fig.savefig(content, format="svg", transparent=True, metadata=nothing)
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    # matplotlib's rule for `*` would be one for the whole page
    svg = re.sub(r'<defs>\s*<style type="text/css">.*?</style>\s*</defs>', "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]+;?|font: ([\d.]+px) [^;\"]+", _font, svg)
    svg = re.sub(r"#[0-9a-f]{6}\b(?=[;\"])", lambda m: BY_VALUE.get(m[0], m[0]), svg)
    key = hashlib.sha256(svg.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)(?=[\w.-]+)', rf"\g<1>{key}-", svg)
    [width, height] = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    attributes = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}pt" height="{height}pt" role="img" '
        f'aria-label="{escape(printable(title))}">'
    )
    svg = re.sub(r"<svg[^>]*>", lambda _: attributes, svg, count=1)
    return re.sub(r"\n\s*", "\n", svg).strip()


def _font(match: re.Match) -> str:
    return f"font-size: {match[1]}" if match[1] else ""


def alone(svg: str) -> str:
    """The element as a file of its own, on paper of its own."""
    light, dark = theme.variables(theme.LIGHT), theme.variables(theme.DARK)
    style = (
        f"svg{{{light}font-family:{theme.FONT};stroke-linejoin:round;background:var(--paper)}}"
        f"@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    )
    return re.sub(
        r"(<svg[^>]*>)", lambda m: f"{m[1]}<style>{escape(style, quote=False)}</style>", svg, count=1
    )
