"""Blocks as Markdown, for a repository: its pictures lie in a folder beside it.

text = markdown("first", blocks, Path("report_files"))
"""

from __future__ import annotations

import re
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.names import shown
from relaunch.trainers.pages import draw
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

TILES = 24  # of a gallery in Markdown, which nobody can filter
ACROSS = 6
OURS = re.compile(r"\d\d+-[a-z0-9-]+\.(svg|png|webp)")  # names of the pictures that a page writes


def markdown(title: str, blocks: list, folder: Path, lang: str = "en") -> str:
    """The same as Markdown, for a repository. Pictures and charts are written into `folder`, which is made if
    there are any; the page belongs beside it and names them as `FOLDER/NAME`. OSError.
    """
    parts, number = [f"# {plain(title)}"], 0
    for old in folder.iterdir() if folder.is_dir() else ():
        if OURS.fullmatch(old.name):  # of an earlier page
            old.unlink()

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
