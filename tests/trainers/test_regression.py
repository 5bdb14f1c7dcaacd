"""Regressions for real: trained, stopped, resumed, scored, and two checkpoints compared by the sign test."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scipy.stats import binomtest
from sklearn.metrics import mean_absolute_error, r2_score

from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.recipes import prepare
from relaunch.data_prep.writer import Writer
from relaunch.trainers import diff, evaluate
from relaunch.trainers.compare import changes, predictions
from relaunch.trainers.tasks.regression import NUMBERS
from rigs import REPOSITORY
from rigs.runs import outcome, records

DIABETES = str(REPOSITORY / "examples/diabetes.py")
AGES = """
from relaunch.trainers.tasks.images import ImageOptions
from relaunch.trainers.tasks.regression import ImageRegressionTask
from relaunch.trainers.workloads import Workload

def model(config, sizes):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(sizes.outputs))

WORKLOAD = Workload(name="ages", about="", task=ImageRegressionTask(), data="ages", archs=("linear",),
                    options=ImageOptions, model=model, defaults=dict(batch_size=8, optimizer="adam", lr=0.01))
"""


@pytest.fixture
def table(relaunch_env, monkeypatch):
    """table(k): a packed set `table` of K numbers linear in the inputs, and noise; returns labels."""
    monkeypatch.setenv("RELAUNCH_DATA", "data")

    def make(k: int) -> np.ndarray:
        random = np.random.default_rng(0)
        x = random.normal(40, 5, (90, 4))
        y = x @ random.normal(0, [30, 1, 0.1][:k], (4, k)) + random.normal(0, [30, 1, 0.1][:k], (90, k))
        np.savez("s.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
        prepare("table", "s.npz", progress=False)
        return open_packed("table", "data").labels("test")

    return make


@pytest.mark.parametrize("k", [1, 3])
def test_a_regression_from_the_table_to_the_diff(table, train, capfd, k):
    truth = table(k)
    flags = (DIABETES, "--data", "table", "-b", 16, "--epochs", 4, "--log-interval", 3)
    assert train(*flags, "--run", "whole") == 0
    assert train(*flags, "--run", "parts", "--stop-after", 7) == 75
    assert train(*flags, "--run", "parts", "--resume", "auto") == 0
    assert outcome(Path("runs/parts")) == outcome(Path("runs/whole"))

    logged = records(Path("runs/whole"))
    seen = {split: [r for r in logged if r["split"] == split and "loss" in r] for split in ("train", "val")}
    assert {"loss", "mae"} <= set(seen["train"][0]) and {"loss", "mae", "r2"} <= set(seen["val"][0])
    assert seen["val"][-1]["loss"] < seen["val"][0]["loss"], "it learns"

    for source in ("whole@8", "whole"):
        assert evaluate.run([source, "--threads", "1"]) == (0, None)
    a, b = (predictions.read(p) for p in sorted(Path("runs/whole/predictions").glob("*.parquet")))
    for p in (a, b):
        assert np.array_equal(p.truth, truth) and p.guess.shape == truth.shape and p.loss.shape == (26,)
        found = p.facts["metrics"]
        assert found["mae"] == pytest.approx(mean_absolute_error(truth, p.guess), rel=1e-6)
        assert found["r2"] == pytest.approx(r2_score(truth, p.guess), rel=1e-6)
        assert p.roles.columns["guess"] == ("float32" if k == 1 else "float32[]")
    assert b.facts["metrics"]["mae"] == seen["val"][-1]["mae"], "evaluated as in training"

    capfd.readouterr()
    assert diff.run(["whole@8", "whole", "--out", "out"]) == (0, None)
    shown = capfd.readouterr().out
    result = json.loads(Path("out/diff.json").read_text(), parse_constant=pytest.fail)
    worse, better = int((b.loss > a.loss).sum()), int((b.loss < a.loss).sum())
    assert (result["worse"], result["better"], result["agree"]) == (worse, better, 0)
    assert result["sign_p"] == pytest.approx(binomtest(worse, worse + better).pvalue, rel=1e-9)
    change = b.loss.astype(float) - a.loss
    assert result["mean_loss_change"] == pytest.approx(change.mean())
    assert result["changed"] == np.argsort(-abs(change), kind="stable").tolist()
    rows = pq.read_table("out/changed.parquet").to_pydict()
    assert np.allclose(rows["target"], truth[rows["id"]]) and np.allclose(
        rows["guess_b"], b.guess[rows["id"]]
    )
    assert rows["loss_a"] == a.loss[rows["id"]].tolist()
    assert sorted(p.name for p in Path("out").iterdir()) == ["changed.parquet", "diff.html", "diff.json"]
    assert "exact p of the sign test" in shown and "mean absolute error" in shown and "nats" not in shown
    assert f"#{result['changed'][0]} " in shown and "top-1" not in shown

    Path("copy.parquet").write_bytes(b.path.read_bytes())
    assert diff.run(["whole", "copy.parquet", "--fail-under", "100", "--out", "out"]) == (0, None)
    assert "no differences: all 26 predictions are the same" in capfd.readouterr().out


def test_scored_on_other_data_it_reads_and_speaks_as_it_was_trained(table, train):
    """Its inputs by the training set's mean, its guesses by the training targets' deviation."""
    table(1)
    assert (
        train(DIABETES, "--data", "table", "-b", 16, "--epochs", 2, "--arch", "linear", "--run", "first") == 0
    )
    random = np.random.default_rng(1)
    x, y = random.normal(90, 1, (40, 4)).astype(np.float32), random.normal(0, 1, 40)
    np.savez("o.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    prepare("other", "o.npz", progress=False)
    assert evaluate.run(["first", "--data", "other", "--out", "out", "--threads", "1"]) == (0, None)
    [path] = Path("out").glob("*.parquet")
    [weights] = Path("runs/first/checkpoints").glob("step-000000008/model.safetensors")
    model, was = load_file(weights), open_packed("table", "data").sizes
    inputs = (x - np.float32(was.mean)) / np.float32(was.std)
    said = inputs @ model["weight"].T + model["bias"]
    assert np.allclose(predictions.read(path).guess, said[:, 0] * was.target_std + was.target_mean, rtol=1e-4)


def test_images_with_numbers(table, train, capfd):
    writer, random = Writer(Path("data/ages")), np.random.default_rng(0)
    writer.folder.mkdir(parents=True)
    for split, n in (("train", 64), ("val", 20)):
        ages = random.uniform(1, 90, n)
        images = (random.integers(0, 40, (n, 8, 8, 1)) + 2 * ages[:, None, None, None]).astype(np.uint8)
        writer.images(split, ages, (8, 8, 1), [(range(n), images)])
    writer.finish("ages", "hub", {}, {})
    Path("ages.py").write_text(AGES)
    flags = ("./ages.py", "--crop", 1, "--flip", "--epochs", 8, "--run", "first")
    assert train(*flags) == 0
    values = [r["r2"] for r in records(Path("runs/first")) if r["split"] == "val"]
    assert values[-1] > 0.8
    for source in ("first@48", "first"):
        evaluate.run([source, "--threads", "1"])
    assert diff.run(["first@48", "first", "--out", "out"]) == (0, None)
    with Image.open("out/changed.png") as picture:
        assert picture.width > 8 * 150 and picture.height > 3 * 150
    table_ = pq.read_table("out/changed.parquet")
    assert table_.column_names == ["id", "target", "guess_a", "loss_a", "guess_b", "loss_b"]

    capfd.readouterr()
    assert train("mnist", "--data", "ages") == 64
    said = "mnist predicts classes, and the labels of ages are numbers"
    assert (
        f"{said}; choose another --data, or a workload whose task is ImageRegressionTask"
        in capfd.readouterr().err
    )


# the comparison alone -----------------------------------------------------------------------------


def made(loss, guess, truth=None):
    columns = {"loss": np.asarray(loss, np.float32), "guess": np.asarray(guess, np.float32)}
    columns["target"] = np.zeros_like(columns["guess"]) if truth is None else truth
    return predictions.Predictions(columns, NUMBERS, {"n": len(loss)}, Path())


@pytest.mark.parametrize("seed", range(4))
def test_the_sign_test_is_scipys(seed):
    random = np.random.default_rng(seed)
    a, b = (made(random.integers(0, 4, 50), random.normal(size=50)) for _ in "ab")
    result, changed = changes.compare(a, b, [])
    rose, fell = int((b.loss > a.loss).sum()), int((b.loss < a.loss).sum())
    assert result["sign_p"] == pytest.approx(binomtest(rose, rose + fell).pvalue, rel=1e-9)
    assert result["worse"] + result["better"] + result["same_loss"] + result["agree"] == 50
    assert set(changed) == set(range(50)) and result["same_loss"] == 50 - rose - fell > 0


def test_guesses_on_either_side_of_the_truth_do_not_agree():
    """Their losses are one, and the predictions are not: a gate of 100 % must see it."""
    result, changed = changes.compare(made([1, 4], [1, 2]), made([1, 4], [1, -2]), [])
    assert (result["agree"], result["agreement"], result["same_loss"]) == (1, 50.0, 1)
    assert changed.tolist() == [1] and not result["identical"] and result["sign_p"] == 1


def test_of_several_numbers_one_is_enough_to_differ():
    a, b = made([1, 1], [[1, 2], [3, 4]]), made([1, 1], [[1, 2], [3, 5]])
    result, changed = changes.compare(a, b, [])
    assert changed.tolist() == [1] and result["agree"] == 1


def test_nan_agrees_with_nan_and_with_nothing_else():
    nan = float("nan")
    a, b = made([nan, nan, 1], [nan, 1, 1]), made([nan, 2, 1], [nan, 1, 1])
    result, changed = changes.compare(a, b, [])
    assert result["agree"] == 2 and changed.tolist() == [1] and result["mean_loss_change"] is None
