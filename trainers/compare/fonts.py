"""Fonts that have the characters of names, for pictures: Pillow's own, then what is installed here.

font, text = Fonts(["猫", "cat"]).of("猫", 14)    # the text as that font can draw it

Pillow's own has little more than ASCII. What no font here has is drawn as its code point, not as a box.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

from relaunch.data_prep.names import printable

FOLDERS = (  # in the order of the search, where fontconfig is not there to ask
    f"{sysconfig.get_path('purelib')}/matplotlib/mpl-data/fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
)
ENDINGS = (".ttf", ".otf", ".ttc")
PREFERRED = ("sans", "regular", "cjk")  # of the faces that have a character: upright, of even strokes
TRIED = 200  # faces looked into for one character: a second or so
SIZE = 14  # pixels at which coverage is looked at

Face = tuple[str, int]  # file and number in it; ("", 0) is Pillow's own


@cache
def load(face: Face, size: int) -> ImageFont.FreeTypeFont | None:
    """None for what Pillow cannot scale, such as a font of coloured bitmaps."""
    try:
        return ImageFont.truetype(face[0], size, face[1]) if face[0] else ImageFont.load_default(size)
    except OSError:
        return None


@cache
def has(face: Face, char: str) -> bool:
    """Whether a face can draw a character: what it lacks looks like a code point that nobody may use."""
    if unicodedata.category(char) == "Cf":  # joins others, and is not drawn
        return True
    font = load(face, SIZE)
    if font is None:
        return False
    mask, lacking = font.getmask(char), font.getmask("\U0010ffff")
    return mask.size != lacking.size or bytes(mask) != bytes(lacking)


@cache
def files(folders: tuple[str, ...]) -> list[Face]:
    below = (path for folder in folders for path in Path(folder).expanduser().rglob("*"))
    return [(str(path), 0) for path in below if path.suffix.lower() in ENDINGS]


def installed(char: str) -> Iterator[Face]:
    """Faces of this machine that may have the character, the likeliest first."""
    found: list[Face] = []
    if shutil.which("fc-list"):
        asked = ["fc-list", f":charset={ord(char):x}", "--format", "%{file}\t%{index}\n"]
        said = subprocess.run(asked, capture_output=True, text=True, errors="replace").stdout
        lines = [line.split("\t") for line in said.splitlines()]
        found = [(file, int(number) & 0xFFFF) for file, number in lines]  # above them: a named instance
    found += files(FOLDERS[:1] if found else FOLDERS)

    def order(face: Face) -> tuple:
        name = Path(face[0]).name.lower()
        styled = any(word in name for word in ("bold", "italic", "oblique", "mono", "light", "condensed"))
        return styled, -sum(word in name for word in PREFERRED), len(name), face

    yield from sorted({face for face in found if face[0].lower().endswith(ENDINGS)}, key=order)[:TRIED]


def composed(text: str) -> str:
    """With accented letters as one character, as fonts have them."""
    return unicodedata.normalize("NFC", printable(text))


class Fonts:
    """The faces that draw all of `texts`, as far as there are any here; `lacking`: what none of them has."""

    def __init__(self, texts: Iterable[str]):
        self.faces: list[Face] = [("", 0)]
        self.lacking = ""
        for char in sorted(set("".join(map(composed, texts)))):
            if not any(has(face, char) for face in self.faces):
                face = next((face for face in installed(char) if has(face, char)), None)
                if face:
                    self.faces.append(face)
                else:
                    self.lacking += char

    def of(self, text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
        """The first face that has most of a text, and the text with code points for what it lacks."""
        text = composed(text)
        face = max(self.faces, key=lambda face: sum(has(face, char) for char in text))
        drawn = "".join(c if has(face, c) else c.encode("unicode_escape").decode("ascii") for c in text)
        return load(face, size) or ImageFont.load_default(size), drawn
