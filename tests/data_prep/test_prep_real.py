"""The real archives, where RELAUNCH_DATA_ARCHIVES names a folder that holds them."""

import os
from pathlib import Path

import numpy as np
import pytest

from relaunch.data_prep.packed import verify
from relaunch.data_prep.recipes import prepare

pytestmark = pytest.mark.slow


def real(name: str) -> Path:
    path = Path(os.environ.get("RELAUNCH_DATA_ARCHIVES") or "unset", name)
    return (
        path
        if path.exists()
        else pytest.skip(
            f"{path} is not there: set RELAUNCH_DATA_ARCHIVES to the folder with the real archives"
        )
    )


def test_mnist(tmp_path):
    data = prepare("mnist", real("mnist"), root=tmp_path, progress=False)
    verify(data)
    assert data.splits == {"train": 60_000, "test": 10_000}
    assert data.labels("train")[:5].tolist() == [5, 0, 4, 1, 9] and data.labels("test")[:5].tolist() == [
        7,
        2,
        1,
        0,
        4,
    ]
    assert np.round([*data.mean, *data.std], 4).tolist() == [0.1307, 0.3081]


def test_wikitext2(tmp_path):
    data = prepare("wikitext2", real("wikitext-2-v1.zip"), root=tmp_path, progress=False)
    assert (
        data.splits == {"train": 2_088_628, "val": 217_646, "test": 245_569} and len(data.vocab()) == 33_278
    )


def test_tiny_imagenet(tmp_path):
    data = prepare("tiny_imagenet", real("tiny-imagenet-200.zip"), root=tmp_path, progress=False)
    assert (
        data.splits == {"train": 10_000, "val": 1_000} and len(data.classes) == 20 and "slug" in data.classes
    )
    assert np.bincount(data.labels("val")).tolist() == [50] * 20


def test_cifar10_images_as_a_folder(tmp_path):
    data = prepare("cifar10-jpeg", real("cifar10-images.zip"), root=tmp_path, progress=False)
    assert data.splits == {"train": 50_000, "test": 10_000} and data.classes[0] == "airplane"
    assert data.images("train").shape == (50_000, 32, 32, 3)
