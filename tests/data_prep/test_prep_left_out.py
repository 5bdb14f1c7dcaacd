"""What prep leaves out is a line with a count and an example; where a class or split would be lost, 65."""

import os
import shutil

import pytest
from test_prep_refusals import refused

from relaunch.data_prep.prep import main
from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import (
    image_folder_files,
    picture,
    tree_of,
)

PETS = image_folder_files(count=2)


def packed(tmp_path, source, **options):
    return prepare("mine", source, root=tmp_path / "out", progress=False, **options)


def left_out(data) -> dict:
    return {fact["what"]: (fact["count"], fact["example"]) for fact in data.meta.get("left_out", [])}


def jpeg() -> bytes:
    return picture(size=(20, 16), format="JPEG")


def test_whatever_pillow_reads_is_an_image_and_the_rest_is_counted(tmp_path):
    files = PETS | {f"{split}/bird/0.jfif": jpeg() for split in ("train", "val")}
    files |= {"train/cat/notes.txt": "x", "train/cat/Thumbs.db": "x", "train/dog/1.HEIC": b"x", "README": "x"}
    files |= {".DS_Store": "x", "train/.cache/x.png": b"x"}
    data = packed(tmp_path, tree_of(tmp_path / "s", files))
    assert data.classes == ["bird", "cat", "dog"] and data.splits == {"train": 5, "val": 5}
    assert left_out(data) == {
        "hidden files": (1, ".DS_Store"),
        "hidden folders": (1, "train/.cache"),
        "files outside train/, val/ and test/": (1, "README"),
        "files that Pillow does not read as images (.db)": (1, "train/cat/Thumbs.db"),
        "files that Pillow does not read as images (.txt)": (1, "train/cat/notes.txt"),
        "files that Pillow does not read as images (.HEIC)": (1, "train/dog/1.HEIC"),
    }


def test_prep_prints_classes_per_split_and_what_it_left_out(tmp_path, capsys):
    files = PETS | {
        "train/dog/2.png": picture(size=(20, 16)),
        "train/cat/a.heic": b"",
        "train/cat/b.heic": b"",
    }
    source = str(tree_of(tmp_path / "s", files))
    for note in ("s)", "was already there)"):
        assert main(["mine", "--source", source, "--out", str(tmp_path)]) == 0
        out, err = capsys.readouterr()
        first, *splits = out.splitlines()
        assert first.startswith("mine: train 5, val 4 images") and first.endswith(note)
        assert splits == [
            "  train: 5 images of 2 classes (cat: 2, dog: 3)",
            "  val: 4 images of 2 classes (2 each)",
        ]
        assert err.splitlines() == [
            "left out: 2 files that Pillow does not read as images (.heic), e.g. train/cat/a.heic"
        ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_an_image_that_can_be_read_is_65(tmp_path, split):
    files = PETS | {"train/owl/0.png": picture(size=(20, 16)), "val/owl/0.png": picture(size=(20, 16))}
    del files[f"{split}/owl/0.png"]
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", files | {f"{split}/owl/0.heic": b"x"}))
    assert (
        f"class 'owl' of {split} in s would be lost: it holds no image that Pillow reads, but 1 .heic" in line
    )


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_an_empty_class_folder_is_65_in_train_and_a_line_in_val(tmp_path, form):

    def source(name, files, empty):
        tree_of(tmp_path / name, files)
        (tmp_path / name / empty).mkdir()
        return (
            tmp_path / name
            if form == "folder"
            else shutil.make_archive(tmp_path / name, form, tmp_path / name)
        )

    line = refused(tmp_path, "mine", source("s", PETS, "train/owl"))
    assert "class 'owl' of train" in line and "its folder is empty" in line
    files = PETS | {"train/owl/0.png": picture(size=(20, 16))}
    data = packed(tmp_path, source("t", files, "val/owl"))
    assert left_out(data) == {"empty folders": (1, "val/owl")}
    assert data.meta["notes"] == ["val has no images of 1 of 3 classes: owl"]


def test_a_class_without_validation_images_is_a_line(tmp_path):
    data = packed(tmp_path, tree_of(tmp_path / "s", PETS | {"train/owl/0.png": picture(size=(20, 16))}))
    assert data.meta["notes"] == ["val has no images of 1 of 3 classes: owl"]


@pytest.mark.parametrize("split", ["val", "valid", "test"])
def test_a_split_whose_images_have_no_classes_is_65(tmp_path, split):
    files = {name: content for name, content in PETS.items() if name.startswith("train")}
    source = tree_of(tmp_path / "s", files | {f"{split}/{k}.JPEG": jpeg() for k in range(3)})
    line = refused(tmp_path, "mine", source)
    assert "would be lost: its files (3) lie in no class folders, so they have no labels" in line
    assert f"{split}/0.JPEG" in line and "--val-fraction" in line and "remove" not in line
    data = packed(tmp_path, source, val_fraction=0.5)
    assert data.splits == {"train": 2, "val": 2}
    assert left_out(data) == {"images that lie in no class folder": (3, f"{split}/0.JPEG")}


def test_an_empty_split_is_65(tmp_path):
    source = tree_of(tmp_path / "s", {name: file for name, file in PETS.items() if name.startswith("train")})
    (source / "val").mkdir()
    assert "val of s would be lost: it holds no images" in refused(tmp_path, "mine", source)


def test_an_unlabelled_test_split_beside_val_is_a_line(tmp_path):
    data = packed(tmp_path, tree_of(tmp_path / "s", PETS | {"test/0.png": picture(size=(20, 16))}))
    assert data.splits == {"train": 4, "val": 4}
    assert left_out(data) == {"images that lie in no class folder": (1, "test/0.png")}


def test_images_directly_under_train_are_a_line(tmp_path):
    data = packed(tmp_path, tree_of(tmp_path / "s", PETS | {"train/0.png": picture(size=(20, 16))}))
    assert left_out(data) == {"images that lie in no class folder": (1, "train/0.png")}


@pytest.mark.parametrize("link", ["relative", "absolute"])
def test_a_split_that_links_to_its_sibling_is_packed_twice(tmp_path, link):
    """Which of the two vanished was the order of the disk."""
    source = tree_of(tmp_path / "s", {name.replace("val", "test"): file for name, file in PETS.items()})
    (source / "val").symlink_to("test" if link == "relative" else source / "test")
    (source / "train" / "owl").symlink_to("cat")
    (source / "test" / "owl").symlink_to("../train/dog")
    data = packed(tmp_path, source)
    assert data.splits == {"train": 6, "val": 6, "test": 6} and data.classes == ["cat", "dog", "owl"]


def test_links_are_not_followed_back_up(tmp_path):
    source = tree_of(tmp_path / "above" / "s", PETS)
    tree_of(tmp_path / "above", {"other.png": picture()})
    (source / "train" / "cat" / "up").symlink_to("../..")
    (source / "val" / "root").symlink_to(source)
    (source / "val" / "further").symlink_to(tmp_path)
    (source / "train" / "cat" / "gone.png").symlink_to("nowhere.png")
    (source / "a").mkdir()
    (source / "a" / "b").symlink_to("../c")
    (source / "c").mkdir()
    (source / "c" / "a").symlink_to("../a")
    os.mkfifo(source / "train" / "cat" / "pipe.png")
    data = packed(tmp_path, source)
    assert data.splits == {"train": 4, "val": 4}
    found = left_out(data)
    assert found["links that lead back up"][0] == 5  # up, root, further, and around a and c from both sides
    assert found["links that lead nowhere"] == (1, "train/cat/gone.png")
    assert found["files that are no regular files"] == (1, "train/cat/pipe.png")


def nested(classes: str, folders: str) -> dict[str, bytes]:
    return {f"{c}/{f}/{i}.png": picture(size=(20, 16)) for c in classes for f in folders for i in "01"}


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_classes_one_level_below_are_not_packed_as_one(tmp_path, form):
    """A repository of a data set, as people publish it: its classes in Dataset/, beside a few examples."""
    images = {f"Dataset/{name}": content for name, content in nested("0123", "x").items()}
    images = {name.replace("/x/", "/"): content for name, content in images.items()}
    files = images | {"Examples/e0.png": picture(size=(20, 16))}
    source = tree_of(tmp_path / "signs", files)
    if form == "zip":
        source = shutil.make_archive(tmp_path / "signs", "zip", source)
    line = refused(tmp_path, "mine", source)
    assert line.startswith(
        "relaunch: 65 the images of Dataset lie in 4 folders below it (0, 1, 2, 3): are those"
    )
    path = "unpack it and pass --source Dataset" if form == "zip" else f"pass --source {source}/Dataset"
    assert f"if so, {path}; if not, put them directly into it" in line
    if form == "folder":
        assert packed(tmp_path, source / "Dataset", val_fraction=0.5).classes == list("0123")


def test_parts_of_a_class_are_one_class_and_a_line(tmp_path):
    data = packed(tmp_path, tree_of(tmp_path / "s", nested("ab", "xyz")), val_fraction=0.5)
    assert data.classes == ["a", "b"]
    assert data.meta["notes"][0] == "the images of a lie in 3 folders below it (x, y, z): packed as one class"


def test_a_table_beside_flat_images_is_offered(tmp_path):
    files = {f"{i}.png": picture(size=(20, 16)) for i in range(4)} | {
        "names.csv": b"filename,kind\n0.png,cat\n"
    }
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", files))
    assert "; if names.csv says which image is what: --source " in line
    assert f"{tmp_path}/s/names.csv --columns image=…,label=…; expected is train/<class>" in line
