"""The originals of a packed set's split, one at a time: what a data loader without packing would read.

    found = originals(packed, Path("tiny-imagenet-200"))
    found.pixels(7), found.labels[7]       # those of row 7 of the packed train split
    originals(packed, Path("photos"), "val").picture(7)     # before it was resized for packing

Of sets that lie in a few files (MNIST's idx, CIFAR-10's batches, scikit-learn's digits) the source is read
into memory once and each sample is cut out of it, as torchvision.datasets.MNIST and CIFAR10 do. Of folders
each sample is a file that is read and decoded when it is wanted, as torchvision.datasets.ImageFolder does.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np

from relaunch.data_prep import digits
from relaunch.data_prep.archive import open_source
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.images import pixels, upright
from relaunch.data_prep.names import printable, quoted
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.splits import Holdout

ARRAYS, FILES = ("mnist", "cifar10"), ("tiny_imagenet", "folder")  # recipes
LOOKED_AT = 8  # samples that are compared with the packed ones


class InMemory:
    """`images` uint8 [N,H,W,C]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def pixels(self, row: int) -> np.ndarray:
        """uint8 [H,W,C]."""
        return self.images[row]

    def picture(self, row: int):
        """A PIL image."""
        from PIL import Image

        image = self.pixels(row)
        return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)

    def take(self, rows: np.ndarray) -> None:
        """Only these, in this order."""
        self.images, self.labels = self.images[rows], self.labels[rows]


class Digits(InMemory):
    """`images` uint8 [N,8,8], enlarged one by one."""

    def pixels(self, row: int) -> np.ndarray:
        return digits.enlarged(self.images[row])[..., None]


class Files:
    """`names` [N], below `folder`; `shape` [H,W,C] is what they were packed to."""

    def __init__(self, folder: Path, names: np.ndarray, labels: np.ndarray, shape: tuple[int, int, int]):
        self.folder, self.names, self.labels, self.shape = folder, names, labels, shape

    def pixels(self, row: int) -> np.ndarray:
        """uint8 [H,W,C]. Failure 65 where the file is gone or damaged."""
        return pixels(str(self.names[row]), self.content(row), self.shape)

    def picture(self, row: int):
        """A PIL image of its own size, upright, RGB or grey as it was packed. Failure 65 as above."""
        return upright(str(self.names[row]), self.content(row), self.shape[2])

    def content(self, row: int) -> bytes:
        path = self.folder / str(self.names[row])
        try:
            return path.read_bytes()
        except OSError as error:
            raise Failure(DATA, f"{path} cannot be read ({error.strerror})", "put it back") from None

    def take(self, rows: np.ndarray) -> None:
        """Only these, in this order."""
        self.names, self.labels = self.names[rows], self.labels[rows]


def originals(packed: Packed, path: Path | None, split: str = "train") -> InMemory | Files:
    """Those of a split of `packed`, below `path`, or where prep has downloaded them to.

    Failure 64 for a set that was not packed from images in files, and where no place is known; 65 where what
    lies there is not what was packed: the labels are compared, and a few images.
    """
    recipe = packed.meta.get("recipe")
    if recipe == "digits":
        scans, labels, test = digits.scans()
        wanted = test if split == "test" else ~test
        found: InMemory | Files = Digits(scans[wanted], labels[wanted])
    elif recipe in ARRAYS + FILES:
        place = path or downloaded(packed)
        if place is None:
            came = printable(str(packed.meta["source"].get("file", "its source")))
            what = f"--input raw has no place of the originals of {packed.name}, packed from {came}"
            raise Failure(USAGE, what, "add --raw PATH, the folder or archive that prep was given")
        found = below(packed, place, recipe, split)
    else:
        what = f"--input raw reads images in files, and {packed.name} was packed by the recipe {recipe}"
        raise Failure(USAGE, what, "leave --input raw out")
    if (held := holdout(packed)) and split != "test":
        out = held.rows(found.labels)
        found.take(np.flatnonzero(out if split == "val" else ~out))
    compare(packed, found, split)
    return found


def holdout(packed: Packed) -> Holdout | None:
    """What was taken out of train as val when a set was packed."""
    fraction, count = (packed.meta["options"].get(name) for name in ("val_fraction", "holdout"))
    return Holdout(fraction, count) if fraction or count else None


def below(packed: Packed, place: Path, recipe: str, split: str) -> InMemory | Files:
    if not place.exists():
        raise Failure(DATA, f"--raw: there is no {place}", "check the path")
    module = import_module(f"relaunch.data_prep.{recipe}")
    if recipe in FILES and place.is_file():
        tool = "unzip -q" if place.suffix == ".zip" else "tar xf"
        into = f"{'-d' if place.suffix == '.zip' else '-C'} FOLDER"
        what = f"--input raw reads each image's own file, and {place} is an archive"
        raise Failure(USAGE, what, f"{tool} {quoted(str(place))} {into}, and give --raw FOLDER")
    source = open_source(place)
    roles = module.find(source) or getattr(module, "find_whole", lambda source: None)(source)
    if not roles:
        raise Failure(DATA, f"--raw {place} is not {module.TITLE}: it lacks {module.NEEDS}", "check the path")
    if holdout(packed) and split == "val":
        split = "train"
    if recipe in ARRAYS:
        images, labels = module.read(source, roles, split)
        return InMemory(images, labels.astype(np.int64))
    names, labels = module.rows(source, roles, split)
    if not names and holdout(packed):  # whose own val is test
        names, labels = module.rows(source, roles, "val")
    height, width, channels = packed.meta["splits"]["train"]["shape"]
    return Files(place, np.array(names), np.array(labels, np.int64), (height, width, channels))


def downloaded(packed: Packed) -> Path | None:
    """Where prep has put the official files of a set, if it has."""
    recipe = packed.meta["recipe"]
    folder, module = packed.path.parent / ".downloads" / recipe, import_module(f"relaunch.data_prep.{recipe}")
    files = [folder / name for name in getattr(module, "URLS", {})]
    if not files or not all(file.exists() for file in files):
        return None
    return folder if len(files) > 1 else files[0]


def compare(packed: Packed, found: InMemory | Files, split: str) -> None:
    """Failure 65 unless these are the images and labels that were packed."""
    labels, images = packed.labels(split), packed.images(split)
    again = f"give --raw the source of {packed.name}, or prep it under another name"
    if not np.array_equal(found.labels, labels):
        what = (
            f"the originals are not what {packed.name} was packed from: {len(found.labels):,} {split} images"
        )
        raise Failure(DATA, f"{what} and {len(labels):,} packed, or other labels", again)
    for row in np.linspace(0, len(labels) - 1, min(LOOKED_AT, len(labels))).astype(int):
        if not np.array_equal(found.pixels(int(row)), images[row]):
            what = f"image {row} of the originals is not the one that was packed into {packed.name}"
            raise Failure(DATA, what, f"{again}: another Pillow may decode it otherwise, too")
