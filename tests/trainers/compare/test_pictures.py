"""The sheet of images whose prediction changed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relaunch.data_prep.packed import open_packed
from relaunch.trainers import diff
from relaunch.trainers.compare import pictures, predictions
from relaunch.trainers.tasks.images import ImageTask
from rigs.predicted import scored, write
from rigs.sets import TEST, pack_images


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (300, 200, 3)])
def test_the_picture_shows_the_images_that_changed(relaunch_env, shape, capsys):
    pack_images(Path("data/faces"), shape)
    packed = open_packed("data/faces", "data")
    labels = packed.labels("test").astype(np.int32)
    rows = [scored(seed, TEST) | {"label": labels} for seed in (1, 2)]
    rows[0]["pred"][:3], rows[1]["pred"][:3] = labels[:3], (labels[:3] + 1) % 10  # three that got worse
    rows[1]["pred"][3:] = rows[0]["pred"][3:]
    for r in rows:
        r["confidence"][:3] = (0.5, 0.9, 0.7)
    # found by the place that was noted beside the predictions, though it is not under the data root
    files = [
        str(write(Path(name), r, data="faces", data_hash=packed.hash, data_path="data/faces"))
        for name, r in zip("ab", rows)
    ]
    diff.run([*files, "--out", "out"])
    assert "class" in capsys.readouterr().out, "names, not numbers"
    with Image.open("out/changed.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    tiles = [np.asarray(pictures.enlarged(packed.images("test")[i])) for i in (1, 2, 0)]
    places = [place(pixels, tile) for tile in tiles]
    assert places == sorted(places, key=lambda p: p[1]) and len({p[0] for p in places}) == 1, (
        "in one row, the most confident first"
    )
    colours = {tuple(c) for c in pixels.reshape(-1, 3)}
    assert pictures.GREEN in colours and pictures.RED in colours
    assert max(tiles[0].shape) <= pictures.SIDE and max(tiles[0].shape) > pictures.SIDE / 2


def place(pixels: np.ndarray, tile: np.ndarray) -> tuple[int, int]:
    """Where a tile lies in a picture."""
    height, width = tile.shape[:2]
    for y, x in zip(*np.nonzero((pixels[:-height, :-width] == tile[0, 0]).all(-1))):
        if np.array_equal(pixels[y : y + height, x : x + width], tile):
            return int(y), int(x)
    raise AssertionError("the image is not in the picture")


def test_long_names_are_cut_and_a_sheet_of_one_has_a_readable_heading():
    rows = scored(n=1)
    p = predictions.Predictions(rows, ImageTask.facts, {}, Path())
    sheet = pictures.sheet(
        np.zeros((1, 32, 32, 3), np.uint8),
        np.array([0]),
        p,
        p,
        ["a very long name, with its synonyms, of a class"] * 10,
        ["A: x  B: y"],
    )
    assert sheet.width > 3 * pictures.SIDE
