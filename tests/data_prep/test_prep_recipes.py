"""Every recipe packs what its source holds: pixels, labels, words and their order."""

import io
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_packed import failure

from relaunch.data_prep.recipes import RECIPES, prepare
from rigs.prep_sources import (
    ROOT,
    cifar10,
    image_folder_files,
    mnist,
    picture,
    prep,
    tiny_imagenet_files,
    tree_of,
    wikitext_files,
    zip_of,
)


@pytest.mark.parametrize("form", ["gz", "plain", "raw folder", "zip", "tar"])
def test_mnist_from_every_form(tmp_path, form):
    folder = tmp_path / "s" / "MNIST" / "raw" if form == "raw folder" else tmp_path / "s"
    content = mnist(folder, compress=form != "plain")
    source = tmp_path / "s"
    if form in ("zip", "tar"):
        source = shutil.make_archive(tmp_path / "packed", form, source)
    data = prepare("mnist", source, root=tmp_path, progress=False)
    for split, (images, labels) in content.items():
        assert np.array_equal(data.images(split)[..., 0], images) and np.array_equal(
            data.labels(split), labels
        )


def test_cifar10_from_archive_and_folder(tmp_path):
    pixels = cifar10(tmp_path / "cifar-10-python.tar.gz")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz") as archive:
        archive.extractall(tmp_path / "s", filter="data")
    one = prepare("cifar10", tmp_path / "cifar-10-python.tar.gz", root=tmp_path / "a", progress=False)
    two = prepare("cifar10", tmp_path / "s" / "cifar-10-batches-py", root=tmp_path / "b", progress=False)
    assert one.hash == two.hash and one.splits == {"train": 20, "test": 4}
    assert (
        one.classes == [f"class{k}" for k in range(10)] and one.labels("train").tolist() == [0, 1, 2, 3] * 5
    )
    assert np.array_equal(one.images("train"), pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def test_tiny_imagenet_labels_grey_images_and_folders(tmp_path):
    source = zip_of(tmp_path / "tiny-imagenet-200.zip", tiny_imagenet_files())
    done = subprocess.run(
        prep("tiny_imagenet", "--source", source, "--out", tmp_path, "--as-folders"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    data = prepare("tiny_imagenet", root=tmp_path)
    assert data.classes == ["tench, fish", "goldfish"]  # n01, n02: sorted ids
    assert data.splits == {"train": 6, "val": 4} and data.eval_split == "val"
    assert data.labels("train").tolist() == [0, 0, 0, 1, 1, 1]
    assert data.labels("val").tolist() == [1, 0, 1, 0]  # val_0 and val_2 are annotated n02
    grey = data.images("train")[0]  # [64,64,3]
    assert grey.shape == (64, 64, 3) and (abs(grey.astype(int) - 77) <= 2).all()
    with zipfile.ZipFile(source) as archive:
        image = Image.open(io.BytesIO(archive.read("tiny-imagenet-200/val/images/val_3.JPEG")))
    assert np.array_equal(data.images("val")[3], np.asarray(image))
    from torchvision.datasets import ImageFolder

    val = ImageFolder(tmp_path / "tiny_imagenet-folders" / "val")
    assert val.classes == ["n01", "n02"] and [label for _, label in val.samples] == [0, 0, 1, 1]
    assert len(ImageFolder(tmp_path / "tiny_imagenet-folders" / "train")) == 6


def test_tiny_imagenet_from_a_folder_is_the_same_data(tmp_path):
    files = tiny_imagenet_files()
    one = prepare("tiny_imagenet", zip_of(tmp_path / "t.zip", files), root=tmp_path / "a", progress=False)
    two = prepare("tiny_imagenet", tree_of(tmp_path / "t", files), root=tmp_path / "b", progress=False)
    assert one.hash == two.hash


def test_wikitext2_reads_words_as_pytorch_examples_does(tmp_path):
    data = prepare("wikitext2", zip_of(tmp_path / "w.zip", wikitext_files()), root=tmp_path, progress=False)
    words = data.vocab()
    assert words == "<eos> = A title the cat sat dog a new".split()
    said = {split: " ".join(words[i] for i in data.tokens(split)) for split in data.splits}
    assert said == {
        "train": "<eos> = A title = <eos> <eos> the cat sat <eos>",
        "val": "the dog sat <eos>",
        "test": "a new cat <eos> <eos>",
    }
    assert data.tokens("train").dtype == np.uint16 and data.kind == "text"


@pytest.mark.parametrize(
    "names", [("train.txt", "valid.txt", "test.txt"), ("my-train.tokens", "my-val.tokens", "my-test.tokens")]
)
def test_any_three_text_files(tmp_path, names):
    source = tree_of(tmp_path / "s", dict(zip(names, ("a b\r\n\n", "ä\n", "c"))))
    data = prepare("book", source, root=tmp_path, progress=False)
    assert data.vocab() == ["a", "b", "<eos>", "ä", "c"] and data.splits == {"train": 4, "val": 2, "test": 2}


def test_a_large_vocabulary_takes_uint32(tmp_path):
    many = " ".join(map(str, range(70_000)))
    data = prepare(
        "book",
        tree_of(tmp_path / "s", {"train.txt": many, "val.txt": "69999"}),
        root=tmp_path,
        progress=False,
    )
    assert data.tokens("val").dtype == np.uint32 and data.vocab()[data.tokens("val")[0]] == "69999"


@pytest.mark.parametrize("form", ["folder", "zip", "gztar"])
def test_image_folder(tmp_path, form):
    files = image_folder_files(splits=("train", "valid", "test"))
    source = tree_of(tmp_path / "s" / "pets", files)
    if form != "folder":
        source = shutil.make_archive(tmp_path / "pets", form, tmp_path / "s")
    data = prepare("pets", source, root=tmp_path, progress=False)
    assert data.classes == ["cat", "dog"] and data.splits == {"train": 12, "val": 12, "test": 12}
    assert data.labels("val").tolist() == [0] * 6 + [1] * 6
    assert np.array_equal(
        data.images("train")[7], np.asarray(Image.open(io.BytesIO(files["train/dog/1.png"])))
    )
    assert data.images("train").shape == (12, 16, 20, 3)


def test_images_of_different_sizes_need_size(tmp_path):
    files = image_folder_files() | {"train/cat/wide.png": picture(size=(60, 30), value=9)}
    source = tree_of(tmp_path / "s", files)
    line = failure(64, prepare, "pets", source, root=tmp_path, progress=False)
    assert "train/cat/wide.png is 60x30" in line and "--size N" in line
    data = prepare("pets", source, root=tmp_path, size=8, progress=False)
    assert data.images("train").shape == (13, 8, 8, 3) and (data.images("train")[6] == 9).all()
    assert "other options" in failure(64, prepare, "pets", source, root=tmp_path, size=9, progress=False)


def test_resizing_agrees_with_torchvision(tmp_path):
    from torchvision.transforms import v2

    files = {
        f"{split}/x/{k}.png": picture(size=size)
        for split in ("train", "val")
        for k, size in enumerate([(40, 31), (33, 50)])
    }
    data = prepare("odd", tree_of(tmp_path / "s", files), root=tmp_path, size=16, progress=False)
    expected = v2.Compose([v2.Resize(16), v2.CenterCrop(16)])
    for k in range(2):
        assert np.array_equal(
            data.images("train")[k], np.asarray(expected(Image.open(io.BytesIO(files[f"train/x/{k}.png"]))))
        )


def test_grey_folders_keep_one_channel_and_mixed_ones_become_rgb(tmp_path):
    grey = image_folder_files(mode="L")
    assert (
        prepare("grey", tree_of(tmp_path / "g", grey), root=tmp_path, progress=False).images("val").shape[-1]
        == 1
    )
    mixed = tree_of(tmp_path / "m", grey | {"val/dog/0.png": picture(size=(20, 16))})
    assert prepare("mixed", mixed, root=tmp_path, progress=False).images("val").shape[-1] == 3


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    files = [picture(size=(10, 12)) for _ in range(6)]
    features = datasets.Features({"photo": datasets.Image(), "kind": datasets.Value("string")})
    rows = {"photo": [{"bytes": content, "path": None} for content in files], "kind": ["dog", "cat"] * 3}
    return datasets.Dataset.from_dict(rows, features=features), files


@pytest.mark.parametrize("form", ["parquet", "save_to_disk"])
def test_hub_datasets_on_disk(tmp_path, table, form):
    import datasets

    rows, files = table
    if form == "parquet":
        (tmp_path / "s").mkdir()
        rows.to_parquet(tmp_path / "s" / "train.parquet")
        rows.to_parquet(tmp_path / "s" / "test.parquet")
    else:
        datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "s")
    assert "no column 'label'" in failure(64, prepare, "mine", tmp_path / "s", root=tmp_path, progress=False)
    columns = {"image": "photo", "label": "kind"}
    data = prepare("mine", tmp_path / "s", columns=columns, root=tmp_path, progress=False)
    assert (
        data.classes == ["cat", "dog"]
        and data.labels("test").tolist() == [1, 0] * 3
        and data.splits == {"train": 6, "test": 6}
    )
    assert np.array_equal(data.images("train")[5], np.asarray(Image.open(io.BytesIO(files[5]))))
    prepare(
        "mine", tmp_path / "s", columns=columns, root=tmp_path, progress=False
    )  # the same content: left alone


def test_hub_text_and_class_labels(tmp_path, table):
    import datasets

    texts = datasets.Dataset.from_dict({"body": ["a b", "", "b\nc"]})
    texts.to_parquet(tmp_path / "train.parquet")
    data = prepare(
        "words", tmp_path / "train.parquet", columns={"text": "body"}, root=tmp_path, progress=False
    )
    assert [data.vocab()[i] for i in data.tokens("train")] == "a b <eos> <eos> b <eos> c <eos>".split()
    rows, _ = table
    labelled = rows.cast_column("kind", datasets.ClassLabel(names=["dog", "bird", "cat"]))
    labelled.to_parquet(tmp_path / "labelled.parquet")
    data = prepare("labelled", tmp_path / "labelled.parquet", root=tmp_path, progress=False)
    assert data.classes == ["dog", "bird", "cat"] and data.labels("train").tolist() == [0, 2] * 3


def test_an_unknown_hub_id_is_one_line(tmp_path):
    done = subprocess.run(
        prep("x", "--source", "hub:no-such-user/no-such-set", "--out", tmp_path),
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 65 and done.stderr.count("\n") == 1, done.stderr


def test_embedded_sets(tmp_path):
    from sklearn.datasets import load_digits

    digits = prepare("digits", root=tmp_path, progress=False)
    assert digits.splits == {"train": 1437, "test": 360} and digits.images("train").shape == (1437, 28, 28, 1)
    test = np.bincount(digits.labels("test"))
    assert np.array_equal(test + np.bincount(digits.labels("train")), np.bincount(load_digits().target))
    assert test.min() >= 34 and test.max() <= 37  # a fifth of every digit
    text = prepare("pydoc", root=tmp_path, progress=False)
    share = {split: count / sum(text.splits.values()) for split, count in text.splits.items()}
    assert (
        share == pytest.approx({"train": 0.8, "val": 0.1, "test": 0.1}, abs=0.03)
        and text.splits["train"] > 50_000
    )
    train = np.bincount(text.tokens("train"), minlength=len(text.vocab()))
    assert train.min() > 0 and "<unk>" in text.vocab()  # no word is only in val or test


def test_no_module_imports_torch_or_its_neighbours():
    program = (
        "import sys; from importlib import import_module; from relaunch.data_prep import prep;"
        f"[import_module(f'relaunch.data_prep.{{name}}') for name in {RECIPES}];"
        "heavy = {'torch', 'PIL', 'datasets', 'sklearn', 'torchvision'};"
        "heavy |= {'relaunch.launch', 'relaunch.trainers'};"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([prep()[0], "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")
