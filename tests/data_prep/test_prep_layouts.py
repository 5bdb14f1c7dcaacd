"""Folders, archives and texts as people have them: read whole, or what was left out is said, or code 65."""

import os
import sys
import zipfile

import pytest
from test_packed import failure
from test_prep_refusals import refused

from relaunch.data_prep.archive import open_source
from relaunch.data_prep.names import printable
from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.prep import main
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

PETS = image_folder_files(count=2)
LETTERS = "The quick brown fox\njumps over\nthe lazy dog\nand runs\n"


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
    import shutil

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


@pytest.mark.parametrize("order", ["aval", "zval"])
def test_a_split_that_links_to_its_sibling_is_packed_twice(tmp_path, order):
    """Which of the two vanished was the order of the disk."""
    source = tree_of(tmp_path / "s", {name.replace("val", "test"): file for name, file in PETS.items()})
    (source / "val").symlink_to("test" if order == "aval" else source / "test")
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
        for name, content in ({"train\\": b"", "train\\cat\\": b""} | PETS).items():
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
    import shutil

    source = with_second(tmp_path / "s", make)
    if form == "zip":
        source = shutil.make_archive(tmp_path / "s", "zip", source)
    line = refused(tmp_path, name, source)
    assert "it holds 2 sets, in one" in line and "two" in line and ("unpacked" in line) == (form == "zip")


def test_the_second_cifar10_is_refused(tmp_path):
    import tarfile

    for place in ("one", "two"):
        cifar10(tmp_path / "c.tar.gz")
        with tarfile.open(tmp_path / "c.tar.gz") as archive:
            archive.extractall(tmp_path / "s" / place, filter="data")
    assert "it holds 2 sets" in refused(tmp_path, "cifar10", tmp_path / "s")


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
        ({"x/a.npy": "", "x/b.npy": "", "y.json": ""}, "files of these kinds: 2 .npy and 1 .json in x/"),
        ({"a.txt": "", "b.txt": ""}, "none of its 2 texts is named after train and valid"),
        ({}, "holds no files"),
    ],
)
def test_another_layout_is_refused_with_the_one_that_is_expected(tmp_path, files, says):
    (tmp_path / "s").mkdir()
    line = refused(tmp_path, "mine", tree_of(tmp_path / "s", files))
    assert says in line and "expected is train/<class>/*.jpg" in line and "remove" not in line


def test_a_name_that_is_not_utf8_is_said(tmp_path):
    source = tree_of(tmp_path / "s", PETS)
    os.mkdir(os.fsencode(source / "train") + b"/caf\xe9")
    with open(os.fsencode(source / "train") + b"/caf\xe9/0.png", "wb") as file:
        file.write(picture())
    assert "name is not UTF-8 (train/caf\\udce9/0.png); rename it" in refused(tmp_path, "mine", source)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_does_not_vanish(tmp_path):
    source = tree_of(tmp_path / "s", PETS)
    (source / "val" / "cat").chmod(0)
    try:
        assert "val/cat may not be read" in refused(tmp_path, "mine", source)
    finally:
        (source / "val" / "cat").chmod(0o700)


def test_control_characters_are_kept_in_meta_and_not_printed(tmp_path, capsys):
    names = ["red\x1b[31m", "zwei\u202eWörter", "猫", 'it\'s "so"']
    files = {f"train/{name}/{k}.png": picture() for k, name in enumerate(names)}
    source = tree_of(tmp_path / "s", files | {"train/a\x07/1.png": picture(), "train/a\x07/x\x1b.heic": b""})
    assert main(["mine", "--source", str(source), "--out", str(tmp_path), "--holdout", "1"]) == 64
    source = tree_of(tmp_path / "s", {f"val/{name}/0.png": picture() for name in names})
    assert main(["mine", "--source", str(source), "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in out + err)
    assert (
        "left out: 1 files that Pillow does not read as images (.heic), e.g. train/a\\x07/x\\x1b.heic" in err
    )
    assert "note: val has no images of 1 of 5 classes: a\\x07" in err
    assert set(open_packed("mine", tmp_path).classes) == {*names, "a\x07"}


@pytest.mark.parametrize(
    "name, shown",
    [
        ("plain", "plain"),
        ("猫 Äpfel", "猫 Äpfel"),
        ("a\x1b[31m\n", "a\\x1b[31m\\n"),
        ("\udce9\u2028", "\\udce9\\u2028"),
    ],
)
def test_printable(name, shown):
    assert printable(name) == shown


def test_nobody_is_told_to_remove_what_prep_did_not_make(tmp_path):
    tree_of(tmp_path / "out" / "mine", {"thesis.tex": "x"})
    line = failure(65, prepare, "mine", tree_of(tmp_path / "s", PETS), root=tmp_path / "out", progress=False)
    assert "no meta.json" in line and "move it away" in line and "remove it" not in line
