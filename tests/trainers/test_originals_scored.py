"""--eval-resize and --eval-crop of the original images, where the packed ones are smaller."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.originals import originals
from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.recipes import prepare
from relaunch.trainers import evaluate
from relaunch.trainers.compare import predictions
from rigs.foreign import IMAGENET, foreign
from rigs.sets import pictures

FRAME = ["--normalise", "imagenet", "--eval-resize", "96", "--eval-crop", "80"]
CHAIN = transforms.Compose(
    [transforms.Resize(96), transforms.CenterCrop(80), transforms.ToTensor(), IMAGENET]
)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folder of JPEG files of many sizes, and the set packed of it, of 64x64."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 9), ("val", 24)):
        for i in range(count):
            size = (90 + 7 * (i % 5), 70 + 11 * (i % 4), 3)
            file = tmp_path / "photos" / split / "abc"[i % 3] / f"{i:02}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures(1, size, i)[0]).save(file)
    prepare("photos", tmp_path / "photos", root=tmp_path / "data", size=64, progress=False)
    return tmp_path / "photos", tmp_path / "data/photos"


def scored(data, *flags, workload="tiny_imagenet") -> predictions.Predictions:
    described = ["--workload", workload, "--data", str(data), "--threads", "1", "--outputs"]
    assert evaluate.run(["model.pth", *described, "--out", "out", *FRAME, *flags])[0] == 0
    (path,) = Path("out").glob("*.parquet")
    return predictions.read(path)


def files_of(folder, split):
    return sorted((folder / split).rglob("*.jpg"))


@pytest.mark.slow
def test_the_originals_to_the_sample(photos, capsys):
    folder, data = photos
    model = foreign("tiny_imagenet", data)
    with torch.no_grad():
        outputs = torch.cat(
            [model(CHAIN(Image.open(f).convert("RGB"))[None]) for f in files_of(folder, "val")]
        )
    labels = np.array(["abc".index(f.parent.name) for f in files_of(folder, "val")])
    found = scored(data, "--raw", str(folder))
    said = capsys.readouterr()
    assert (found.label == labels).all()
    assert (found.pred == outputs.argmax(1).numpy()).all() and len(set(found.pred)) > 1
    own = np.load(next(Path("out").glob("*.outputs.npy")))
    assert own == pytest.approx(outputs.numpy(), rel=1e-3, abs=1e-4)
    right = (outputs.argmax(1).numpy() == labels).mean()
    assert found.facts["metrics"]["top1"] == pytest.approx(100 * right)
    assert found.facts["inputs"]["images"] == "originals" and found.facts["inputs"]["shape"] == [3, 80, 80]
    assert "scored on 80x80, made of the original images by --eval-resize 96 and --eval-crop 80" in said.err
    assert "resize 96, crop 80, of the originals" in said.out
    packed = scored(data)
    assert "images" not in packed.facts["inputs"]
    assert "packed 64x64 images by --eval-resize 96 and --eval-crop 80, not of the originals (--raw PATH" in (
        capsys.readouterr().err
    )
    assert np.abs(np.load(next(Path("out").glob("*.outputs.npy"))) - own).max() > 1e-2  # another question


def test_a_wrong_path_is_one_line(photos, tmp_path):
    folder, data = photos
    foreign("cifar10 --arch net", data)
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    for split in ("train", "val"):
        for file in files_of(folder, split)[1:]:
            copy = other / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())

    def refused(*flags) -> str:
        with pytest.raises(Failure) as caught:
            scored(
                data, "--arch", "net", "--eval-resize", "40", "--eval-crop", "32", *flags, workload="cifar10"
            )
        return caught.value.line()

    assert "65 --raw: there is no gone; check the path" in refused("--raw", "gone")
    assert "65 --raw empty is not an image folder: it lacks train/<class>" in refused("--raw", "empty")
    assert "65 the originals are not what photos was packed from: 23 val images and 24" in refused(
        "--raw", "other"
    )
    assert "64 --input raw has no place of the originals" in refused("--input", "raw")
    assert "64 --raw scores original images, which differ in size; add --eval-crop" in refused(
        "--raw", "photos", "--eval-crop", "0"
    )
    files_of(folder, "val")[5].unlink()
    assert "65 the originals are not what photos was packed from" in refused("--raw", "photos")


def test_splits_that_prep_took_from_train(photos, tmp_path):
    folder, _ = photos
    prepare("held", folder, root=tmp_path / "data", size=64, progress=False, val_fraction=0.34)
    packed = open_packed("held", tmp_path / "data")
    options = json.loads((packed.path / "meta.json").read_text())["options"]
    assert options["val_fraction"] == 0.34 and set(packed.meta["splits"]) == {"train", "val", "test"}
    for split in packed.meta["splits"]:
        found = originals(packed, folder, split)
        assert (found.labels == packed.labels(split)).all()
        images = np.stack([found.pixels(i) for i in range(len(found.labels))])
        assert (images == packed.images(split)).all()
        assert found.picture(0).size != (64, 64)
