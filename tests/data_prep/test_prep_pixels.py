"""How images become 8-bit pixels: depth, orientation, grey; and what is said where a set looks wrong."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps
from test_prep_refusals import refused

from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import picture, png16, saved, sideways, tree_of, zip_of

RNG = np.random.default_rng(1)
DEEP = RNG.integers(0, 1 << 16, (12, 10), dtype=np.uint16)
EIGHT = np.rint(DEEP / 257).astype(np.uint8)


def everywhere(content: bytes, ending: str) -> dict:
    return {f"{split}/{label}/0.{ending}": content for split in ("train", "val") for label in "ab"}


def packed(tmp_path, content: bytes, ending: str, **options):
    source = tree_of(tmp_path / "s", everywhere(content, ending))
    return prepare("mine", source, root=tmp_path / "out", progress=False, **options)


def pgm16(pixels) -> bytes:
    return b"P5 %d %d 65535\n" % pixels.shape[::-1] + pixels.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "content, ending, off",
    [
        (png16(DEEP), "png", 0),
        (png16(np.stack([DEEP, DEEP], -1)), "png", 1),  # Pillow gives the high byte only
        (saved(Image.fromarray(DEEP), "TIFF"), "tif", 0),
        (saved(Image.fromarray(DEEP.astype(">u2")), "TIFF"), "tif", 0),
        (pgm16(DEEP), "pgm", 0),
    ],
    ids=["png", "png with alpha", "tiff", "tiff of the other order", "pgm"],
)
def test_sixteen_bits_of_grey_are_scaled_and_stay_grey(tmp_path, content, ending, off):
    """They all became 255."""
    data = packed(tmp_path, content, ending)
    pixels = data.images("train")[0]
    assert pixels.shape == (12, 10, 1)
    assert abs(pixels[..., 0].astype(int) - EIGHT).max() <= off
    assert {"what": "images of more than 8 bits that were scaled to 8", "count": 4} == {
        key: data.meta["changed"][0][key] for key in ("what", "count")
    }


def test_sixteen_bits_of_colour_are_rounded(tmp_path):
    deep = RNG.integers(0, 1 << 16, (12, 10, 3), dtype=np.uint16)
    deep[0, :4, 0] = 128, 129, 385, 386  # where the high byte alone and rounding differ
    pixels = packed(tmp_path, png16(deep), "png").images("val")[1]
    assert np.array_equal(pixels, np.rint(deep / 257))


def test_twelve_bits_are_scaled_by_what_they_can_hold(tmp_path):
    """A TIFF of 12 bits packs two values into three bytes; its largest is white."""
    values = np.array([[0, 4095, 2048, 17]] * 4, np.uint16)
    bits = "".join(f"{value:012b}" for value in values.ravel())
    raw = int(bits, 2).to_bytes(len(bits) // 8, "big")
    entries = [(256, 4, 4), (257, 4, 4), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 4)]
    entries += [(279, 4, len(raw))]
    directory = len(entries).to_bytes(2, "little")
    for tag, kind, value in entries:
        directory += b"".join(
            n.to_bytes(size, "little") for n, size in ((tag, 2), (kind, 2), (1, 4), (value, 4))
        )
    head = b"II*\0" + (8 + len(raw)).to_bytes(4, "little")
    data = packed(tmp_path, head + raw + directory + bytes(4), "tiff")
    assert data.images("train")[0, 0, :, 0].tolist() == [0, 255, 128, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_whose_range_nobody_knows_are_refused_by_name(tmp_path, dtype):
    """They became 0."""
    good = saved(Image.fromarray(EIGHT))
    bad = saved(Image.fromarray(RNG.random((12, 10)).astype(dtype)), "TIFF")
    files = everywhere(good, "png") | {"val/b/1.tif": bad}
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", files))
    assert "whose range is not known: val/b/1.tif; save them with 8 or 16 bits" in line


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photographs_are_turned_upright(tmp_path, orientation, format):
    content = sideways(orientation, format)
    data = packed(tmp_path, content, format.lower())
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(data.images("train")[0], upright)
    turned = [fact for fact in data.meta.get("changed", []) if "EXIF" in fact["what"]]
    assert [fact["count"] for fact in turned] == ([4] if orientation > 1 else [])


@pytest.mark.parametrize("form", ["folder", "zip", "gztar", "parquet"])
def test_the_white_bar_lies_at_the_right_edge_whatever_the_source(tmp_path, form, monkeypatch):
    content = sideways(6, size=(32, 32))
    if form == "parquet":
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        rows = {"image": [{"bytes": content, "path": None}] * 2, "label": ["a", "b"]}
        source = tmp_path / "rows.parquet"
        datasets.Dataset.from_dict(rows, features=kinds).to_parquet(source)
    else:
        source = tree_of(tmp_path / "s", everywhere(content, "jpg"))
        if form != "folder":
            source = shutil.make_archive(tmp_path / "packed", form, source)
    pixels = prepare("mine", source, root=tmp_path / "out", progress=False).images("train")[0, ..., 0]
    assert (pixels[:, -8:] > 200).all() and (pixels[:, :-10] < 50).all()


def test_orientation_counts_before_the_sizes_are_compared(tmp_path):
    """A portrait taken as 24x16 with a turn is 16x24, like the one that was saved so."""
    files = everywhere(sideways(6), "jpg") | {"train/a/1.png": picture(size=(16, 24))}
    data = prepare("mine", tree_of(tmp_path / "s", files), root=tmp_path / "out", progress=False)
    assert data.images("train").shape == (3, 24, 16, 3)
    files |= {"train/b/1.png": picture(size=(24, 16))}
    assert "add --size N" in refused(tmp_path / "x", "mine", tree_of(tmp_path / "t", files), 64)


def test_damaged_exif_does_not_lose_the_image(tmp_path):
    content = (
        sideways(6).replace(b"Exif\0\0MM\0*", b"Exif\0\0??\0*").replace(b"Exif\0\0II*\0", b"Exif\0\0??*\0")
    )
    data = packed(tmp_path, content, "jpg")
    assert data.images("train").shape == (2, 16, 24, 3)


def test_what_is_lost_or_converted_is_counted(tmp_path):
    rgba = saved(Image.fromarray(RNG.integers(0, 256, (12, 10, 4), dtype=np.uint8)))
    cmyk = saved(Image.fromarray(RNG.integers(0, 256, (12, 10, 4), dtype=np.uint8), "CMYK"), "JPEG")
    frames = [Image.fromarray(RNG.integers(0, 256, (12, 10), dtype=np.uint8)) for _ in range(3)]
    gif = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    files = everywhere(saved(Image.fromarray(EIGHT)), "png")
    files |= {"train/a/rgba.png": rgba, "train/b/cmyk.jpg": cmyk, "val/a/many.gif": gif}
    data = prepare("mine", tree_of(tmp_path / "s", files), root=tmp_path / "out", progress=False)
    said = {fact["what"]: (fact["count"], fact["example"]) for fact in data.meta["changed"]}
    assert said["images that lost their transparency"] == (1, "train/a/rgba.png")
    assert said["images that became RGB, from CMYK"] == (1, "train/b/cmyk.jpg")
    assert said["images of several frames, of which the first was taken"] == (1, "val/a/many.gif")
    assert said["grey images that became RGB, as others have colour"][0] >= 4


def test_grey_with_alpha_stays_grey(tmp_path):
    content = saved(Image.fromarray(np.stack([EIGHT, EIGHT], -1), "LA"))
    assert packed(tmp_path, content, "png").images("train").shape == (2, 12, 10, 1)


@pytest.mark.parametrize(
    "shade, says",
    [
        (
            lambda image: np.full_like(image, 90),
            "100.0% of all values of train are 90, and they deviate by 0.00",
        ),
        (lambda image: np.where(image > 254, image, 0), "of all values of train are 0"),
        (lambda image: 100 + image % 2, "they deviate by 0.50 of 255 levels"),
    ],
    ids=["constant", "nearly all one value", "hardly any deviation"],
)
def test_a_set_that_looks_wrong_is_a_line(tmp_path, shade, says):
    image = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
    data = packed(tmp_path, saved(Image.fromarray(shade(image).astype(np.uint8))), "png")
    assert any(says in note for note in data.meta["notes"]), data.meta["notes"]
    assert data.std[0] > 0


def test_ordinary_images_are_not_suspected(tmp_path):
    meta = packed(tmp_path, picture(), "png").meta
    assert "notes" not in meta and "changed" not in meta and "left_out" not in meta
    assert meta["rules"] == 2


def test_a_set_of_before_these_rules_is_kept_and_said(tmp_path, capsys):
    from relaunch.data_prep.prep import main

    source = tree_of(tmp_path / "s", everywhere(picture(), "png"))
    prepare("mine", source, root=tmp_path, progress=False)
    meta = json.loads((tmp_path / "mine" / "meta.json").read_text())
    assert meta.pop("rules") == 2
    (tmp_path / "mine" / "meta.json").write_text(json.dumps(meta))
    before = (tmp_path / "mine" / "meta.json").read_bytes()
    assert main(["mine", "--source", str(source), "--out", str(tmp_path)]) == 0
    assert "packed it, without EXIF orientation" in capsys.readouterr().err
    assert (tmp_path / "mine" / "meta.json").read_bytes() == before


def test_ghostscript_is_never_started(tmp_path):
    """Pillow would run it for EPS, whatever the file is called."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 12\n%%EndComments\n"
    files = everywhere(picture(), "png") | {"train/a/x.png": eps}
    line = refused(tmp_path, "mine", zip_of(tmp_path / "s.zip", files))
    assert "cannot be decoded: train/a/x.png" in line
