"""Folders, archives and texts as people have them: read, or refused with the layout that is expected."""

import shutil
import tarfile
import zipfile

import pytest
from test_prep_left_out import PETS, left_out, packed
from test_prep_refusals import refused

from relaunch.data_prep.archive import open_source
from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import (
    cifar10,
    image_folder_files,
    mnist,
    picture,
    tiny_imagenet_files,
    tree_of,
    wikitext_files,
    zip_of,
)

LETTERS = "The quick brown fox\njumps over\nthe lazy dog\nand runs\n"


@pytest.mark.parametrize(
    "renamed",
    [
        ("Train", "Test"),
        ("Training", "validation"),
        ("TRAIN", "Val"),
        ("training", "DEV"),
        ("train", "Testing"),
    ],
)
def test_splits_in_any_usual_name_and_case(tmp_path, renamed):
    files = {
        name.replace("train", renamed[0]).replace("val", renamed[1]): file for name, file in PETS.items()
    }
    data = packed(tmp_path, zip_of(tmp_path / "s.zip", files))
    other = "test" if renamed[1].lower().startswith("test") else "val"
    assert data.splits == {"train": 4, other: 4} and "left_out" not in data.meta


@pytest.mark.parametrize("two", [("val", "valid"), ("train", "Training")])
def test_two_folders_for_one_split_are_refused(tmp_path, two):
    files = PETS | {f"{two[1]}/cat/9.png": picture(size=(20, 16))}
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", files))
    assert f"has both '{min(two)}' and '{max(two)}'" in line


def test_a_class_may_be_called_train(tmp_path):
    files = {name.replace("dog", "train"): content for name, content in PETS.items()}
    assert packed(tmp_path, tree_of(tmp_path / "s", files)).classes == ["cat", "train"]


def test_zips_with_backslashes(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name, content in (
            {"train\\": b"", "train\\cat\\": b"", "train\\.ipynb_checkpoints\\": b""} | PETS
        ).items():
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")
            archive.writestr(info, content)
    data = packed(tmp_path, tmp_path / "w.zip")
    assert data.splits == {"train": 4, "val": 4} and "left_out" not in data.meta
    assert open_source(tmp_path / "w.zip").folders == {"train", "train/cat"}


def with_second(folder, make):
    make(folder / "one")
    make(folder / "two")
    return folder


@pytest.mark.parametrize(
    "name, make",
    [
        ("mine", lambda folder: tree_of(folder, image_folder_files(count=1))),
        ("mine", lambda folder: tree_of(folder, {"train.txt": "a b", "val.txt": "a"})),
        ("mnist", mnist),
        ("wikitext2", lambda folder: tree_of(folder, wikitext_files())),
        ("tiny_imagenet", lambda folder: tree_of(folder, tiny_imagenet_files(train=1))),
    ],
    ids=["images", "texts", "mnist", "wikitext2", "tiny_imagenet"],
)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_the_second_of_two_sets_is_refused(tmp_path, name, make, form):
    """WikiText-103 has WikiText-2's file names, FashionMNIST has MNIST's: the first by name was packed."""

    source = with_second(tmp_path / "s", make)
    if form == "zip":
        source = shutil.make_archive(tmp_path / "s", "zip", source)
    line = refused(tmp_path, name, source)
    assert "it holds 2 sets, in one" in line and "two" in line and ("unpacked" in line) == (form == "zip")


def test_the_second_cifar10_is_refused(tmp_path):

    for place in ("one", "two"):
        cifar10(tmp_path / "c.tar.gz")
        with tarfile.open(tmp_path / "c.tar.gz") as archive:
            archive.extractall(tmp_path / "s" / place, filter="data")
    assert "it holds 2 sets" in refused(tmp_path, "cifar10", tmp_path / "s")


def test_official_sets_of_two_kinds_need_a_choice(tmp_path):
    mnist(tmp_path / "s")
    source = tree_of(tmp_path / "s", wikitext_files())
    line = refused(tmp_path, "mine", source)
    assert "s holds several sets: MNIST, WikiText-2; choose one: --as mnist" in line
    data = packed(tmp_path, source, recipe="wikitext2")
    assert data.kind == "text" and left_out(data)["other files"][0] == 4


def test_the_same_mnist_twice_is_one_set(tmp_path):
    """As torchvision (compressed and not, side by side) and Kaggle (each file also in a folder) leave it."""
    mnist(tmp_path / "s", compress=False)
    (tmp_path / "s" / "again").mkdir()
    for file in list((tmp_path / "s").glob("*ubyte")):
        (tmp_path / "s" / "again" / file.name).write_bytes(file.read_bytes())
    data = prepare("mnist", tmp_path / "s", root=tmp_path, progress=False)
    assert left_out(data)["other files"][0] == 4 and data.splits == {"train": 30, "test": 10}


def test_what_an_official_set_does_not_need_is_counted(tmp_path):
    files = tiny_imagenet_files() | {"tiny-imagenet-200/test/images/test_0.JPEG": b"x"}
    data = prepare("tiny_imagenet", zip_of(tmp_path / "t.zip", files), root=tmp_path, progress=False)
    assert left_out(data) == {"other files": (1, "tiny-imagenet-200/test/images/test_0.JPEG")}


def test_a_flat_folder_of_classes_needs_a_share(tmp_path):
    files = {f"photos/{label}/{k}.png": picture(size=(20, 16)) for label in "ab" for k in range(8)}
    source = tree_of(tmp_path / "s", files | {"photos/list.csv": "x"})
    line = refused(tmp_path, "mine", source, 64)
    assert "s is a folder of 2 classes (a, b) without train/ and val/; add --val-fraction 0.1" in line
    data = packed(tmp_path, source, val_fraction=0.25)
    assert data.splits == {"train": 12, "val": 4} and data.classes == ["a", "b"]
    assert left_out(data) == {"files (.csv) that lie in no class folder": (1, "photos/list.csv")}
    lost = tree_of(tmp_path / "t", files | {"photos/c/0.heic": b"x"})
    assert "class 'c'" in refused(tmp_path / "x", "mine", lost, val_fraction=0.25)


@pytest.mark.parametrize("form", ["book.txt", "a folder"])
def test_one_text_is_split_by_a_share_of_its_words(tmp_path, form):
    tree_of(tmp_path / "s", {"book.txt": LETTERS})
    source = tmp_path / "s" / ("" if form == "a folder" else form)
    assert "is one text without validation; add --val-fraction 0.1" in refused(tmp_path, "mine", source, 64)
    data = packed(tmp_path, source, val_fraction=0.4)
    words = [[data.vocab()[i] for i in data.tokens(split)] for split in ("train", "val")]
    assert sum(words, []) == LETTERS.replace("\n", " <eos> ").split()
    assert words[1] == "and runs <eos>".split()  # from the first line that begins in the last 6 of 15 words


def test_words_that_train_lacks_are_said(tmp_path):
    source = tree_of(tmp_path / "s", {"train.txt": "a b\nc\n", "val.txt": "a d\ne d\n", "test.txt": "b\n"})
    assert packed(tmp_path, source).meta["notes"] == ["3 of 6 words of val do not occur in train, e.g. d"]


def test_wikitext_raw_and_other_endings_of_texts(tmp_path):
    files = {name.replace(".tokens", ".raw"): text for name, text in wikitext_files().items()}
    assert packed(tmp_path, tree_of(tmp_path / "s", files)).splits == {"train": 11, "val": 4, "test": 5}
    both = files | wikitext_files()
    line = refused(tmp_path / "x", "mine", tree_of(tmp_path / "t", both), recipe="text")
    assert "t has 2 texts for test: wikitext-2/wiki.test.raw, wikitext-2/wiki.test.tokens" in line


@pytest.mark.parametrize(
    "files, says",
    [
        (
            {"train/0.png": picture(), "val/0.png": picture()},
            "the images below train/ lie in no class folders",
        ),
        ({"val/a/0.png": picture(), "test/a/0.png": picture()}, "there is test/, val/ but no train/"),
        (
            {
                f"seg_{split}/seg_{split}/{label}/0.png": picture()
                for split in ("train", "test")
                for label in "ab"
            },
            "seg_test, seg_train are not called train, val and test",
        ),
        ({"x/a.npy": "", "x/b.npy": "", "y.json": ""}, "files of these kinds: 2 .npy and 1 .json in x/"),
        ({"a.txt": "", "b.txt": ""}, "none of its 2 texts is named after train and valid"),
        ({}, "holds no files"),
    ],
)
def test_another_layout_is_refused_with_the_one_that_is_expected(tmp_path, files, says):
    (tmp_path / "s").mkdir()
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", files))
    assert says in line and "expected is train/<class>/*.jpg" in line and "remove" not in line
