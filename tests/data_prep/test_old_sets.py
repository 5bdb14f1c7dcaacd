"""Sets that earlier versions packed stay good: their data hash is the same, and they open, verify and train.

tests/fixtures/v0.1/data/*/meta.json are as version 0.1.0 wrote them. Their arrays are made here, from the
numbers that it packed.
"""

import hashlib
import json
import shutil

import numpy as np
import pytest
from test_packed import failure

from relaunch.data_prep.packed import data_hash, open_packed, verify
from relaunch.data_prep.recipes import prepare
from rigs import REPOSITORY
from rigs.prep_sources import idx, tree_of

RECORDED = REPOSITORY / "tests" / "fixtures" / "v0.1" / "data"
COUNTS = {"train": 12, "test": 10}
WORDS = {"train": 60, "val": 20, "test": 20}
HASHES = {
    "pictures": "e63854a518f79b8542169f373bcb495a31e497bea7ba3a4f755093f815b4a873",
    "words": "9217ef9ac6377667c37dd5639df69dbafbe0f5aef3d5bf6902c9b70b839c874a",
}


def pixels(count: int) -> np.ndarray:
    """uint8 [N,28,28,1] that look like noise and are the same in every version of NumPy."""
    return (np.arange(count * 784) * 2654435761 % 2**32 >> 24).astype(np.uint8).reshape(count, 28, 28, 1)


def words(count: int) -> list[str]:
    return [f"w{i * i % 7}" for i in range(count)]


@pytest.fixture
def old(tmp_path):
    """A data root with `pictures` and `words` as 0.1.0 left them."""
    shutil.copytree(RECORDED, tmp_path / "data")
    for split, count in COUNTS.items():
        (tmp_path / "data" / "pictures" / split).mkdir()
        np.save(tmp_path / "data" / "pictures" / split / "images.npy", pixels(count))
        np.save(tmp_path / "data" / "pictures" / split / "labels.npy", np.arange(count) % 10)
    vocab = ["w0", "w1", "w4", "w2", "<eos>"]
    (tmp_path / "data" / "words" / "vocab.txt").write_text("".join(f"{word}\n" for word in vocab))
    for split, count in WORDS.items():
        (tmp_path / "data" / "words" / split).mkdir()
        ids = np.array([vocab.index(word) for word in (*words(count), "<eos>")], np.uint16)
        np.save(tmp_path / "data" / "words" / split / "tokens.npy", ids)
    return tmp_path / "data"


@pytest.mark.parametrize("name", HASHES)
def test_the_hash_of_the_data_never_changes(name):
    meta = json.loads((RECORDED / name / "meta.json").read_text())
    assert meta["hash"] == HASHES[name] == data_hash(meta)
    # the rule in words: sorted JSON of these four, SHA-256
    four = {key: meta[key] for key in ("arrays", "classes", "kind", "schema")}
    assert hashlib.sha256(json.dumps(four, sort_keys=True).encode()).hexdigest() == HASHES[name]


@pytest.mark.parametrize("name", HASHES)
def test_only_schema_kind_classes_and_arrays_are_hashed(old, name):
    meta = json.loads((old / name / "meta.json").read_text())
    new = meta | {"licence": "CC0", "made_by": "relaunch 9.9", "name": "other", "mean": [0.1], "std": [0.2]}
    (old / name / "meta.json").write_text(json.dumps(new))
    verify(open_packed(name, old))
    changes = {"schema": 2, "kind": "sounds", "classes": ["x"], "arrays": {}}
    assert len({data_hash(new | {key: value}) for key, value in changes.items()} | {HASHES[name]}) == 5


@pytest.mark.parametrize("name", HASHES)
def test_an_old_set_opens_and_verifies(old, name):
    packed = open_packed(name, old)
    verify(packed)
    assert packed.hash == HASHES[name] and packed.meta["made_by"].startswith("relaunch 0.1.0")


def test_an_old_set_that_changed_does_not_verify(old):
    meta = json.loads((old / "words" / "meta.json").read_text())
    (old / "words" / "meta.json").write_text(json.dumps(meta | {"classes": ["x"]}))
    assert "its hash does not fit its contents" in failure(65, verify, open_packed("words", old))


def test_the_same_source_packed_today_is_the_same_data(tmp_path):
    images, labels = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
    source = {}
    for stem, count in (("train", COUNTS["train"]), ("t10k", COUNTS["test"])):
        source[images.format(stem)] = idx(pixels(count)[..., 0])
        source[labels.format(stem)] = idx(np.arange(count) % 10)
    tree_of(tmp_path / "images", source)
    tree_of(tmp_path / "text", {f"{s}.txt": " ".join(words(n)) + "\n" for s, n in WORDS.items()})
    pictures = prepare("pictures", tmp_path / "images", recipe="mnist", root=tmp_path, progress=False)
    text = prepare("words", tmp_path / "text", root=tmp_path, progress=False)
    assert {"pictures": pictures.hash, "words": text.hash} == HASHES


def test_old_sets_train(old, train):
    small = ["--bptt", "4", "--emsize", "8", "--nhid", "8", "--nhead", "1", "--nlayers", "1"]
    assert train("mnist", "--data", "pictures", "--data-root", old, "-b", 4, "--max-steps", 2) == 0
    assert train("wikitext2", "--data", "words", "--data-root", old, "-b", 2, "--max-steps", 2, *small) == 0
