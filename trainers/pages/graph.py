r"""The graph of a model: what flows from which operation to which, in layers from top to bottom.

graph([{"name": "conv", "label": "Conv2d\n32x26x26"}, {"name": "fc", "label": "Linear\n10"}],
      [("conv", "fc")], "Net")
"""

from __future__ import annotations

from relaunch.data_prep.names import shortened, width
from relaunch.trainers.pages import draw, theme
from relaunch.trainers.pages.blocks import Chart

COLUMNS = 34  # of a node's text


def graph(nodes: list[dict], edges: list[tuple[str, str]], title: str) -> Chart:
    r"""`nodes`: {"name": unique, "label": what is written, lines by \\n}; `edges`: (from, to) by name.

    Laid out by igraph, after Sugiyama, Tagawa and Toda (1981). Edges from or to no node are left out.
    """
    import igraph

    number = {node["name"]: i for i, node in enumerate(nodes)}
    kept = [(number[a], number[b]) for a, b in edges if a in number and b in number and a != b]
    texts = [[shortened(t, COLUMNS) for t in str(node["label"]).split("\n")] for node in nodes]
    across = 0.075 * max((width(line) for text in texts for line in text), default=4) + 0.35  # inches
    down = 0.16 * max((len(text) for text in texts), default=1) + 0.34
    net = igraph.Graph(n=len(nodes), edges=kept, directed=True)
    layout = net.layout_sugiyama(hgap=across, vgap=down, maxiter=200)
    places = [(x, y) for x, y in layout.coords[: len(nodes)]]
    left, right = (pick((x for x, _ in places), default=0) for pick in (min, max))
    bottom = max((y for _, y in places), default=0)
    wide = min(max(right - left + across, 3.2), 40)
    with draw.figure(wide, bottom + down) as (fig, ax):
        fig.set_layout_engine("none")
        ax.set_position((0, 0, 1, 1))
        ax.axis("off")
        middle = (left + right) / 2
        ax.set(xlim=(middle - wide / 2, middle + wide / 2), ylim=(bottom + down / 2, -down / 2))
        for a, b in kept:
            (x1, y1), (x2, y2) = places[a], places[b]
            near = abs(y2 - y1) < 1.5 * down and y2 > y1
            bend = "arc3" if near or x1 != x2 else "arc3,rad=-0.35"
            half = 0.08 * len(texts[a]) + 0.05, 0.08 * len(texts[b]) + 0.05
            ax.annotate(
                "",
                (x2, y2 - half[1]),
                (x1, y1 + half[0]),
                arrowprops={
                    "arrowstyle": "-|>,head_width=0.15,head_length=0.3",
                    "color": theme.LIGHT["soft"],
                    "linewidth": 0.9,
                    "connectionstyle": bend,
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
        for (x, y), text in zip(places, texts):
            box = {
                "boxstyle": "round,pad=0.35",
                "facecolor": theme.LIGHT["faint"],
                "edgecolor": theme.LIGHT["c1"],
                "linewidth": 0.9,
            }
            ax.text(x, y, "\n".join(text), ha="center", va="center", fontsize=8, bbox=box)
        svg = draw.element(fig, title)
    data = {
        "nodes": [{"name": n["name"], "label": str(n["label"])} for n in nodes],
        "edges": [list(e) for e in edges],
    }
    return Chart(svg, title, data, wide > 5)
