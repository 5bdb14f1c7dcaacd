"""Encoded images -> uint8 arrays, decoded by a pool of threads (Pillow lets go of the interpreter lock).

A `stream` yields (row, name, encoded bytes) in any order; memory holds one batch of images at a time.
"""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.progress import Progress

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
BATCH = (
    256  # images in flight: 256 photographs of 12 megapixels are 9 GB decoded, so each worker crops its own
)
MAX_PIXELS, MAX_ASPECT = 100_000_000, 100  # a small file can claim, or become when resized, a huge image


def is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def measure(streams: list[Iterator], total: int, size: int | None, show: bool) -> tuple[int, int, int]:
    """The common (H, W, C) of all images, from their headers; C is 1 only if every one is grey.

    Failure 64 if they differ in size and no `size` is given, 65 naming those that are not images.
    """
    first: tuple[str, tuple[int, int]] | None = None  # the first image's name and (height, width)
    grey, broken = True, []
    with Progress("looking at the images", total, "images", show) as progress:
        for stream in streams:
            for batch in _mapped(_header, stream):
                for _, name, header in batch:
                    if header is None:
                        broken.append(name)
                        continue
                    shape, mode = header
                    first = first or (name, shape)
                    grey &= mode in ("1", "L")
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
    if size:
        return size, size, 1 if grey else 3
    assert first, "recipes refuse a source without images"
    height, width = first[1]
    return height, width, 1 if grey else 3


def decode(
    stream: Iterator, shape: tuple[int, int, int], total: int, what: str, show: bool
) -> Iterator[tuple[list[int], list]]:
    """Yields (rows, images uint8 [H,W,C]) for Writer.images. Failure 65 names all that cannot be decoded.

    An image of another size gets its short side resized and its centre cropped, as torchvision's Resize and
    CenterCrop do.
    """
    broken = []
    with Progress(what, total, "images", show) as progress:
        for batch in _mapped(lambda content: _pixels(content, *shape), stream):
            broken += [name for _, name, pixels in batch if pixels is None]
            yield (
                [row for row, _, pixels in batch if pixels is not None],
                [p for _, _, p in batch if p is not None],
            )
            progress.add(len(batch))
        _refuse(broken)


def _mapped(work, stream: Iterator) -> Iterator[list[tuple]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        while batch := list(islice(stream, BATCH)):
            results = pool.map(work, [content for _, _, content in batch])
            yield [(row, name, result) for (row, name, _), result in zip(batch, results)]


def _open(content: bytes):
    from PIL import Image

    image = Image.open(io.BytesIO(content))
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError("no photograph is that large or that thin")
    return image


def _header(content: bytes):
    try:
        image = _open(content)
    except Exception:  # Pillow's decoders raise nearly anything on damaged input; the caller names the file
        return None
    return (image.height, image.width), image.mode


def _pixels(content: bytes, height: int, width: int, channels: int):
    from PIL import Image

    try:
        image = _open(content).convert("RGB" if channels == 3 else "L")
    except Exception:  # as above
        return None
    if image.size != (width, height):
        scale = max(width / image.width, height / image.height)
        scaled = max(width, int(image.width * scale)), max(height, int(image.height * scale))
        image = image.resize(scaled, Image.Resampling.BILINEAR)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, dtype=np.uint8).reshape(height, width, channels)


def _refuse(broken: list[str]) -> None:
    if broken:
        more = f" and {len(broken) - 5:,} more" if len(broken) > 5 else ""
        raise Failure(
            DATA,
            f"{len(broken):,} of the images cannot be decoded: {', '.join(sorted(broken)[:5])}{more}",
            "replace or remove them",
        )
