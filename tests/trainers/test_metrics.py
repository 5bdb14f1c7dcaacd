import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relaunch.data_prep import files
from relaunch.trainers import curves, records, workloads
from relaunch.trainers.build import make_batches, make_model
from relaunch.trainers.config import parse
from relaunch.trainers.metrics import Metrics
from relaunch.trainers.rundir import RunDir
from rigs.disks import Limit
from rigs.stand_in import small_set

CPU = torch.device("cpu")


def events(run, split):
    return EventAccumulator(str(run.tensorboard / split), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def curve(run, split, tag):
    return [(e.step, round(e.value, 4)) for e in events(run, split).Scalars(tag)]


def task_of(name):
    return workloads.load(name).task


def record(step, split="train", **values):
    return {"step": step, "samples": 64 * step, "epoch": step / 10, "split": split, **values}


def test_train_and_val_share_their_tags(tmp_path):
    run = RunDir(tmp_path)
    metrics = Metrics(run, 0)
    rows = [
        record(1, loss=2.0, top1=10.0, lr=0.1),
        record(2, loss=1.5, top1=30.0, lr=0.1),
        record(2, epoch_loss=1.75),
        record(2, "val", loss=1.6, top1=25.0),
    ]
    for r in rows:
        metrics.log(r)
        assert json.loads(run.metrics.read_text().splitlines()[-1]) == r  # there at once
    assert curve(run, "train", "loss") == [(1, 2.0), (2, 1.5)] and curve(run, "val", "loss") == [(2, 1.6)]
    metrics.close()
    tags = {split: set(events(run, split).Tags()["scalars"]) for split in ("train", "val")}
    assert tags == {
        "train": {"loss", "top1", "epoch_loss", "lr"},
        "val": {"loss", "top1", "epoch_loss", "epoch_top1"},
    }
    assert curve(run, "train", "epoch_loss") == [(2, 1.75)] and curve(run, "val", "epoch_loss") == [(2, 1.6)]


def test_a_resumed_run_continues_the_curves(tmp_path):
    run, killed = RunDir(tmp_path), Metrics(RunDir(tmp_path), 0)
    for step in range(1, 8):  # the checkpoint is of step 4
        killed.log(record(step, loss=float(step)))
    killed.log(record(4, "val", loss=44.0))
    killed.log(record(7, "val", loss=77.0))
    run.cut_metrics(4, 4)
    resumed = Metrics(run, 4)  # in the same second, and readers sort files by name
    resumed.log(record(5, loss=50.0))
    resumed.log(record(6, "val", loss=60.0))
    resumed.close()
    killed.close()
    assert curve(run, "train", "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 50.0)]
    assert curve(run, "val", "loss") == [(4, 44.0), (6, 60.0)]
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [(r["step"], r["split"], r["loss"]) for r in lines[-3:]] == [
        (4, "val", 44.0),
        (5, "train", 50.0),
        (6, "val", 60.0),
    ]


def test_the_curves_go_on_after_the_clock_was_set_back(tmp_path, monkeypatch):
    """Readers take files by the moment in their names; and moments never go back, in three starts either."""
    run, past = RunDir(tmp_path), [0.0]
    monkeypatch.setattr(curves, "time", SimpleNamespace(time=lambda: 1.7e9 - past[0]))
    for start, back in enumerate((0.0, 86_400.0, 100_000.0)):
        past[0] = back
        metrics = Metrics(run, 2 * start)
        metrics.log(record(2 * start + 1, loss=1.0))
        past[0] += 50  # while it trains, too
        metrics.log(record(2 * start + 2, loss=1.0))
        metrics.close()
    found = events(run, "train").Scalars("loss")
    assert [e.step for e in found] == [1, 2, 3, 4, 5, 6]
    assert [e.wall_time for e in found] == sorted(e.wall_time for e in found)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"\0" * 40, b"cut"])
def test_an_event_file_that_tells_nothing_is_passed_by(tmp_path, damage):
    old = tmp_path / "tensorboard/train/events.out.tfevents.4000000000.host.1.0"
    old.parent.mkdir(parents=True)
    old.write_bytes(damage)
    metrics = Metrics(RunDir(tmp_path), 0)
    metrics.log(record(1, loss=1.0))
    assert sorted(old.parent.iterdir())[-1].name.startswith("events.out.tfevents.4000000001.")


def test_a_start_that_comes_to_nothing_draws_nothing(tmp_path):
    run = RunDir(tmp_path)
    packed, config = small_set(tmp_path, "mnist"), parse("mnist --batch-size 4".split()).config
    metrics = Metrics(run, 0)
    metrics.describe(
        config, task_of("mnist"), make_batches(config, packed, CPU), make_model(config, packed.sizes), packed
    )
    metrics.close()
    assert not list(run.tensorboard.rglob("*tfevents*"))
    metrics.sealed()  # as the first checkpoint does
    assert len(list(run.tensorboard.rglob("*tfevents*"))) == 2


def test_a_number_that_is_none_is_strict_json(tmp_path):
    metrics = Metrics(RunDir(tmp_path), 0)
    metrics.log(record(1, loss=float("nan"), ppl=float("inf")))
    metrics.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert line["loss"] is None and line["ppl"] is None


@pytest.mark.parametrize("name", workloads.names())
def test_a_run_describes_itself_and_is_left_alone(name, tmp_path, capsys):
    torch.set_num_threads(1)
    packed, config = small_set(tmp_path, name), parse([name, "--batch-size", "4"]).config
    batches, model = (
        make_batches(config, packed, CPU),
        make_model(config, packed.sizes).train(),
    )
    before, random = [t.clone() for t in model.state_dict().values()], torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    metrics = Metrics(run, 0)
    metrics.describe(config, task_of(name), batches, model, packed)
    metrics.sealed()
    metrics.close()
    assert (
        all(map(torch.equal, before, model.state_dict().values()))
        and model.training
        and torch.equal(random, torch.get_rng_state())
    )
    assert torch.backends.mha.get_fastpath_enabled() == fast and all(
        p.grad is None for p in model.parameters()
    )
    seen = events(run, "train")
    assert seen.Tags()["graph"] and capsys.readouterr() == ("", "")
    text = {
        tag: seen.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
        for tag in ("config", "layers")
    }
    assert (
        "    batch_size 4\n" in text["config"]
        and text["layers"].startswith("    layer")
        and "total" in text["layers"]
    )
    assert bool(seen.Tags()["images"]) == (packed.kind == "images")


def test_images_are_shown_as_the_model_gets_them(tmp_path):
    packed, config = small_set(tmp_path, "mnist"), parse("mnist --batch-size 1".split()).config
    batches = make_batches(config, packed, CPU)
    metrics = Metrics(RunDir(tmp_path / "mnist"), 0)
    metrics.describe(config, task_of("mnist"), batches, make_model(config, packed.sizes), packed)
    metrics.sealed()
    metrics.close()
    png = events(RunDir(tmp_path / "mnist"), "train").Images("training images")[0].encoded_image_string
    shown = np.asarray(Image.open(io.BytesIO(png)))[..., 0]
    first = packed.images("train")[int(batches.ids[0])][..., 0]
    assert any(
        np.abs(window.astype(int) - first).max() <= 1
        for window in (shown[y : y + 28, x : x + 28] for y in range(5) for x in range(5))
        if window.shape == first.shape
    )


class Undrawable(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("cannot be\ntraced")


def test_what_cannot_be_drawn_is_a_line_and_no_more(tmp_path, capsys):
    packed, config = small_set(tmp_path, "mnist"), parse("mnist --batch-size 4".split()).config
    metrics = Metrics(RunDir(tmp_path / "mnist"), 0)
    batches = make_batches(config, packed, CPU)
    metrics.describe(config, task_of("mnist"), batches, Undrawable(), packed)
    err = capsys.readouterr().err.splitlines()
    assert err == [f"relaunch: no {part} in TensorBoard (cannot be traced)" for part in ("layers", "graph")]
    metrics.log(record(1, loss=1.0))
    metrics.close()
    assert events(RunDir(tmp_path / "mnist"), "train").Tags()["images"]


@pytest.fixture(params=[0, 150, 4000])
def full(request):
    """full(): files take nothing more, or first a part of a row; full(False): there is room again."""
    disk = Limit(None)
    yield lambda on=True: disk.fill(request.param) if on else disk.free()
    disk.end()


def test_every_row_that_a_full_disk_refused_is_there_once_it_fits(tmp_path, capsys, full):
    """More than any buffer holds, in the file and in TensorBoard, and no half of one; one alarm."""
    run, rows = RunDir(tmp_path), [record(step, loss=1 / step, top1=50.0) for step in range(1, 3000)]
    metrics = Metrics(run, 0)
    for row in rows:
        if row["step"] == 10:
            full()
        if row["step"] == 2990:
            with pytest.raises(OSError):
                metrics.sealed()  # and with it the checkpoint
            full(False)
        metrics.log(row)
    metrics.sealed()
    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == rows
    assert [step for step, _ in curve(run, "train", "loss")] == [row["step"] for row in rows]
    err = capsys.readouterr().err.splitlines()
    kept = "; its rows are kept until they fit, and training goes on"
    assert [line.endswith(kept) for line in err] == [True, True, False, False]
    assert [line.endswith(" is written again, with every row") for line in err] == [False, False, True, True]
    metrics.close()


def test_rows_that_wait_are_bounded_and_the_loss_is_said(tmp_path, capsys, monkeypatch, full):
    monkeypatch.setattr(files, "KEPT", 20_000)
    metrics = Metrics(RunDir(tmp_path), 0)
    full()
    for step in range(1, 1000):
        metrics.log(record(step, loss=1.0))
    kept = len(metrics.files["metrics.jsonl"].waiting)
    full(False)
    metrics.log(record(1000, loss=1.0))
    assert kept <= 20_000 and "metrics.jsonl is written again, but for " in capsys.readouterr().err
    found = records.metrics(RunDir(tmp_path))
    assert found[-1]["step"] < 1000 and len(found) > 100
    metrics.close()


def test_a_disk_that_went_away_and_came_back(tmp_path):
    """A stale handle of a file server: each flush opens the file anew."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    metrics = Metrics(run, 0)
    metrics.log(record(1, loss=1.0))
    run.path.rename(tmp_path / "away")
    metrics.log(record(2, loss=1.0))
    (tmp_path / "away").rename(run.path)
    metrics.log(record(3, loss=1.0))
    assert [r["step"] for r in records.metrics(run)] == [1, 2, 3]
    assert [step for step, _ in curve(run, "train", "loss")] == [1, 2, 3]
    metrics.close()


def test_links_are_not_followed(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "metrics.jsonl").symlink_to("mine")
    with pytest.raises(OSError):
        Metrics(RunDir(tmp_path), 0)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("name", ["mnist", "wikitext2"])
def test_a_stopped_and_resumed_training_draws_the_curves_of_an_undisturbed_one(name, train):
    flags = (name, "--batch-size", 16, "--epochs", 2, "--log-interval", 2)
    assert train(*flags, "--run", "whole") == 0
    assert (
        train(*flags, "--run", "parts", "--stop-after", 3) == 75
        and train(*flags, "--run", "parts", "--resume", "auto") == 0
    )
    whole, parts = RunDir("runs/whole"), RunDir("runs/parts")
    tags = {"train": {"loss", "top1", "top5"}, "val": {"loss", "top1", "top5"}}
    if name == "wikitext2":
        tags = {"train": {"nll", "ppl"}, "val": {"nll", "ppl"}}
        generated = [
            [
                (e.step, e.tensor_proto.string_val)
                for e in events(run, "train").Tensors("generated/text_summary")
            ]
            for run in (whole, parts)
        ]
        assert generated[0] == generated[1] and len(generated[0]) == 2
    for split in ("train", "val"):
        for tag in tags[split]:
            assert curve(whole, split, tag) == curve(parts, split, tag) and len(curve(parts, split, tag)) >= 2
    assert events(parts, "train").Tags()["graph"]
