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

from relaunch.data_prep import VERSION, files
from relaunch.data_prep.names import shown
from relaunch.trainers.pages import draw, theme
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

# a cell of a column that stands to the right: 1,234  -0.5  99.1 %  3.2 ± 0.1 s  2.1x  12 / 34  –
NUMBER = re.compile(
    r"[-+−±]?[\d][\d,.]*(e[-+]?\d+)?( ?(±|/|of|to|-|–) ?[-+]?[\d,.]+)?( ?[%×x]| [\w/µ%²]{1,12})?"
)
EMPTY = ("", "–", "-", "—")
WORDS = {
    "en": {
        "contents": "Contents",
        "all": "all",
        "order": "order",
        "as_given": "as listed",
        "shown": "{} of {} shown",
        "made": "Made by",
        "gallery": "The first {} of {}.",
    },
    "zh": {
        "contents": "目录",
        "all": "全部",
        "order": "排序",
        "as_given": "默认",
        "shown": "显示 {} / {}",
        "made": "生成工具：",
        "gallery": "前 {} 张，共 {} 张。",
    },
}
TILES = 24  # of a gallery in Markdown, which nobody can filter
ACROSS = 6


def numeric(cells: list[str]) -> bool:
    """Whether a column's cells are numbers, with units or without."""
    told = [cell for cell in cells if cell.strip() not in EMPTY]
    return bool(told) and all(NUMBER.fullmatch(cell.strip()) for cell in told)


def rights(block: Table) -> list[bool]:
    """Of each column, whether it stands to the right."""
    return [numeric([row[i] for row in block.rows if i < len(row)]) for i in range(len(block.head))]


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
        if entry["kind"] == "Charts" == last.get("kind") and entry["wide"] == last["wide"]:
            last["charts"] += entry["charts"]  # two beside each other
        else:
            shown_blocks.append(entry)
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
        chart = {"caption": block.caption, "svg": Markup(block.svg), "data": Markup(embedded(block.data))}
        return {"kind": "Charts", "wide": block.wide, "charts": [chart]}
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
    for sign, mark in (("✓", "good"), ("✗", "bad")):
        if line.startswith(sign):
            return {"text": line[1:].strip(), "mark": mark}
    return {"text": line, "mark": ""}


PNG = b"\x89PNG"


def uri(image: bytes) -> str:
    kind = "png" if image.startswith(PNG) else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def embedded(data: dict) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# Markdown -----------------------------------------------------------------------------------------


def markdown(title: str, blocks: list, folder: Path, lang: str = "en") -> str:
    """The same as Markdown, for a repository. Pictures and charts are written into `folder`, which is made if
    there are any; the page belongs beside it and names them as `FOLDER/NAME`. OSError.
    """
    parts, number = [f"# {plain(title)}"], 0

    def picture(content: str | bytes, alt: str, ending: str) -> str:
        nonlocal number
        number += 1
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{number:02}-{_slug(alt)}.{ending}"
        files.write_atomic(folder / name, content)
        place = "/".join(
            re.sub(r"[^\w.-]", lambda m: f"%{ord(m[0]):02X}", p, flags=re.ASCII) for p in (folder.name, name)
        )
        return f"![{plain(alt)}]({place})"

    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {plain(block.text)}")
        elif isinstance(block, Prose):
            parts += [plain(p) for p in block.text.split("\n\n") if p.strip()]
        elif isinstance(block, Note):
            parts.append(f"> {plain(block.text)}")
        elif isinstance(block, Code):
            parts.append(fenced(block.text))
        elif isinstance(block, Facts):
            parts.append(grid(["", ""], [list(row) for row in block.rows], [False, False]))
        elif isinstance(block, Table):
            parts += [plain(block.caption)] * bool(block.caption)
            parts.append(grid(block.head, block.rows, rights(block)))
        elif isinstance(block, Chart):
            parts += [f"**{plain(block.caption)}**", picture(draw.alone(block.svg), block.caption, "svg")]
        elif isinstance(block, Picture):
            parts.append(picture(block.png, block.alt, "png"))
            parts += [plain(block.caption)] * bool(block.caption)
        elif isinstance(block, Gallery):
            parts += [plain(block.caption)] * bool(block.caption)
            parts += _tiles(block, picture, lang)
        else:
            raise TypeError(f"{type(block).__name__} is no block of a page")
    return "\n\n".join(parts) + "\n"


def _tiles(block: Gallery, picture, lang: str) -> list[str]:
    some, cells = block.items[:TILES], []
    for item in some:
        ending = "png" if item.image.startswith(PNG) else "webp"
        image = [picture(item.image, item.title, ending)] if item.image else []
        cells.append("<br>".join([f"**{plain(item.title)}**", *image, *map(plain, item.lines)]))
    rows = [cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)]
    if not rows:
        return []
    wide = len(rows[0])
    lines = ["|" + "   |" * wide, "|" + "---|" * wide]
    lines += ["| " + " | ".join(row + [""] * (wide - len(row))) + " |" for row in rows]
    said = WORDS[lang]["gallery"].replace("{}", f"{len(some):,}", 1)
    more = [said.replace("{}", f"{len(block.items):,}")] if len(block.items) > len(some) else []
    return [*more, "\n".join(lines)]


def grid(head: list[str], rows: list[list[str]], right: list[bool]) -> str:
    lines = [
        "| " + " | ".join(map(plain, head)) + " |",
        "|" + "|".join("---:" if r else "---" for r in right) + "|",
    ]
    return "\n".join([*lines, *("| " + " | ".join(map(plain, row)) + " |" for row in rows)])


def plain(text: str) -> str:
    """A text as Markdown shows it: no mark-up, no HTML, one line."""
    text = " ".join(shown(str(text)).split())
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def fenced(text: str) -> str:
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown(text).rstrip()}\n{fence}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "picture"
