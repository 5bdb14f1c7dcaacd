"""Names as people see and type them: shown without driving a terminal, aligned, pasted, and found again.

printable("red\\x1b[31m")                       # the escape as four visible characters
command(["relaunch", "train", "my net.py"])    # can be pasted into a shell
table([["class", "n"], ["猫", "3"]])           # lines, aligned by what a terminal shows
offered("digts", ["digits", "mnist"])          # did you mean digits? there are digits, mnist
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

# no visible characters, yet what Persian, Indic names and emoji are spelled with; two spaces
SPELLED = "\u200c\u200d\u3000\xa0"
LISTED = 8  # names that a message lists: more are read by nobody


def printable(name: str) -> str:
    """`name` with what is no visible character (control, direction, half a surrogate) as an escape, \\x1b."""
    if name.isprintable():
        return name
    return "".join(
        char if char.isprintable() or char in SPELLED else char.encode("unicode_escape").decode("ascii")
        for char in name
    )


def shown(text: str) -> str:
    """Lines as a terminal gets them: all but line breaks and tabs is `printable`."""
    return re.sub(r"[^\n\t]+", lambda part: printable(part[0]), text)


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few of several names, in order, for a message: `cat, dog and 3 more`."""
    return listed(sorted(names), limit)


def listed(names: Iterable[str], limit: int = LISTED) -> str:
    """The same in the order that they have."""
    words = [*map(printable, names)]
    more = f" and {len(words) - limit:,} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


# aligned ------------------------------------------------------------------------------------------


def width(text: str) -> int:
    """Columns that a terminal gives to printable text: East Asian wide characters take two, accents none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf") or "\u1160" <= char <= "\u11ff":  # Hangul in parts
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shortened(name: str, columns: int) -> str:
    """`name`, made printable and cut to so many columns."""
    name = printable(name)
    if width(name) <= columns:
        return name
    while width(name) > columns - 1:
        name = name[:-1]
    return name + "…"


def padded(text: str, columns: int, right: bool = False) -> str:
    space = " " * (columns - width(text))
    return space + text if right else text + space


def table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Aligned lines: the first `left` columns to the left, the others to the right; all cells printable."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells)]
    return [
        "  ".join(padded(cell, w, i >= left) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
        for row in cells
    ]


# typed --------------------------------------------------------------------------------------------


def quoted(word: str) -> str:
    """A word as a shell reads it: `'my run'`; with control characters as bash and zsh do, `$'a\\x1b'`."""
    if printable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_ansi_c, word)) + "'"


def _ansi_c(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if printable(char) == char:
        return char
    lost = "\udc80" <= char <= "\udcff"  # a byte of a file's name that is not UTF-8
    return "".join(
        f"\\x{b:02x}" for b in char.encode("utf-8", "surrogateescape" if lost else "surrogatepass")
    )


def command(words: Iterable[str]) -> str:
    """A command line as a person pastes it. What a program takes apart again is shlex.join's."""
    return " ".join(map(quoted, words))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever its case; else one that holds the word, or is held."""
    folded = {_folded(name): name for name in known}
    word = _folded(word)
    near = difflib.get_close_matches(word, list(folded), 1)
    if not near and len(word) >= 3:
        near = [name for name in folded if word in name or len(name) >= 3 and name in word]
    return folded[near[0]] if near else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def beside(path: str) -> list[str]:
    """The paths that lie where `path` would; none if that folder cannot be read."""
    folder = os.path.dirname(path)
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder or "."))
    except OSError:
        return []


def offered(word: str, known: Iterable[str], lead: str = "", limit: int = LISTED) -> str:
    """The fix of a name that is not there: the nearest one, and what there is; empty if there is nothing.

    `lead` stands before the list, else `there are`. Names are as a shell takes them.
    """
    names = list(known)
    if not names:
        return ""
    near = nearest(word, names)
    lead = lead or ("there is" if len(names) == 1 else "there are")
    return f"{f'did you mean {quoted(near)}? ' if near else ''}{lead} {listed(map(quoted, names), limit)}"
