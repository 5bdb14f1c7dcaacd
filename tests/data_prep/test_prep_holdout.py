"""`--val-fraction` and `--holdout`: validation taken out of train, the same on every machine, another set."""

import numpy as np
import pytest
from test_packed import failure

from relaunch.data_prep.packed import verify
from relaunch.data_prep.prep import main
from relaunch.data_prep.recipes import prepare
from relaunch.data_prep.splits import Holdout
from rigs.prep_sources import (
    cifar10,
    image_folder_files,
    mnist,
    tiny_imagenet_files,
    tree_of,
    wikitext_files,
    zip_of,
)


def sources(tmp_path) -> dict:
    """Recipe -> (name, source) of a small one of each kind that has no validation split, or only that."""
    cifar10(tmp_path / "cifar-10-python.tar.gz")
    mnist(tmp_path / "m")
    return {
        "mnist": ("mnist", tmp_path / "m"),
        "cifar10": ("cifar10", tmp_path / "cifar-10-python.tar.gz"),
        "digits": ("digits", None),
        "tiny_imagenet": ("tiny_imagenet", zip_of(tmp_path / "t.zip", tiny_imagenet_files(train=6))),
        "folder": ("pets", tree_of(tmp_path / "f", image_folder_files(splits=("train", "test")))),
        "flat": ("flat", tree_of(tmp_path / "g", {f"{c}/{k}.png": p for c, k, p in flat()})),
        "parquet": ("rows", parquet(tmp_path / "rows.parquet")),
    }


def flat():
    files = image_folder_files(splits=("train",))
    return [
        (*name.removeprefix("train/").removesuffix(".png").split("/"), file) for name, file in files.items()
    ]


def parquet(path):
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    files = list(image_folder_files(splits=("train",)).values())
    rows = {"image": [{"bytes": file, "path": None} for file in files], "label": [0, 1] * 6}
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.mark.parametrize("kind", ["mnist", "cifar10", "digits", "tiny_imagenet", "folder", "flat", "parquet"])
def test_every_source_can_give_validation(tmp_path, kind):
    name, source = sources(tmp_path)[kind]
    if kind == "flat":
        failure(64, prepare, name, source, root=tmp_path / "a", progress=False)
    else:
        whole = prepare(name, source, root=tmp_path / "a", progress=False)
    one = prepare(name, source, root=tmp_path / "b", progress=False, val_fraction=0.25)
    verify(one)
    assert list(one.splits)[:2] == ["train", "val"] and one.eval_split == "val"
    if kind == "flat":
        return
    # nothing is lost, nothing is there twice, each image keeps its label and the order stays
    held = Holdout(0.25).rows(whole.labels("train"))
    for split, rows in (("train", ~held), ("val", held)):
        assert np.array_equal(one.images(split), whole.images("train")[rows])
        assert np.array_equal(one.labels(split), whole.labels("train")[rows])
    assert one.meta["options"] == {"val_fraction": 0.25} and one.hash != whole.hash
    # what the source has for scoring is scored at the end: its own val is the test of this set
    own = {"val": "test", "test": "test"}
    for split in set(whole.splits) - {"train"}:
        assert np.array_equal(one.images(own[split]), whole.images(split))
    assert ("the source's own val is this set's test" in str(one.meta.get("notes"))) == (
        kind == "tiny_imagenet"
    )


def test_the_share_is_stratified_and_the_same_everywhere():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 19 + [3])
    held = Holdout(0.1).rows(labels)
    assert np.bincount(labels[held], minlength=4).tolist() == [5, 3, 2, 0]
    assert np.flatnonzero(held).tolist() == RECORDED  # whoever changes this makes every such set another one
    assert np.bincount(labels[Holdout(count=7).rows(labels)], minlength=4).tolist() == [4, 2, 1, 0]
    assert Holdout(count=96).rows(labels).sum() == 96  # a class keeps one image for training
    assert "choose at most 96" in failure(64, Holdout(count=97).rows, labels)
    for nothing in (Holdout(0.001), Holdout(count=100), Holdout(0.999)):
        assert "from train" in failure(64, nothing.rows, labels)


RECORDED = [2, 10, 11, 28, 41, 73, 75, 76, 89, 96]


@pytest.mark.parametrize("options", [{"val_fraction": 0.5}, {"holdout": 6}])
def test_texts_give_their_end_from_the_beginning_of_a_line(tmp_path, options):
    source = tree_of(tmp_path / "s", {"train.txt": "a b c\nd e f g\nh\ni\n", "test.txt": "a\n"})
    data = prepare("book", source, root=tmp_path, progress=False, **options)
    said = {split: " ".join(data.vocab()[i] for i in data.tokens(split)) for split in data.splits}
    assert said == {
        "train": "a b c <eos> d e f g <eos>",
        "val": "h <eos> i <eos>",
        "test": "a <eos>",
    }
    assert list(said) == ["train", "val", "test"]


def test_a_text_of_one_line_is_cut_between_words(tmp_path):
    tree_of(tmp_path, {"book.txt": " ".join("abcdefghi")})
    data = prepare("book", tmp_path / "book.txt", root=tmp_path / "d", progress=False, val_fraction=0.3)
    assert data.splits == {"train": 7, "val": 3}


def test_pydoc_and_wikitext_have_val_and_test_already(tmp_path):
    source = zip_of(tmp_path / "w.zip", wikitext_files())
    for name, file in (("wikitext2", source), ("pydoc", None)):
        line = failure(64, prepare, name, file, root=tmp_path / "d", progress=False, holdout=10)
        assert "has val and test already" in line


def test_another_split_is_another_set(tmp_path):
    mnist(tmp_path / "m")
    prepare("mnist", tmp_path / "m", root=tmp_path / "d", progress=False, holdout=10)
    for other in ({}, {"holdout": 11}, {"val_fraction": 0.1}):
        for source in (tmp_path / "m", None):
            line = failure(64, prepare, "mnist", source, root=tmp_path / "d", progress=False, **other)
            assert "with other options; pick another name" in line and "remove" not in line
    assert prepare("mnist", root=tmp_path / "d", holdout=10).splits == {"train": 20, "val": 10, "test": 10}
    digits = prepare("digits", root=tmp_path / "d", progress=False)
    assert digits.splits == {"train": 1437, "test": 360}
    failure(64, prepare, "digits", root=tmp_path / "d", progress=False, holdout=100)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--val-fraction", "1"], "--val-fraction 1.0 is not between 0 and 1"),
        (["--val-fraction", "0"], "--val-fraction 0.0 is not between 0 and 1"),
        (["--val-fraction", "nan"], "--val-fraction nan"),
        (["--holdout", "0"], "--holdout 0 is not a number of images"),
        (["--holdout", "5", "--val-fraction", "0.1"], "not allowed with argument --holdout"),
        (["--holdout", "1437"], "--holdout 1437 takes 1,437 of 1,437 from train"),
        (["--holdout", "1430"], "would leave a class without train images; choose at most 1,427"),
    ],
)
def test_shares_that_make_no_sense(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert main(["digits", *arguments]) == 64
    out, err = capsys.readouterr()
    assert says in err and err.count("\n") == 1 and out == "" and not (tmp_path / "data" / "digits").exists()
