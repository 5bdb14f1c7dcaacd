"""Encoded images -> uint8 arrays, decoded by a pool of threads (Pillow lets go of the interpreter lock).

A `stream` yields (row, name, encoded bytes) in any order; memory holds one batch of images at a time. An
image is turned upright as its EXIF orientation says, and deeper than 8 bits it is scaled by its depth.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice

import numpy as np

from relaunch.data_prep import limits
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import some
from relaunch.data_prep.progress import Progress
from relaunch.data_prep.tally import Tally

RULES = 2  # how images become pixels: 1 knew neither orientation nor depth; noted in meta.json
# Pillow runs Ghostscript for EPS; of the others it knows the name, and not how to read them
NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
BATCH = (
    256  # images in flight: 256 photographs of 12 megapixels are 9 GB decoded, so each worker crops its own
)
MAX_PIXELS, MAX_ASPECT = 100_000_000, 100  # a small file can claim, or become when resized, a huge image
ORIENTATION = 0x112  # EXIF's tag: 1 is upright, from 5 on width and height are exchanged
HAS_EXIF = (b"Exif", b"eXIf", b"EXIF", b"Raw profile type", b"iff:Orientation")  # somewhere in the file


@cache
def _readable() -> tuple[list[str], tuple[str, ...]]:
    """(the formats that Pillow reads, the endings of their files)."""
    from PIL import Image

    endings = Image.registered_extensions()  # loads all its formats
    formats = [name for name in Image.OPEN if name not in NOT_READ]
    return formats, tuple(ending for ending, name in endings.items() if name in formats)


def is_image(name: str) -> bool:
    """Whether Pillow reads files of this ending as images."""
    return name.lower().endswith(_readable()[1])


def is_encoded(content: object) -> bool:
    """Whether bytes are an image that can be opened."""
    return isinstance(content, bytes) and not isinstance(_header(content), str)


def measure(
    streams: list[Iterator], total: int, size: int | None, show: bool, changed: Tally
) -> tuple[int, int, int]:
    """The common (H, W, C) of all images, from their headers; C is 1 only if every one is grey. `changed`
    counts those that are not packed as they are.

    Failure 64 if they differ in size and no `size` is given, 65 naming those that are not images.
    """
    first: tuple[str, tuple[int, int]] | None = None  # the first image's name and (height, width)
    grey, broken = Tally(), dict[str, list[str]]()
    looked = 0
    with Progress("looking at the images", total, "images", show) as progress:
        for stream in streams:
            for batch in _mapped(_header, stream):
                for _, name, header in batch:
                    if isinstance(header, str):
                        broken.setdefault(header, []).append(name)
                        continue
                    shape, is_grey, changes = header
                    first, looked = first or (name, shape), looked + 1
                    if is_grey:
                        grey.add("grey images that became RGB, as others have colour", name)
                    for change in changes:
                        changed.add(change, name)
                    if shape != first[1] and not size:
                        raise Failure(
                            USAGE,
                            "the images differ in size: {} is {}x{}, {} is {}x{}".format(
                                *(first[0], *first[1][::-1]), *(name, *shape[::-1])
                            ),
                            "add --size N to resize the short side to N and crop the centre, e.g. --size 64",
                        )
                progress.add(len(batch))
    _refuse(broken)
    greys = sum(count for count, _ in grey.found.values())
    if greys < looked:
        changed.found.update(grey.found)
    channels = 1 if greys == looked else 3
    if size:
        return size, size, channels
    assert first, "recipes refuse a source without images"
    return *first[1], channels


def decode(
    stream: Iterator, shape: tuple[int, int, int], total: int, what: str, show: bool
) -> Iterator[tuple[list[int], list]]:
    """Yields (rows, images uint8 [H,W,C]) for Writer.images. Failure 65 names all that cannot be decoded.

    An image of another size gets its short side resized and its centre cropped, as torchvision's Resize and
    CenterCrop do.
    """
    broken = dict[str, list[str]]()
    with Progress(what, total, "images", show) as progress:
        for batch in _mapped(lambda content: _pixels(content, *shape), stream):
            for _, name, pixels in batch:
                if isinstance(pixels, str):
                    broken.setdefault(pixels, []).append(name)
            whole = [(row, pixels) for row, _, pixels in batch if not isinstance(pixels, str)]
            yield [row for row, _ in whole], [pixels for _, pixels in whole]
            progress.add(len(batch))
        _refuse(broken)


def pixels(name: str, content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [H,W,C] of one encoded image, as `decode` makes it. Failure 65."""
    found = _pixels(content, *shape)
    if isinstance(found, str):
        _refuse({found: [name]})
    return found


def upright(name: str, content: bytes, channels: int):
    """A PIL image of one encoded image, of its own size, with 1 or 3 channels of 8 bits. Failure 65."""
    found = _upright(content, channels)
    if isinstance(found, str):
        _refuse({found: [name]})
    return found


def _mapped(work, stream: Iterator) -> Iterator[list[tuple]]:
    with ThreadPoolExecutor(limits.cpus()) as pool:
        while batch := list(islice(stream, BATCH)):
            results = pool.map(work, [content for _, _, content in batch])
            yield [(row, name, result) for (row, name, _), result in zip(batch, results)]


BROKEN = "cannot be decoded"
UNKNOWN_RANGE = "have pixels of more than 16 bits, whose range is not known"


def _open(content: bytes):
    from PIL import Image

    image = Image.open(io.BytesIO(content), formats=_readable()[0])
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError("no photograph is that large or that thin")
    if image.format == "TIFF" and _orientation(image, content) > 1:
        image.load()  # newer versions of Pillow turn a TIFF while they load it
        image.info["upright"] = True
    return image


def _orientation(image, content: bytes) -> int:
    if image.format not in ("TIFF", "AVIF") and not any(mark in content for mark in HAS_EXIF):
        return 1  # without asking Pillow, which may decode the whole image for it
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF, in any of many ways: the image itself may be good
        return 1


def _frames(image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a later frame is damaged: only the first is wanted
        return True


def _png16(image, content: bytes) -> int | None:
    """The colour type (0 grey, 2 RGB, 4 grey with alpha, 6 RGBA) of a PNG of 16 bits, else None."""
    return content[25] if image.format == "PNG" and content[24] == 16 else None


def _header(content: bytes):
    """((height, width) upright, grey, what will be changed), or why it cannot be read."""
    try:
        image = _open(content)
    except Exception:  # Pillow's decoders raise nearly anything on damaged input; the caller names the file
        return BROKEN
    deep = _depth(image)
    if deep is None:
        return UNKNOWN_RANGE
    turned, colour = _orientation(image, content), _png16(image, content)
    grey = image.mode in ("1", "L", "LA", "La") or deep > 8 or colour in (0, 4)
    changes = []
    if 1 < turned <= 8 or "upright" in image.info:
        changes.append("images that were turned upright, as their EXIF says")
    if deep > 8 or colour is not None:
        changes.append("images of more than 8 bits that were scaled to 8")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        changes.append("images that lost their transparency")
    elif not grey and image.mode not in ("P", "RGB"):
        changes.append(f"images that became RGB, from {image.mode}")
    if _frames(image):
        changes.append("images of several frames, of which the first was taken")
    return image.size if 4 < turned <= 8 else image.size[::-1], grey, changes


def _depth(image) -> int | None:
    """Bits of a pixel's channel as Pillow gives it: 8, or up to 16 for grey; None for an unknown range."""
    if image.mode.startswith("I;16") and image.format != "FITS":
        return image.tag_v2.get(258, (16,))[0] if image.format == "TIFF" else 16  # 258: bits per sample
    if image.mode == "I" and image.format in ("PPM", "PNG"):
        return 16  # as PPM scales them, and as older versions of Pillow open a PNG
    return None if image.mode[0] in "IF" else 8


def _eight_bits(image, content: bytes):
    """The image with 8 bits a channel: value v of b bits becomes v * 255 / (2**b - 1), rounded."""
    from PIL import Image

    depth = _depth(image)
    assert depth is not None, "looked at before"
    if depth > 8:
        return Image.fromarray(np.rint(np.asarray(image) * (255 / ((1 << depth) - 1))).astype(np.uint8))
    rawmode = {2: "RGB;16L", 6: "RGBA;16L"}.get(_png16(image, content) or 0)
    if rawmode is None:
        return image
    low = _open(content)  # Pillow keeps the high byte only; read as if the low one came last, it gives that
    low.tile = [(*part[:3], rawmode) for part in low.tile]
    value = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
    return Image.fromarray(np.rint(value / 257).astype(np.uint8))


def _upright(content: bytes, channels: int):
    from PIL import Image

    try:
        image = _open(content)
        if _depth(image) is None:
            return UNKNOWN_RANGE
        image.load()
        turned = _orientation(image, content)
        image = _eight_bits(image, content).convert("RGB" if channels == 3 else "L")
    except Exception:  # as above
        return BROKEN
    if 1 < turned <= 8:
        image = image.transpose(
            (
                Image.Transpose.FLIP_LEFT_RIGHT,
                Image.Transpose.ROTATE_180,
                Image.Transpose.FLIP_TOP_BOTTOM,
                Image.Transpose.TRANSPOSE,
                Image.Transpose.ROTATE_270,
                Image.Transpose.TRANSVERSE,
                Image.Transpose.ROTATE_90,
            )[turned - 2]
        )
    return image


def _pixels(content: bytes, height: int, width: int, channels: int):
    from PIL import Image

    image = _upright(content, channels)
    if isinstance(image, str):
        return image
    if image.size != (width, height):
        scale = max(width / image.width, height / image.height)
        scaled = max(width, int(image.width * scale)), max(height, int(image.height * scale))
        image = image.resize(scaled, Image.Resampling.BILINEAR)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)


def _refuse(broken: dict[str, list[str]]) -> None:
    for why, names in broken.items():
        raise Failure(
            DATA,
            f"{len(names):,} of the images {why}: {some(names)}",
            "replace them" if why == BROKEN else "save them with 8 or 16 bits, scaled as you mean it",
        )
