"""A sheet of the images whose prediction changed: the image, the truth, and both verdicts.

sheet(images, ids, a, b, names, ["A: first@100   B: first@200"]).save("changed.png")
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from relaunch.trainers.compare.fonts import Fonts

COLUMNS = 8  # tiles in a row
MARGIN, SIDE, LINE = 12, 160, 20  # pixels: around a tile, of the largest image, of a line of text
TEXT, HEADING = 14, 17  # pixels, of the font
INK, GREY, GREEN, RED, EDGE = (20, 20, 20), (120, 120, 120), (0, 122, 61), (196, 30, 36), (205, 205, 205)


def sheet(
    images: np.ndarray,
    ids: np.ndarray,
    a,
    b,
    names: list[str],
    heading: list[str],
    fonts: Fonts | None = None,
) -> Image.Image:
    """A picture with a tile for each of `images`, uint8 [n,H,W,C]: the samples `ids` of Predictions a and b.

    Small images are enlarged by a whole factor, pixel by pixel; large ones shrink.
    """
    fonts = fonts or Fonts([*heading, *said(ids, a, b, names)])
    font, _ = fonts.of("", TEXT)
    columns = min(COLUMNS, max(4, len(ids)))  # four at least: the heading needs the width
    width, height = SIDE + 2 * MARGIN, SIDE + 3 * LINE + 2 * MARGIN
    top = 2 * MARGIN + LINE * len(heading)
    picture = Image.new("RGB", (columns * width + MARGIN, top + -(-len(ids) // columns) * height), "white")
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(heading):
        write(draw, (2 * MARGIN, MARGIN + i * LINE), line, picture.width - 4 * MARGIN, INK, fonts, HEADING)
    for k, (image, i) in enumerate(zip(images, ids)):
        x, y = k % columns * width + 2 * MARGIN, top + k // columns * height
        number, above = f"#{i}", "" if a.truth is None else name_of(a, a.truth[i], names)
        write(draw, (x, y), above, SIDE - draw.textlength(number, font) - 6, INK, fonts)
        draw.text((x + SIDE, y), number, GREY, font, anchor="ra")
        tile = enlarged(image)
        corner = x + (SIDE - tile.width) // 2, y + LINE + (SIDE - tile.height) // 2
        picture.paste(tile, corner)
        draw.rectangle(
            (corner[0] - 1, corner[1] - 1, corner[0] + tile.width, corner[1] + tile.height), outline=EDGE
        )
        for letter, p, line in (("A", a, 1), ("B", b, 2)):
            at = (x, y + SIDE + line * LINE + 4)
            if p.roles.classes:
                sure = None if p.sure is None else p.sure[i]
                verdict(draw, at, letter, names[p.guess[i]], sure, p.guess[i] == p.truth[i], fonts)
            else:
                guess = "" if p.guess is None else f"{name_of(p, p.guess[i], names)}, "
                draw.text(at, letter, GREY, font)
                write(draw, (x + 32, at[1]), f"{guess}loss {p.loss[i]:.4g}", SIDE - 32, INK, fonts)
    return picture


def said(ids: np.ndarray, a, b, names: list[str]) -> list[str]:
    """The class names in a sheet."""
    columns = [c for p in (a, b) if p.roles.classes for c in (p.truth, p.guess)]
    return [names[n] for n in sorted({int(column[i]) for column in columns for i in ids})]


def write(
    draw: ImageDraw.ImageDraw, at, text: str, width: float, colour, fonts: Fonts, size: int = TEXT
) -> None:
    """A line of text, cut to so many pixels, in the font that has its characters."""
    font, text = fonts.of(text, size)
    # by its baseline: fonts stand at different heights
    draw.text((at[0], at[1] + size), shorten(text, width, font), colour, font, anchor="ls")


def name_of(p, value, names: list[str]) -> str:
    """A class by its name, numbers as they are."""
    return names[value] if p.roles.classes else " ".join(f"{v:.4g}" for v in np.atleast_1d(value))


def verdict(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    letter: str,
    name: str,
    sure: float | None,
    right: bool,
    fonts: Fonts,
) -> None:
    """`A ✓ cat 87 %`, in green, or with a cross in red: not by the colour alone."""
    x, y = at
    font, _ = fonts.of("", TEXT)
    colour = GREEN if right else RED
    draw.text((x, y), letter, GREY, font)
    strokes = [((0, 5), (4, 9), (10, 0))] if right else [((0, 0), (9, 9)), ((0, 9), (9, 0))]
    for stroke in strokes:
        draw.line([(x + 16 + dx, y + 3 + dy) for dx, dy in stroke], colour, 2)
    percent = "" if sure is None else f"{100 * sure:.0f} %"
    draw.text((x + SIDE, y), percent, colour, font, anchor="ra")
    write(draw, (x + 32, y), name, SIDE - 38 - draw.textlength(percent, font), colour, fonts)


def enlarged(image: np.ndarray) -> Image.Image:
    """uint8 [H,W,C] as RGB, its longer side at most SIDE pixels and near it."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    longest = max(picture.size)
    if longest > SIDE:
        return picture.resize(
            [max(1, size * SIDE // longest) for size in picture.size], Image.Resampling.LANCZOS
        )
    return picture.resize([size * (SIDE // longest) for size in picture.size], Image.Resampling.NEAREST)


def shorten(text: str, width: float, font) -> str:
    """`text`, cut to so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip(" ,") + "…"
