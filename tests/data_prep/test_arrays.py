"""NumPy arrays as people have them, and images with numbers for labels: kept, told, or refused."""

import io
import os

import numpy as np
import pytest
from test_packed import failure

from relaunch.data_prep.arrays import role_of
from relaunch.data_prep.packed import describe, open_packed, verify
from relaunch.data_prep.prep import main
from relaunch.data_prep.recipes import prepare
from relaunch.data_prep.sizes import Sizes
from rigs.prep_sources import picture

R = np.random.default_rng(0)
X, V = R.random((30, 4), np.float32), R.random((10, 4), np.float32)
CLASSES, NUMBERS = np.arange(30) % 3, R.random(30, np.float32) * 100


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "s.npz", **arrays)
    return tmp_path / "s.npz"


def both(y, v=None, x=X, xv=V) -> dict:
    return {"x_train": x, "y_train": y, "x_val": xv, "y_val": y[: len(xv)] if v is None else v}


def pack(tmp_path, arrays: dict, **options):
    return prepare("mine", npz(tmp_path, **arrays), root=tmp_path / "out", progress=False, **options)


def refused(tmp_path, arrays: dict, code=65) -> str:
    line = failure(code, prepare, "mine", npz(tmp_path, **arrays), root=tmp_path / "out", progress=False)
    assert os.listdir(tmp_path / "out") == []
    return line


def notes(data) -> str:
    return " | ".join([*data.meta.get("notes", []), *(f["what"] for f in data.meta.get("changed", []))])


# what is kept -------------------------------------------------------------------------------------


def test_classes(tmp_path):
    data = pack(tmp_path, both(CLASSES))
    verify(data)
    assert np.array_equal(data.inputs("train"), X) and np.array_equal(data.inputs("val"), V)
    assert data.labels("train").dtype == np.int64 and np.array_equal(data.labels("train"), CLASSES)
    assert (data.kind, data.classes, data.eval_split, notes(data)) == ("arrays", ["0", "1", "2"], "val", "")
    assert (data.sizes.shape, data.sizes.outputs, data.sizes.numbers) == ((4,), 3, False)
    assert data.sizes.mean == pytest.approx(X.mean(0, dtype=float), rel=1e-12)
    assert data.sizes.std == pytest.approx(X.std(0, dtype=float), rel=1e-12)
    assert describe(data).startswith("mine: train 30, val 10 arrays 4, 3 classes, ")
    assert Sizes.from_json(data.sizes.to_json()) == data.sizes


@pytest.mark.parametrize("k", [1, 3])
def test_numbers(tmp_path, k):
    y = NUMBERS if k == 1 else R.normal(5, 2, (30, k)).astype(np.float32)
    data = pack(tmp_path, both(y))
    assert data.labels("train").dtype == np.float32 and np.array_equal(data.labels("train"), y)
    known = data.sizes
    assert (known.outputs, known.numbers, known.names, data.classes) == (k, True, (), [])
    assert known.target_mean == pytest.approx(y.reshape(30, k).mean(0, dtype=float))
    assert known.target_std == pytest.approx(y.reshape(30, k).std(0, dtype=float))
    assert Sizes.from_json(known.to_json()) == known


def test_sizes_of_old_checkpoints_still_read():
    old = dict(data="mnist", kind="images", counts={"train": 1}, shape=[1, 28, 28], outputs=10)
    assert Sizes.from_json(old).numbers is False


def test_inputs_of_more_dimensions_share_one_mean(tmp_path):
    x = R.normal(3, 2, (30, 5, 2)).astype(np.float32)
    data = pack(tmp_path, both(CLASSES, x=x, xv=x[:10]))
    assert data.sizes.shape == (5, 2)
    assert data.sizes.mean == pytest.approx([x.mean(dtype=float)])
    assert data.sizes.std == pytest.approx([x.std(dtype=float)])


def test_a_constant_feature_is_divided_by_one_and_said(tmp_path):
    x = X.copy()
    x[:, 2] = 7
    data = pack(tmp_path, both(np.full(30, 4.5, np.float32), x=x))
    assert data.sizes.std[2] == 1 and data.sizes.mean[2] == 7 and data.sizes.target_std == (1.0,)
    assert "1 of 4 columns of train's inputs are constant, the first is column 2" in notes(data)
    assert "1 of 1 columns of train's targets are constant" in notes(data)


@pytest.mark.parametrize(
    "name, role",
    [
        ("x_train.npy", ("train", "inputs")),
        ("Y_Test.npy", ("test", "labels")),
        ("train_images.npy", ("train", "inputs")),
        ("val/inputs.npy", ("val", "inputs")),
        ("some/folder/labels.npy", ("train", "labels")),
        ("targets_valid.npy", ("val", "labels")),
        ("x_train.txt", None),
        ("x_train_old.npy", None),
        ("extra.npy", None),
        ("train.npy", None),
    ],
)
def test_names_that_people_give(name, role):
    assert role_of(name) == role


def test_a_folder_and_what_is_left_out(tmp_path):
    for split, x, y in (("train", X, CLASSES), ("test", V, CLASSES[:10])):
        (tmp_path / "s" / split).mkdir(parents=True)
        np.save(tmp_path / "s" / split / "inputs.npy", x)
        np.save(tmp_path / "s" / split / "labels.npy", y)
    np.save(tmp_path / "s" / "extra.npy", X)
    data = prepare("mine", tmp_path / "s", root=tmp_path / "out", progress=False)
    assert data.splits == {"train": 30, "test": 10}
    assert data.meta["left_out"] == [{"what": "other files", "count": 1, "example": "extra.npy"}]


@pytest.mark.parametrize("y", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_inputs_and_labels_alone_are_train(tmp_path, y):
    arrays = {"inputs": X, "labels": y}
    held = pack(tmp_path, arrays, val_fraction=0.2)
    assert held.splits == {"train": 24, "val": 6}
    rows = {tuple(row) for split in ("train", "val") for row in held.inputs(split)}
    assert rows == {tuple(row) for row in X}
    of = {tuple(x): label for x, label in zip(X, y)}
    assert all(of[tuple(x)] == t for s in held.splits for x, t in zip(held.inputs(s), held.labels(s)))
    whole = prepare("all", npz(tmp_path, **arrays), root=tmp_path / "out", progress=False)
    assert whole.splits == {"train": 30} and "nothing can be scored: add --val-fraction" in notes(whole)


# what is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arrays, words",
    [
        (both(CLASSES, x=X.astype(float) + 1e-12), "values of float64 rounded to float32"),
        (both(CLASSES, x=(X * 9).astype(np.uint8)), "x_train holds uint8: its whole numbers are kept"),
        (both(CLASSES, x=np.full((30, 4), 2**24 + 1)), "values of int64 rounded to float32"),
        (both(CLASSES, x=X[:, 0], xv=V[:, 0]), "x_train has one number for each sample"),
        (both(CLASSES[:, None]), "y_train is [30, 1]: it is kept as [30]"),
        (both(NUMBERS[:, None]), "y_train is [30, 1]: it is kept as [30]"),
        (both(CLASSES * 2 - 1), "labels -1, 1, 3 are the classes 0..2, by these names"),
        (both(np.arange(30)), "30 classes of hardly more samples: store labels as floats"),
        (both(CLASSES.astype(np.float32)), "y_train looks like class numbers, but are floats"),
        (both(np.eye(3)[CLASSES]), "y_train looks like one-hot, but are floats"),
    ],
)
def test_what_is_converted_or_looks_wrong_is_a_line(tmp_path, arrays, words):
    assert words in notes(pack(tmp_path, arrays))


def test_float64_that_float32_holds_is_nobodys_business(tmp_path):
    assert notes(pack(tmp_path, both(NUMBERS.astype(float), x=X.astype(float)))) == ""


def test_words_are_classes(tmp_path):
    data = pack(tmp_path, both(np.array(["no", "yes", "may be"] * 10)))
    assert data.classes == ["may be", "no", "yes"] and data.labels("train")[:3].tolist() == [1, 2, 0]


# what is refused ----------------------------------------------------------------------------------


def with_nan(value=np.nan):
    x = X.astype(float)
    x[7, 1] = x[9, 0] = value
    return x


@pytest.mark.parametrize(
    "arrays, words",
    [
        (both(CLASSES, x=with_nan()), "2 values of x_train are NaN or infinite, the first in row 7"),
        (both(CLASSES, x=with_nan(np.inf)), "NaN or infinite"),
        (both(CLASSES, x=with_nan(1e39)), "2 values of x_train are beyond float32's 3.4e38"),
        (both(with_nan()[:, 1]), "1 values of y_train are NaN"),
        (both(CLASSES, x=X[:29]), "x_train has 29 rows, and y_train 30"),
        (both(CLASSES, xv=V[:, :3]), "inputs of val are [3] each, and of train [4]"),
        (both(X, v=V[:, :3]), "labels of val are [3] each, and of train [4]"),
        (both(CLASSES, v=NUMBERS[:10]), "some labels are whole numbers, some are not"),
        (both(CLASSES, v=CLASSES[:10] + 1), "no train rows for val/3"),
        (both(np.stack([CLASSES] * 2, 1)), "which are no labels"),
        (both(CLASSES, x=np.array([["a"] * 4] * 30)), "which are no numbers"),
        (both(CLASSES, x=X.astype(complex)), "which are no numbers"),
        (both(CLASSES, x=X[:0]), "x_train.npy holds no rows"),
        (both(CLASSES, x=X[:, :0]), "its samples are empty"),
        (both(CLASSES) | {"inputs": X}, "has the train inputs twice"),
        ({"x_train": X, "y_train": CLASSES, "x_val": V}, "x_val has no labels"),
        ({"a": X, "b": CLASSES}, "its arrays are called a, b, not x_train, y_train"),
    ],
)
def test_what_no_set_can_be_made_of(tmp_path, arrays, words):
    assert words in refused(tmp_path, arrays)


def test_nothing_is_unpickled(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'mark'}",)

    line = refused(tmp_path, both(np.array([Payload()] * 30, dtype=object)))
    assert "y_train.npy is not an array that can be read" in line and not (tmp_path / "mark").exists()


def test_a_header_that_promises_more_than_there_is(tmp_path):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f4", "fortran_order": False, "shape": (10**13, 4)}
    )
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "x_train.npy").write_bytes(content.getvalue() + bytes(64))
    np.save(tmp_path / "s" / "y_train.npy", CLASSES)
    assert "x_train.npy is not an array" in failure(
        65, prepare, "mine", tmp_path / "s", root=tmp_path / "out"
    )


# images with numbers ------------------------------------------------------------------------------


def table(tmp_path, ages, name="s.parquet"):
    import datasets

    rows = {"photo": [{"bytes": picture(size=(8, 8))} for _ in ages], "age": ages}
    features = datasets.Features(
        {"photo": datasets.Image(), "age": datasets.Dataset.from_dict({"age": ages}).features["age"]}
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / name)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    "ages, k", [([20.5, 31.0, 4.25, 9.0], 1), ([20, 31, 4, 9], 1), ([[1.0, 2.0]] * 4, 2)]
)
def test_images_with_numbers(tmp_path, ages, k, capsys):
    out = ["--out", str(tmp_path / "out"), "--columns", "image=photo,target=age", "--holdout", "1"]
    assert main(["ages", "--source", table(tmp_path, ages), *out]) == 0
    data = open_packed("ages", tmp_path / "out")
    assert data.labels("train").dtype == np.float32 and data.classes == []
    assert (data.sizes.kind, data.sizes.shape, data.sizes.outputs) == ("images", (3, 8, 8), k)
    assert data.sizes.numbers and len(data.sizes.target_std) == k
    assert "train: 3" in capsys.readouterr().out and data.labels("val").shape == (1, 2)[:k]


@pytest.mark.parametrize(
    "ages, columns, code, words",
    [
        ([None, 3.0], "image=photo,target=age", 65, "age of train row 0 is empty"),
        ([2.0, float("nan")], "image=photo,target=age", 65, "NaN or infinite, the first in row 1"),
        (["a", "b"], "image=photo,target=age", 65, "which are no numbers"),
        ([[1.0], [1.0, 2.0]], "image=photo,target=age", 65, "rows of several lengths"),
        ([1.5, 2.5], "image=photo,label=age", 65, "or target=… for numbers to predict"),
        ([1.5, 2.5], "image=photo,label=age,target=age", 64, "use label= for classes"),
    ],
)
def test_numbers_that_are_none(tmp_path, ages, columns, code, words, capsys):
    source = table(tmp_path, ages)
    assert main(["ages", "--source", source, "--out", str(tmp_path), "--columns", columns]) == code
    assert words in capsys.readouterr().err
