"""What both kinds of page share: which columns are numbers, and the page's own few words."""

from __future__ import annotations

import re

from relaunch.trainers.pages.blocks import Table

PNG = b"\x89PNG"
# a cell of a column that stands to the right: 1,234  -0.5  99.1 %  3.2 ± 0.1 s  2.1x  12 / 34  –
NUMBER = re.compile(
    r"[-+−±]?[\d][\d,.]*(e[-+]?\d+)?( ?(±|/|of|to|-|–) ?[-+]?[\d,.]+)?( ?[%×x]| [\w/µ%²]{1,12})?"
    r"|\d[\d,]* (h|min) \d\d (min|s)"
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


def numeric(cells: list[str]) -> bool:
    """Whether a column's cells are numbers, with units or without."""
    told = [cell for cell in cells if cell.strip() not in EMPTY]
    return bool(told) and all(NUMBER.fullmatch(cell.strip()) for cell in told)


def rights(block: Table) -> list[bool]:
    """Of each column, whether it stands to the right; the first one names its row."""
    return [i > 0 and numeric([row[i] for row in block.rows if i < len(row)]) for i in range(len(block.head))]
