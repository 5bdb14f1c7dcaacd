"""Tiny packed sets that are easy to learn."""

from pathlib import Path

import numpy as np

SHAPES = {
    "mnist": (28, 28, 1),
    "digits": (28, 28, 1),
}  # others get 32x32 RGB: any size will do for ResNet, and half is faster
TRAIN, TEST, WORDS = 96, 23, 50


def pack_images(folder: Path, shape, train: int = TRAIN, seed: int = 0) -> None:
    """Noise whose brightness tells the class: easy to learn, also from shifted and mirrored images."""
    from relaunch.data_prep.writer import Writer

    folder.mkdir(parents=True)
    writer, random = Writer(folder), np.random.default_rng(seed)
    writer.classes = [f"class {i}" for i in range(10)]
    for split, count in (("train", train), ("test", TEST)):
        labels = random.integers(0, 10, count)
        images = (random.integers(0, 28, (count, *shape)) + 25 * labels.reshape(-1, 1, 1, 1)).astype(np.uint8)
        writer.images(split, labels, shape, [(range(count), images)])
    writer.finish(folder.name, "folder", {}, {})


def pack_text(folder: Path, train: int = 2000, seed: int = 0) -> None:
    """A stream in which each word is followed by one of the next two: easy to learn."""
    from relaunch.data_prep.writer import Writer

    folder.mkdir(parents=True)
    writer, random = Writer(folder), np.random.default_rng(seed)
    streams = {
        split: np.cumsum(random.integers(1, 3, n)) % WORDS
        for split, n in (("train", train), ("val", 301), ("test", 170))
    }
    writer.text(["<unk>", "<eos>", *(f"w{i}" for i in range(WORDS - 2))], streams)
    writer.finish(folder.name, "text", {}, {})


def pack_labelled(folder: Path, images: np.ndarray, names: list[str], classes: list[str]) -> Path:
    """A set whose train and test are the same uint8 [N,H,W,C]; `names` [N] are the classes' of each."""
    from relaunch.data_prep.writer import Writer

    folder.mkdir(parents=True)
    writer, labels = Writer(folder), np.array([classes.index(name) for name in names])
    writer.classes = list(classes)
    for split in ("train", "test"):
        writer.images(split, labels, images.shape[1:], [(range(len(images)), images)])
    writer.finish(folder.name, "folder", {}, {})
    return folder


def pictures(count: int, shape, seed: int = 0) -> np.ndarray:
    """uint8 [count,H,W,C] of blots, which look different however they are normalised."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 5, 5, shape[2]))
    rows, columns = (np.arange(n) * 5 // n for n in shape[:2])
    return coarse[:, rows][:, :, columns].astype(np.uint8)
