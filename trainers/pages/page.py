"""Blocks as a page: one HTML file that needs nothing else, or Markdown with its pictures beside it.

page.html("first", [Heading("Results"), Table(["run", "top1"], [["first", "99.1 %"]])])
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

from relaunch.data_prep import VERSION
from relaunch.data_prep.names import shown
from relaunch.trainers.pages import theme
from relaunch.trainers.pages.blocks import (
    Chart,
    Code,
    Facts,
    Gallery,
    Heading,
    Note,
    Picture,
    Prose,
    Table,
)
from relaunch.trainers.pages.cells import PNG, WORDS, rights
from relaunch.trainers.pages.markdown import markdown

__all__ = ["html", "markdown"]


@cache
def part(name: str) -> str:
    """A file of this package. CSS gets the theme's colours and fonts."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    if name.endswith(".css"):
        for word, value in (
            ("LIGHT", theme.variables(theme.LIGHT)),
            ("DARK", theme.variables(theme.DARK)),
            ("FONT", theme.FONT),
        ):
            text = re.sub(rf"\b{word}\b", lambda _: value, text)
    return text


def html(title: str, blocks: list, lang: str = "en") -> str:
    """One page that opens from a file: no network, no foreign script, light or dark as the system is.

    `lang`: of the page's own few words, en or zh; what the blocks say is theirs.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_visible)
    script = part("page.js")
    shown_blocks, ids = [], _Ids()
    for block in blocks:
        entry = _entry(block, ids, lang)
        last = shown_blocks[-1] if shown_blocks else {}
        narrow = entry["kind"] in ("Table", "Chart") and not entry.get("wide")
        if narrow and last.get("kind") == "Row":
            last["blocks"].append(entry)  # as many beside each other as there is room for
        else:
            shown_blocks.append({"kind": "Row", "blocks": [entry]} if narrow else entry)
    return environment.from_string(part("page.html")).render(
        title=title,
        lang="zh-CN" if lang == "zh" else lang,
        words=WORDS[lang],
        version=VERSION,
        style=Markup(part("page.css")),
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        contents=[(b["id"], b["text"]) for b in shown_blocks if b["kind"] == "Heading" and b["level"] == 2],
        blocks=shown_blocks,
    )


def _visible(value):
    """Control and direction characters as escapes, as everywhere."""
    from markupsafe import Markup

    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


class _Ids:
    """Names of headings for links, each once."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def of(self, heading: Heading) -> str:
        base = heading.id or re.sub(r"[^\w]+", "-", heading.text.lower()).strip("-") or "part"
        found, n = base, 1
        while found in self.taken:
            n += 1
            found = f"{base}-{n}"
        self.taken.add(found)
        return found


def _entry(block, ids: _Ids, lang: str) -> dict[str, Any]:
    """What the template reads of a block."""
    from markupsafe import Markup

    kind = type(block).__name__
    if isinstance(block, Heading):
        return {"kind": kind, "level": block.level, "text": block.text, "id": ids.of(block)}
    if isinstance(block, Prose):
        return {"kind": kind, "paragraphs": [p for p in block.text.split("\n\n") if p.strip()]}
    if isinstance(block, (Note, Code)):
        return {"kind": kind, "text": block.text}
    if isinstance(block, Facts):
        return {"kind": kind, "rows": block.rows}
    if isinstance(block, Table):
        right = rights(block)
        rows = [[*zip(row, right)] for row in block.rows]
        head = [*zip(block.head, right)]
        return {
            "kind": kind,
            "head": head,
            "rows": rows,
            "caption": block.caption,
            "sortable": block.sortable,
        }
    if isinstance(block, Chart):
        drawn = {"caption": block.caption, "svg": Markup(block.svg), "data": Markup(embedded(block.data))}
        return {"kind": kind, "wide": block.wide, **drawn}
    if isinstance(block, Picture):
        return {"kind": kind, "source": uri(block.png), "alt": block.alt, "caption": block.caption}
    if isinstance(block, Gallery):
        return {"kind": kind, "caption": block.caption, **_gallery(block, lang)}
    raise TypeError(f"{kind} is no block of a page")


def _gallery(block: Gallery, lang: str) -> dict[str, Any]:
    groups = list(dict.fromkeys(name for item in block.items for name in item.groups))
    values = list(dict.fromkeys(name for item in block.items for name in item.values))
    choices = {
        name: dict.fromkeys(shown(i.groups[name]) for i in block.items if name in i.groups) for name in groups
    }
    tiles = [
        {
            "title": item.title,
            "source": uri(item.image) if item.image else "",
            "small": item.image.startswith(PNG),
            "lines": [marked(line) for line in item.lines],
            "groups": json.dumps([shown(item.groups[n]) if n in item.groups else None for n in groups]),
            "sorts": json.dumps([_number(item.values.get(n)) for n in values]),
        }
        for item in block.items
    ]
    n = len(tiles)
    return {
        "filters": [(name, sorted(found)) for name, found in choices.items() if len(found) > 1],
        "sorts": values,
        "tiles": tiles,
        "shown": WORDS[lang]["shown"].replace("{}", str(n)),
        "total": block.total or n,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def marked(line: str) -> dict[str, str]:
    """A line of a tile: one that begins with ✓ or ✗ is coloured too."""
    line = line.replace(" %", "\u00a0%")  # a narrow screen breaks the line elsewhere
    for sign, mark in (("✓", "good"), ("✗", "bad")):
        if line.startswith(sign):
            return {"text": line[1:].strip(), "mark": mark}
    return {"text": line, "mark": ""}


def uri(image: bytes) -> str:
    kind = "png" if image.startswith(PNG) else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def embedded(data: dict) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
