"""Small sources in the shape of the real ones, for the tests of data_prep."""

import gzip
import io
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


def prep(*args) -> list[str]:
    """`relaunch prep` as a command line for subprocess."""
    return [sys.executable, "-m", "relaunch.data_prep.prep", *map(str, args)]


def idx(array: np.ndarray) -> bytes:
    return (
        struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )


def mnist(folder: Path, train=30, test=10, compress=True) -> dict:
    """Four IDX files; returns {split: (images, labels)}."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for split, stem, count in (("train", "train", train), ("test", "t10k", test)):
        images, labels = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count) % 10
        content[split] = images, labels
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            name = f"{stem}-{kind}-ubyte"
            (folder / (name + ".gz" if compress else name)).write_bytes(
                gzip.compress(data) if compress else data
            )
    return content


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2's str, which is what CIFAR-10's pickles are made of."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        head = (
            b"U" + struct.pack("B", len(value)) if len(value) < 256 else b"T" + struct.pack("<i", len(value))
        )
        self.write(head + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2(value) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, 2).dump(value)
    return stream.getvalue()


def cifar10(path: Path, rows=4, **replace) -> np.ndarray:
    """cifar-10-python.tar.gz, `replace` in place of its files; returns the train rows [5*rows, 3072]."""
    pixels = RNG.integers(0, 256, (6 * rows, 3072), dtype=np.uint8)
    files = {"batches.meta": python2({b"label_names": [b"class%d" % k for k in range(10)], b"num_vis": 3072})}
    for k, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        part = slice(k * rows, (k + 1) * rows)
        files[name] = python2(
            {b"batch_label": b"x", b"labels": [i % 10 for i in range(rows)], b"data": pixels[part]}
        )
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (files | replace).items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return pixels[: 5 * rows]


def picture(mode="RGB", size=(64, 64), format="PNG", value=None) -> bytes:
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def saved(image: Image.Image, format="PNG", **how) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **how)
    return stream.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits: [H,W] grey, [H,W,2] grey with alpha, [H,W,3] RGB; Pillow itself writes only grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = {2: 0, 3: {2: 4, 3: 2}.get(pixels.shape[-1])}[pixels.ndim]
    head = struct.pack(">2I5B", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)  # 0: no filter
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sideways(orientation=6, format="JPEG", size=(24, 16)) -> bytes:
    """A white bar at the top, and the EXIF orientation by which it belongs elsewhere: 6 is the right edge."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 4] = 255
    exif = Image.Exif()
    exif[0x112] = orientation
    return saved(Image.fromarray(pixels), format, exif=exif, **({"quality": 95} if format != "PNG" else {}))


def zip_of(path: Path, files: dict) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # no times: equal bytes
    return path


def tree_of(folder: Path, files: dict) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def tiny_imagenet_files(train=3) -> dict:
    """Two classes, `train` train and two val images each; the first train image is grey."""
    files = {
        "wnids.txt": "n02\nn01\n",
        "words.txt": "n01\ttench, fish\nn02\tgoldfish\nn99\tother\n",
        "val/val_annotations.txt": "",
    }
    for number, wnid in enumerate(("n02", "n01")):
        for k in range(train):
            grey = wnid == "n01" and k == 0
            files[f"train/{wnid}/images/{wnid}_{k}.JPEG"] = picture(
                "L" if grey else "RGB", format="JPEG", value=77 if grey else None
            )
        for k in range(2):
            name = f"val_{2 * k + number}.JPEG"
            files[f"val/images/{name}"] = picture(format="JPEG")
            files["val/val_annotations.txt"] += f"{name}\t{wnid}\t0\t0\t62\t62\n"
    return {f"tiny-imagenet-200/{name}": content for name, content in files.items()}


def wikitext_files() -> dict:
    texts = {
        "train": " \n = A title = \n \n the cat sat \n",
        "valid": " the dog sat \n",
        "test": " a new cat \n \n",
    }
    return {f"wikitext-2/wiki.{split}.tokens": text for split, text in texts.items()}


def image_folder_files(
    count=6, size=(20, 16), mode="RGB", classes=("cat", "dog"), splits=("train", "val")
) -> dict:
    return {
        f"{split}/{name}/{k}.png": picture(mode, size)
        for split in splits
        for name in classes
        for k in range(count)
    }
