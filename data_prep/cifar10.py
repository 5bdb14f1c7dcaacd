"""CIFAR-10: the official python archive or its extracted folder, read without running its pickles.

    relaunch prep cifar10 --source cifar-10-python.tar.gz

Format: https://www.cs.toronto.edu/~kriz/cifar.html (rows of 3,072 bytes: red, green, blue planes of 32x32).
MD5 sum: torchvision.datasets.CIFAR10.
"""

import io
import math
import pickle
import re

import numpy as np

from relaunch.data_prep.archive import Source
from relaunch.data_prep.errors import DATA, Failure

TITLE = "CIFAR-10"
NEEDS = "cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}"
PUBLISHED = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
URLS = {"cifar-10-python.tar.gz": ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]}
TRAIN = [f"data_batch_{k}" for k in range(1, 6)]
BATCHES = {"train": TRAIN, "test": ["test_batch"]}


def find(source: Source) -> dict | None:
    """File name -> batch name, if one folder has all seven files. Failure 65 if several have."""
    batches = {batch: batch for batch in (*TRAIN, "test_batch", "batches.meta")}
    found = source.together(batches)
    source.only_one(found)
    return next(iter(found.values()), None)


def pack(source: Source, roles: dict, writer) -> None:
    """50,000 train and 10,000 test images, uint8 [N,32,32,3], in the order of the batches. Failure 65."""
    batches = {roles[name]: unpickle(name, content) for name, content in source.stream(roles)}
    writer.classes = [_text(name) for name in batches["batches.meta"].get("label_names", [])]
    for split, names in BATCHES.items():
        labels, images = zip(*(_batch(name, batches[name]) for name in names))
        starts = np.cumsum([0, *map(len, labels)])
        writer.images(
            split,
            np.concatenate(labels),
            (32, 32, 3),
            ((range(start, start + len(part)), part) for start, part in zip(starts, images)),
        )


def read(source: Source, roles: dict, split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N,32,32,3] and labels int64 [N] of train or test. Failure 65."""
    wanted = [name for name, batch in roles.items() if batch in BATCHES[split]]
    batches = {roles[name]: unpickle(name, content) for name, content in source.stream(wanted)}
    labels, images = zip(*(_batch(name, batches[name]) for name in BATCHES[split]))
    return np.concatenate(images), np.concatenate(labels)


def _batch(name: str, content: dict) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = getattr(content.get("data"), "array", None), content.get("labels")
    good = (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.shape[1:] == (3072,)
        and isinstance(labels, list)
        and len(labels) == len(pixels)
        and all(type(label) is int for label in labels)
    )
    if pixels is None or not good:
        raise Failure(
            DATA,
            f"{name} does not hold N labels and N rows of 3,072 bytes",
            "download CIFAR-10's python version again",
        )
    return np.array(labels, np.int64), pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _text(value) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


# ---- pickles as data ----


class _Dtype:
    """Stands in for numpy.dtype: plain numbers only."""

    def __init__(self, code, *ignored):
        if not re.fullmatch(r"[biu][1248]|f[248]", _text(code)):
            raise pickle.UnpicklingError(f"dtype {code!r}")
        self.code, self.order = _text(code), "<"

    def __setstate__(self, state):
        self.order = _text(state[1])


class _Array:
    """Stands in for numpy.ndarray and its _reconstruct: no numpy code sees the pickle's arguments."""

    def __init__(self, *ignored):
        self.array = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, raw = state
        plain = np.frombuffer(raw, np.dtype(dtype.order.replace("|", "=") + dtype.code))
        if math.prod(shape) != plain.size:
            raise pickle.UnpicklingError("an array's shape and size disagree")
        self.array = plain.reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 file does")
        return self.ALLOWED[module, name]


def unpickle(name: str, content: bytes) -> dict:
    """A batch's dict with str keys. Failure 65 for more than numbers, strings, lists, dicts and arrays."""
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        return {_text(key): value for key, value in found.items()}
    except Exception as error:  # a hostile or cut-off pickle can raise anything; nothing of it was run
        raise Failure(
            DATA,
            f"{name} is refused: not a plain CIFAR-10 pickle ({error or type(error).__name__})",
            "download CIFAR-10's python version again",
        ) from None
