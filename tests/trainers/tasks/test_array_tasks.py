"""Tasks of arrays and of numbers: what model, loss and rows see, and what a hook may not return."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from torch import nn

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.recipes import prepare
from relaunch.data_prep.writer import Writer
from relaunch.trainers import workloads
from relaunch.trainers.build import make_batches, make_model
from relaunch.trainers.config import parse
from relaunch.trainers.tasks import sample_batches
from relaunch.trainers.tasks.arrays import ArrayTask, NoOptions
from relaunch.trainers.tasks.images import ImageOptions, ImageTask
from relaunch.trainers.tasks.regression import ImageRegressionTask, RegressionTask
from relaunch.trainers.tasks.task import Facts
from relaunch.trainers.tryout import try_out
from relaunch.trainers.workloads import Workload

CPU, R = torch.device("cpu"), np.random.default_rng(0)


def net(config, sizes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(sizes.outputs))


@pytest.fixture
def made(tmp_path):
    """made(task, labels [24] or [24,K], inputs): batches, scorer and model of a workload of that task."""
    known = []

    def make(task, labels, inputs=None, flags=(), model=net, options=NoOptions):
        if isinstance(task, ImageTask):
            writer = Writer(tmp_path / "own")
            writer.folder.mkdir()
            writer.classes = [] if labels.dtype.kind == "f" else ["a", "b", "c"]
            pixels = R.integers(0, 256, (24, 8, 8, 1), np.uint8)
            for split in ("train", "val"):
                writer.images(split, labels, (8, 8, 1), [(range(24), pixels)])
            writer.finish("own", "folder", {}, {})
        else:
            x = R.normal(50, 9, (24, 5)) if inputs is None else inputs
            np.savez(tmp_path / "s.npz", x_train=x, y_train=labels, x_val=x, y_val=labels)
            prepare("own", tmp_path / "s.npz", root=tmp_path, progress=False)
        packed = open_packed("own", tmp_path)
        work = Workload(
            name="own", about="", task=task, data="own", archs=("net",), options=options, model=model
        )
        workloads.register(work)
        known.append(work)
        config = parse(["own", "-b", "8", *flags]).config
        batches = make_batches(config, packed, CPU)
        return batches, task.scorer(config, packed, "val", CPU), make_model(config, packed.sizes)

    yield make
    for work in known:
        workloads.unregister(work)


def score(scorer, model):
    with torch.no_grad():
        return scorer.score(model, 0)


ROW = np.arange(24)
NUMBERS = {1: 1000 + 200 * R.normal(size=24), 3: R.normal([5, 1000, -0.01], [1, 300, 0.001], (24, 3))}


@pytest.mark.parametrize("shape", [(5,), (4, 6), (2, 3, 3)])
def test_inputs_are_normalised_by_feature_or_as_a_whole(made, shape):
    x = R.normal(7, 3, (24, *shape)).astype(np.float32)
    batches, scorer, _ = made(ArrayTask(), ROW % 3, x)
    found, labels = batches.batch(0, 0)
    ids = batches.ids[:8].numpy()
    axis = 0 if len(shape) == 1 else None
    expected = ((x - x.mean(axis, dtype=float)) / x.std(axis, dtype=float))[ids]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32), atol=1e-5)
    assert labels.tolist() == (ids % 3).tolist() and batches.sums == 4
    rows = scorer.score(lambda x: torch.eye(3)[[0] * len(x)], 0)
    assert (rows["label"] == ROW % 3).all() and (rows["pred"] == 0).all()


@pytest.mark.parametrize("k", [1, 3])
def test_numbers_train_scaled_and_are_scored_in_their_own_unit(made, k):
    y = NUMBERS[k].astype(np.float32)
    batches, scorer, model = made(RegressionTask(), y)
    x, target = batches.batch(0, 0)
    own = y[batches.ids[:8].numpy()]
    assert torch.allclose(target, torch.tensor((own - y.mean(0)) / y.std(0)), atol=2e-4)
    loss, kept = batches.loss(model, (x, target))
    sums = [0.0] * batches.sums
    batches.add(sums, [kept, kept])
    said = model(x).detach().numpy().reshape(target.shape)
    metrics = batches.metrics(sums)
    assert metrics["loss"] == pytest.approx(((said - target.numpy()) ** 2).mean(), rel=1e-5)
    assert metrics["mae"] == pytest.approx(abs(said * y.std(0) + y.mean(0) - own).mean(), rel=1e-4)

    rows = score(scorer, model)
    assert np.array_equal(rows["target"], y), "not a bit of them changed"
    all_x = scorer.data.normalise(scorer.data.inputs)
    guess = model(all_x).detach().numpy().reshape(y.shape) * y.std(0) + y.mean(0)
    assert rows["guess"].shape == y.shape and np.allclose(rows["guess"], guess, rtol=1e-4)
    assert rows["loss"].shape == (24,)
    found = batches.task.summarise(rows)
    assert found["r2"] == pytest.approx(r2_score(y, rows["guess"]), rel=1e-5)
    assert found["mae"] == pytest.approx(abs(y.astype(float) - rows["guess"]).mean(), rel=1e-6)
    scaled = ((y - rows["guess"]) / y.std(0)) ** 2
    assert rows["loss"] == pytest.approx(scaled.reshape(24, -1).mean(1), rel=2e-3, abs=1e-5)


def test_r2_of_a_constant_target_is_scikit_learns():
    for guess in (np.full(4, 2.0), np.arange(4.0)):
        rows = {"target": np.full(4, 2.0), "guess": guess, "loss": guess}
        assert RegressionTask().summarise(rows)["r2"] == r2_score(rows["target"], guess)


def test_images_with_numbers_and_cutmix(made):
    y = NUMBERS[1].astype(np.float32)
    task, flags = ImageRegressionTask(), ("--cutmix", "1", "--crop", "2", "--flip")
    batches, scorer, model = made(task, y, flags=flags, options=ImageOptions)
    x, target, other, share = batches.batch(0, 0)
    of = torch.tensor((y - y.mean()) / y.std())
    assert torch.allclose(target, of[batches.ids[:8]], atol=2e-4) and set(other.tolist()) == set(
        target.tolist()
    )
    assert share.min() >= 0 and share.max() <= 1
    loss, _ = batches.loss(model, (x, target, other, share))
    said = model(x)[:, 0]
    mixed = share * (said - target) ** 2 + (1 - share) * (said - other) ** 2
    assert loss.item() == pytest.approx(mixed.mean().item(), rel=1e-5)
    assert np.array_equal(score(scorer, model)["target"], y)


def test_label_smoothing_of_numbers_is_refused(made):
    with pytest.raises(Failure, match="--label-smoothing is for classes"):
        flags = ("--label-smoothing", "0.1")
        made(ImageRegressionTask(), NUMBERS[1], flags=flags, options=ImageOptions)


@pytest.mark.parametrize(
    "task, labels, words",
    [
        (ImageTask(), NUMBERS[1], "own predicts classes, and the labels of own are numbers"),
        (ArrayTask(), NUMBERS[3], "predicts classes, and the labels of own are numbers"),
        (RegressionTask(), ROW % 3, "own predicts numbers, and the labels of own are classes"),
    ],
)
def test_labels_of_the_other_kind_are_refused_with_the_task_to_use(made, task, labels, words):
    with pytest.raises(Failure, match=words) as refused:
        made(task, labels)
    other = {ImageTask: "ImageRegressionTask", ArrayTask: "RegressionTask", RegressionTask: "ArrayTask"}
    assert refused.value.code == 64 and refused.value.fix.endswith(f"task is {other[type(task)]}")


def test_a_model_that_says_more_than_a_guess(made):
    """A mean and a log-variance: only `guess`, `loss` and `columns` know."""

    class Uncertain(RegressionTask):
        def guess(self, config, outputs):
            return outputs[:, :1]

        def loss(self, config, outputs, target):
            mean, log_var = outputs.unbind(1)
            return ((mean - target) ** 2 / log_var.exp() + log_var).mean()

    model = lambda config, sizes: nn.LazyLinear(2)  # noqa: E731
    y = NUMBERS[1].astype(np.float32)
    batches, scorer, model = made(Uncertain(), y, model=model)
    batches.loss(model, batches.batch(0, 0))
    rows = score(scorer, model)
    assert rows["guess"].shape == (24,) and rows["outputs"].shape == (24, 2)


def test_several_outputs_are_kept_each_by_its_name():
    said = {"mean": torch.zeros(4, 2), "parts": [torch.ones(4), (torch.ones(4, 1), torch.ones(3))], "n": 4}
    named = sample_batches.named(said, 4)
    assert {name: list(t.shape) for name, t in named.items()} == {
        "outputs.mean": [4, 2],
        "outputs.parts.0": [4],
        "outputs.parts.1.0": [4, 1],
    }  # of what has a row for each sample
    assert list(sample_batches.named(torch.ones(4), 4)) == ["outputs"]
    assert not sample_batches.named(torch.ones(3), 4) and not sample_batches.named(None, 4)


# hooks of one's own -------------------------------------------------------------------------------

LOSS = Facts(columns={"loss": "float32"}, loss="loss")


class Own(ArrayTask):
    """A task without classes: its target is the input."""

    facts = LOSS

    def prepare(self, config, x, labels, random, training):
        return x + random(x.shape[1]), x

    def loss(self, config, outputs, target):
        return (outputs - target).square().mean()

    def columns(self, config, outputs, target):
        return {"loss": (outputs - target).square().mean(1)}


def same(config, sizes):
    return nn.Linear(5, 5)


def changed(base=Own, **parts):
    return type("Mine", (base,), parts)()


@pytest.mark.parametrize("labels", [ROW % 3, NUMBERS[1]], ids=["classes", "numbers"])
def test_only_what_differs_is_written(made, labels):
    task = Own()
    batches, scorer, model = made(task, labels, model=same)
    loss, kept = batches.loss(model, batches.batch(0, 0))
    sums = [0.0, 0.0]
    batches.add(sums, [kept])
    assert batches.metrics(sums) == {"loss": loss.item()}
    rows = score(scorer, model)
    assert task.summarise(rows) == {"loss": pytest.approx(rows["loss"].mean())}
    assert np.array_equal(rows["loss"], score(scorer, model)["loss"]), "its noise is of the sample"


def test_outputs_may_be_several_tensors(made):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, x):
            return self.layer(x), {"scale": self.layer.weight}

    task = changed(
        loss=lambda self, config, outputs, target: (outputs[0] - target).square().mean(),
        columns=lambda self, config, outputs, target: {"loss": (outputs[0] - target).square().mean(1)},
    )
    batches, scorer, model = made(task, ROW % 3, model=lambda config, sizes: Two())
    _, (_, count) = batches.loss(model, batches.batch(0, 0))
    assert count == 8 and set(score(scorer, model)) == {"id", "loss", "outputs.0"}


@pytest.mark.parametrize(
    "parts, words",
    [
        (dict(prepare=lambda self, *a: a[1]), r"Mine.prepare returns float32 \[8, 5\] of 8 samples"),
        (
            dict(prepare=lambda self, *a: (a[1][:4], a[2])),
            r"prepare returns \(float32 \[4, 5\], int64 \[8\]\)",
        ),
        (
            dict(prepare=lambda self, x: x),
            r"Mine.prepare takes \(x\), and is called with \(config, x, labels",
        ),
        (
            dict(loss=lambda self, c, o, t: (o - t).square()),
            r"loss of a micro-batch is \[8, 5\] .*; end it with .mean",
        ),
        (dict(loss=lambda self, c, o, t: (o.detach() - t).mean()), "the loss does not depend on the model"),
        (
            dict(loss=lambda self, o, t: o.mean()),
            r"Mine.loss takes \(o, t\), and is called with \(config, out",
        ),
        (dict(columns=lambda self, c, o, t: o), r"Mine.columns returns float32 \[8, 5\], and its facts say"),
        (
            dict(columns=lambda self, c, o, t: {"nll": o[:, 0]}),
            r"returns \['nll'\], and its facts say \['loss'\]",
        ),
        (
            dict(columns=lambda self, c, o, t: {"loss": o.mean()}),
            r"returns loss as float32 \[\]; return float32",
        ),
        (dict(columns=lambda self, c, o, t: {"loss": o[:3, 0]}), r"returns loss as float32 \[3\]"),
        (dict(columns=lambda self, c, o, t: {"loss": o[..., None]}), r"returns loss as float32 \[8, 5, 1\]"),
        (dict(facts=replace(LOSS, columns={"loss": "int32"})), "returns loss as float32"),
        (dict(facts=replace(LOSS, best=("psnr", "max"))), "summarise.. gives loss, and facts.best is psnr"),
        (dict(summarise=lambda self, rows: {"loss": rows["loss"]}), "summarise.. gives loss as ndarray"),
    ],
)
def test_what_a_hook_may_not_return_is_one_line_before_the_first_step(made, parts, words, tmp_path):
    with pytest.raises(Failure) as refused:
        batches, _, model = made(changed(**parts), ROW % 3, model=same)
        try_out(batches.config, open_packed("own", tmp_path), batches, model, CPU)
    assert refused.value.code == 64 and "\n" not in refused.value.line()
    assert re.search(words, refused.value.line()), refused.value.line()


@pytest.mark.parametrize("roles", [dict(loss="nll"), dict(truth="loss"), dict(sure="confidence")])
def test_facts_name_columns_that_there_are(roles):
    with pytest.raises(ValueError, match="and there is loss|truth and guess go together"):
        replace(LOSS, **roles)


def test_cutmix_with_a_loss_that_knows_nothing_of_it(made):
    task = changed(ImageTask, loss=lambda self, config, outputs, labels: outputs.mean())
    with pytest.raises(Failure, match="Mine.loss takes") as refused:
        made(task, ROW % 3, flags=("--cutmix", "1"), options=ImageOptions)
    assert refused.value.fix == "leave --cutmix out, or take them"


def test_a_guess_of_another_size(made):
    batches, _, model = made(
        changed(RegressionTask, guess=lambda self, config, outputs: outputs),
        NUMBERS[1],
        model=lambda config, sizes: nn.LazyLinear(2),
    )
    with pytest.raises(Failure, match=r"Mine.guess returns \[8, 2\] for targets \[8\]"):
        batches.loss(model, batches.batch(0, 0))
