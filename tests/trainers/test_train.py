"""A training from its command to its run's folder, for every workload."""

import json
import re
import time

import pytest
from accelerate import Accelerator

from relaunch.trainers import hardware, workloads
from relaunch.trainers.build import make_model
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.loop import Training
from relaunch.trainers.tasks import order
from relaunch.trainers.weights.checkpoint import load
from rigs.runs import outcome, records, status, steps

CASES = [(name, arch) for name in workloads.names() for arch in workloads.load(name).archs]


@pytest.mark.parametrize("workload, arch", CASES)
def test_one_step(train, sets, relaunch_env, workload, arch):
    from relaunch.data_prep.packed import open_packed

    command = [workload, "--arch", arch, "--batch-size", 2, "--max-steps", 1]
    assert train(*command, "--run", "./one") == 0
    state = load(relaunch_env / "one/checkpoints/step-000000001")
    config = parse([*map(str, command)]).config
    initial = make_model(config, open_packed(config.data, sets).sizes).state_dict()
    assert any(not state.model[name].equal(initial[name]) for name in state.model)
    assert {r["split"] for r in records(relaunch_env / "one")} == {"train", "val"}
    assert (state.meta["step"], state.meta["evaluated"], state.meta["best"]["step"]) == (1, 1, 1)
    assert status(relaunch_env / "one")["state"] == "done"


@pytest.mark.parametrize("workload", workloads.names())
def test_the_loss_goes_down(train, relaunch_env, workload):
    gentle = ["--optimizer", "adam", "--lr", 0.0003, "--schedule", "constant", "--warmup-steps", 0]
    assert (
        train(workload, *gentle, "--batch-size", 16, "--max-steps", 15, "--log-interval", 5, "--run", "./run")
        == 0
    )
    name = {"images": "loss", "text": "nll"}[workloads.load(workload).task.kind]
    losses = [r[name] for r in records(relaunch_env / "run") if r["split"] == "train" and name in r]
    assert len(losses) >= 3 and losses[-1] < losses[0]


# what a run leaves ----------------------------------------------------------------------------------------

NET = ["cifar10", "--arch", "net", "--batch-size", 8]


def test_the_log_says_how_long_it_will_take(train, relaunch_env, at, capsys):
    """What is left costs what this start's steps cost, whatever came before it."""
    assert train(*NET, "--max-steps", 10, "--log-interval", 5, "--stop-after", 2, "--run", "./run") == 75
    capsys.readouterr()

    def three_steps_took_an_hour(training):
        training.spent.seconds = dict.fromkeys(training.spent.seconds, 0.0) | {"compute": 3600.0}
        training.spent.seconds["start"] = 99999.0
        training.spent.since = time.perf_counter()

    at(5, three_steps_took_an_hour)
    again = [*NET, "--max-steps", 10, "--log-interval", 5, "--run", "./run", "--resume", "auto"]
    assert train(*again) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "samples/s" in line]
    lines = [line for line in lines if line.startswith("step ")]
    assert [line.endswith("left") for line in lines] == [True, False]
    assert lines[0].endswith("  1 h 40 min left"), lines[0]


def test_a_run_leaves_what_was_asked_and_launched(train, sets, relaunch_env):
    assert (
        train(*NET, "--epochs", 2, "--max-steps", 20, "--log-interval", 5, "--save-every", 9, "--keep", 99)
        == 0
    )
    (run,) = (relaunch_env / "runs").iterdir()
    assert re.fullmatch(r"cifar10-\d{8}-\d{6}", run.name)
    config = RunConfig.from_json(json.loads((run / "config.json").read_text()))
    assert (config.workload, config.arch, config.epochs, config.max_steps) == ("cifar10", "net", 2, 20)
    plan = json.loads((run / "plan.json").read_text())
    assert (plan["world"], plan["device"], plan["precision"], plan["threads"], plan["total_steps"]) == (
        1,
        "cpu",
        "no",
        1,
        20,
    )
    assert "--save-every" in plan["command"] and plan["versions"]["torch"]
    assert status(run)["state"] == "done" and status(run)["code"] == 0 and status(run)["step"] == 20
    assert steps(run) == [9, 12, 18, 20]

    log = [(r["step"], r["samples"], r["split"]) for r in records(run) if "epoch_loss" not in r]
    assert log == [
        (5, 40, "train"),
        (10, 80, "train"),
        (12, 96, "train"),
        (12, 96, "val"),
        (17, 136, "train"),
        (20, 160, "train"),
        (20, 160, "val"),
    ]
    assert [r["step"] for r in records(run) if "epoch_loss" in r] == [12]
    first = records(run)[0]
    assert first.keys() == {
        "step",
        "samples",
        "epoch",
        "split",
        "loss",
        "top1",
        "top5",
        "lr",
        "samples_per_s",
        "data_wait_share",
        "peak_memory_mb",
    }
    assert first["epoch"] == 5 / 12 and first["samples_per_s"] > 0 and 0 <= first["data_wait_share"] <= 1


def test_two_runs_of_one_second_have_two_folders(train, relaunch_env, monkeypatch):
    from relaunch.trainers import rundir

    monkeypatch.setattr(rundir.time, "strftime", lambda form, *_: "20260102-030405")
    for _ in range(2):
        assert train(*NET, "--max-steps", 1) == 0
    assert sorted(p.name for p in (relaunch_env / "runs").iterdir()) == [
        "cifar10-20260102-030405",
        "cifar10-20260102-030405-1",
    ]


def test_the_smaller_of_epochs_and_max_steps(train, relaunch_env):
    for name, flags, total in (
        ("a", ["--epochs", 1, "--max-steps", 99], 12),
        ("b", ["--epochs", 9, "--max-steps", 3], 3),
    ):
        assert train(*NET, *flags, "--run", f"./{name}") == 0
        assert steps(relaunch_env / name)[-1] == total


def test_epoch_means_are_over_the_epochs_images(train, relaunch_env):
    """Windows end with their epoch. At rate 0 both runs see the same weights."""
    still = [*NET, *"--lr 0 --weight-decay 0 --schedule constant --crop 0 --no-flip --max-steps 36".split()]
    assert train(*still, "--log-interval", 5, "--run", "./odd") == 0
    assert train(*still, "--log-interval", 12, "--run", "./even") == 0
    means = {name: [r for r in records(relaunch_env / name) if "epoch_loss" in r] for name in ("odd", "even")}
    windows = [r for r in records(relaunch_env / "even") if r["split"] == "train" and "loss" in r]
    for odd, even, window in zip(means["odd"], means["even"], windows):
        assert odd["epoch_loss"] == pytest.approx(even["epoch_loss"]) and even["epoch_loss"] == pytest.approx(
            window["loss"]
        )
        assert odd["epoch_top1"] == pytest.approx(window["top1"]) and odd["epoch_top5"] == pytest.approx(
            window["top5"]
        )
    ends = [[r["step"] for r in records(relaunch_env / name) if "lr" in r] for name in ("odd", "even")]
    assert ends == [[5, 10, 12, 17, 22, 24, 29, 34, 36], [12, 24, 36]]
    assert means["even"][0]["epoch_loss"] == pytest.approx(
        means["even"][2]["epoch_loss"]
    )  # the same images in another order


@pytest.mark.parametrize("typed, ends", [([], [3, 6, 9, 12, 15, 18]), (["--log-interval", 100], [12, 18])])
def test_a_short_epoch_has_several_lines_where_none_were_asked_for(train, relaunch_env, typed, ends):
    assert train(*NET, "--max-steps", 18, *typed, "--run", "./run", "--stop-after", 4) == 75
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0
    assert [r["step"] for r in records(relaunch_env / "run") if "lr" in r] == ends


def test_accumulation_is_the_same_training(train, relaunch_env):
    """Without dropout and BatchNorm a batch in four parts is the batch, but for rounding."""
    from relaunch.trainers.rundir import RunDir

    for name, parts in (("one", 1), ("four", 4)):
        assert (
            train(
                *NET,
                *"--max-steps 5 --optimizer adam --lr 0.001 --grad-accum-steps".split(),
                parts,
                "--run",
                f"./{name}",
            )
            == 0
        )
    one, four = (load(RunDir(relaunch_env / name).checkpoint(5)).model for name in ("one", "four"))
    assert all(one[n].allclose(four[n], atol=1e-4) for n in one)


def test_training_is_in_training_mode(train, monkeypatch):
    """From the first step, and after an evaluation: dropout drops and BatchNorm learns."""
    modes, advance = [], Training.advance
    monkeypatch.setattr(
        Training,
        "advance",
        lambda self: (modes.append(all(m.training for m in self.module.modules())), advance(self)),
    )
    assert (
        train(*"cifar10 --arch net_bn --batch-size 32 --max-steps 5 --run ./run --stop-after 4".split()) == 75
    )
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0
    assert modes == [True] * 5


def test_dropout_is_drawn_anew_for_every_step_and_micro_batch(train, at):
    seeds = []

    class Generator:
        manual_seed = staticmethod(seeds.append)

    at(1, lambda training: setattr(training, "generators", [Generator]))
    assert train(*"mnist --batch-size 8 --grad-accum-steps 2 --max-steps 4 --seed 7 --run ./run".split()) == 0
    assert seeds == [order.key("dropout", 7, step, micro, 0) for step in (1, 2, 3) for micro in (0, 1)]


def test_the_seed_decides(train, relaunch_env):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train("mnist", "--batch-size", 8, "--max-steps", 2, "--seed", seed, "--run", f"./{name}") == 0
    a, b, c = (outcome(relaunch_env / name) for name in "abc")
    assert a == b and a["model"] != c["model"]


@pytest.mark.parametrize("flags, said", [("avx512f", 1), ("avx512f avx512_bf16", 0), ("", 0)])
def test_bf16_without_instructions_for_it_is_said(train, monkeypatch, capsys, flags, said):
    """A processor that tells nothing of itself is not accused."""
    monkeypatch.setattr(hardware, "_read", lambda path: f"flags : {flags}" if flags else "")
    monkeypatch.setattr(Accelerator, "mixed_precision", "bf16")
    assert train("mnist", "--batch-size", 8, "--max-steps", 1, "--threads", 1) == 0
    assert capsys.readouterr().out.count("this CPU has no bf16 instructions") == said
