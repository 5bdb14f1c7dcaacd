"""Images of a split in one folder, and a list of their classes beside them: ImageNet's validation."""

import shutil

import pytest
from test_prep_refusals import refused

from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import picture, tree_of

SHADES = {"n01": (250, 0, 0), "n02": (0, 250, 0), "n03": (0, 0, 250)}
VAL = ["n02", "n01", "n03", "n01"]  # of the images in the order of their names
NAMES = [f"ILSVRC2012_val_{k:08}" for k in range(len(VAL))]


def imagenet(**lists) -> dict:
    files = {
        f"ILSVRC/train/{label}/0.JPEG": picture(size=(16, 16), value=shade) for label, shade in SHADES.items()
    }
    files |= {
        f"ILSVRC/val/{name}.JPEG": picture(size=(16, 16), value=SHADES[label])
        for name, label in zip(NAMES, VAL)
    }
    return files | {name: "\n".join(lines) + "\n" for name, lines in lists.items()}


def right(data) -> bool:
    """Whether each image has the class of its colour."""
    images, labels = data.images("val"), data.labels("val")
    shades = [SHADES[data.classes[label]] for label in labels]
    return all(abs(image[8, 8].astype(int) - shade).max() < 30 for image, shade in zip(images, shades))


KAGGLE = ["ImageId,PredictionString", *(f"{n},{c} 85 131 206 198" for n, c in zip(NAMES, VAL))]
PAIRS = [f"val/{n}.JPEG\t{c}" for n, c in zip(NAMES, VAL)]


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize(
    "name, lines",
    [("LOC_val_solution.csv", KAGGLE), ("ILSVRC/val/list.txt", PAIRS), ("synset_labels.txt", VAL)],
)
def test_a_list_says_their_classes(tmp_path, name, lines, form):
    source = tree_of(
        tmp_path / "s", imagenet(**{name: lines[:1] + lines[:0:-1] if lines is PAIRS else lines})
    )
    if form == "zip":
        source = shutil.make_archive(str(tmp_path / "imagenet"), "zip", source)
    data = prepare("mine", source, root=tmp_path / "out", progress=False)
    assert data.splits == {"train": 3, "val": 4} and right(data)
    assert f"classes of val are those that {name} lists for its 4 images" in data.meta["notes"]
    assert "left_out" not in data.meta


@pytest.mark.parametrize(
    "lines",
    [["n09"] * 4, VAL[:3], [f"{n} 7" for n in NAMES], ["nothing that helps", ""], ["\0\xff"]],
)
def test_a_list_of_something_else_is_none(tmp_path, lines):
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", imagenet(**{"list.txt": lines})))
    assert "val of s would be lost: its files (4" in line or "(5" in line
    assert "add a list of lines `image class`" in line


def test_images_that_a_list_lacks_are_counted(tmp_path):
    data = prepare("mine", tree_of(tmp_path / "s", imagenet(**{"l.csv": KAGGLE[:4]})), root=tmp_path / "out")
    assert data.splits == {"train": 3, "val": 3} and right(data)
    assert {"what": "images that lie in no class folder", "count": 1} == {
        k: v for k, v in data.meta["left_out"][0].items() if k != "example"
    }


def test_another_list_is_another_source(tmp_path):
    source = tree_of(tmp_path / "s", imagenet(**{"synset_labels.txt": VAL}))
    first = prepare("mine", source, root=tmp_path / "out", progress=False)
    tree_of(source, imagenet(**{"synset_labels.txt": VAL[::-1]}))
    other = prepare("other", source, root=tmp_path / "out", progress=False)
    assert first.meta["source"]["sha256"] != other.meta["source"]["sha256"] and first.hash != other.hash


def test_a_class_that_is_written_otherwise_is_named(tmp_path):
    files = {f"{place}/0.png": picture() for place in ("train/cats", "train/dogs", "val/Cats", "val/dogs")}
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", files))
    assert "s: no train images for val/Cats; is val/Cats train's cats? give every class of val" in line
