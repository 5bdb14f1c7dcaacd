"""What a page is made of: a list of these, from which page.py makes HTML and Markdown.

    [Heading("Results"), Table(["run", "top1"], [["first", "99.1 %"]]), charts.lines(…)]

All texts are plain: whatever they hold, page.py escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2  # 2 or 3; level 1 is the page's title
    id: str = ""  # where a link leads; made from the text if empty


@dataclass(frozen=True)
class Prose:
    text: str  # an empty line begins a new paragraph


@dataclass(frozen=True)
class Facts:
    rows: list[tuple[str, str]]  # (what, its value), a line each


@dataclass(frozen=True)
class Table:
    head: list[str]
    rows: list[list[str]]  # a cell for each of `head`; columns of numbers stand to the right by themselves
    caption: str = ""
    sortable: bool = False  # by a click on a column's head


@dataclass(frozen=True)
class Chart:
    svg: str  # an <svg> element that charts.py made; texts in it are escaped already
    caption: str
    data: dict  # the drawn points, as JSON can hold them: {"x": …, "y": …, "series": {name: [[x, y], …]}}
    wide: bool = False  # takes the page's width, not half of it


@dataclass(frozen=True)
class Picture:
    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Note:
    """What is missing, and which command fills it in."""

    text: str


@dataclass(frozen=True)
class Item:
    """One image of a gallery."""

    image: bytes  # PNG or WebP; empty: only the words are shown
    title: str  # above it: `#12 cat`
    lines: list[str] = field(default_factory=list)  # below it
    groups: dict[str, str] = field(default_factory=dict)  # what one can filter by: {"class": "cat"}
    values: dict[str, float] = field(default_factory=dict)  # what one can sort by: {"confidence": 0.93}


@dataclass(frozen=True)
class Gallery:
    """Images that a reader filters by `groups` and sorts by `values`; shown in the order of `items` first."""

    items: list[Item]
    total: int = 0  # of how many these are; 0: all
    caption: str = ""
