"""The sheet of images whose prediction changed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relaunch.data_prep.names import width
from relaunch.data_prep.packed import open_packed
from relaunch.trainers import diff
from relaunch.trainers.compare import changes, fonts, pictures, predictions, results
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


def test_names_are_clean_on_the_terminal_and_whole_in_files(tmp_path, capsys, monkeypatch):
    """And what no font has is drawn as its code point, which a line says once."""
    monkeypatch.setattr(fonts, "installed", lambda char: iter(()))
    names = ["cat", "red\x1b[31m", "猫" * 30, *map(str, range(3, 10))]
    rows = [scored(seed, TEST) | {"label": np.arange(TEST, dtype=np.int32) % 3} for seed in (1, 2)]
    rows[0]["pred"], rows[1]["pred"] = rows[0]["label"].copy(), (rows[0]["label"] + 1) % 3
    a, b = (predictions.read(write(tmp_path / f"{name}", r)) for name, r in zip("ab", rows))
    result, changed = changes.compare(a, b, names)
    about = {letter: {"name": "x", "step": 1, "predictions": "x"} for letter in "ab"}
    lines = changes.report(result | about, a, b, changed, names, top=10)
    assert not any("\x1b" in line for line in lines) and any("red\\x1b[31m" in line for line in lines)
    headers = [i for i, line in enumerate(lines) if line.startswith(("class", "changed,"))]
    for start in headers:
        block = lines[start : lines.index("", start) if "" in lines[start:] else None]
        assert len({width(line) for line in block[1:]}) == 1, "aligned by what a terminal shows"
    pack_images(tmp_path / "faces", (28, 28, 1))
    packed = open_packed(str(tmp_path / "faces"), ".")
    results.write(tmp_path, result | about, a, b, changed, packed, names, top=10)
    said = capsys.readouterr().out
    assert said.count("changed.png: no font here has 猫: drawn as code points") == 1
    kept = json.loads((tmp_path / "diff.json").read_text())["classes"]
    assert {c["name"] for c in kept} == set(names[:3])
    with Image.open(tmp_path / "changed.png") as picture:
        assert picture.width > 3 * pictures.SIDE


def test_a_font_is_chosen_by_what_it_can_draw():
    drawn = fonts.Fonts(["cat", "猫 \x1b"])
    face, text = drawn.of("cat", 14)
    assert text == "cat" and not fonts.has(("", 0), "猫") and fonts.has(("", 0), "c")
    _, text = drawn.of("猫 \x1b", 14)
    assert text == ("\\u732b \\x1b" if "猫" in drawn.lacking else "猫 \\x1b")
    for char in "é", "Ж":  # Pillow's own has neither
        own = fonts.Fonts([char])
        assert (char in own.lacking) == (len(own.faces) == 1)
