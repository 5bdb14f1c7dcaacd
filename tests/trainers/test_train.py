"""A training from its command to its run's folder: every workload, and every mistake that is one line."""

import json
import re
import shutil
import sys

import pytest
import torch

from relaunch.trainers import workloads
from relaunch.trainers.build import make_model
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.group import process
from relaunch.trainers.loop import Training
from relaunch.trainers.tasks import order
from relaunch.trainers.weights.checkpoint import load
from rigs.processes import Process
from rigs.runs import outcome, records, status, steps, tree
from rigs.sets import TRAIN, pack_images, pack_text

CASES = [(name, arch) for name in workloads.names() for arch in workloads.load(name).archs]


@pytest.mark.parametrize("workload, arch", CASES)
def test_one_step(train, sets, relaunch_env, workload, arch):
    from relaunch.data_prep.packed import open_packed

    command = [workload, "--arch", arch, "--batch-size", 2, "--max-steps", 1]
    assert train(*command, "--run", "./one") == 0
    state = load(relaunch_env / "one/checkpoints/step-000000001")
    config = parse([*map(str, command)]).config
    initial = make_model(config, open_packed(config.data, sets)).state_dict()
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
    name = {"images": "loss", "text": "nll"}[workloads.load(workload).kind]
    losses = [r[name] for r in records(relaunch_env / "run") if r["split"] == "train" and name in r]
    assert len(losses) == 3 and losses[-1] < losses[0]


# what a run leaves ----------------------------------------------------------------------------------------

NET = ["cifar10", "--arch", "net", "--batch-size", 8]


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
        (12, 96, "val"),
        (15, 120, "train"),
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
    """Log windows that cross an epoch's end, or end within it, are cut there: with the rate at 0 both see the same weights."""
    still = [
        *NET,
        "--lr",
        0,
        "--weight-decay",
        0,
        "--schedule",
        "constant",
        "--crop",
        0,
        "--no-flip",
        "--max-steps",
        36,
    ]
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
    assert means["even"][0]["epoch_loss"] == pytest.approx(
        means["even"][2]["epoch_loss"]
    )  # the same images in another order


def test_accumulation_is_the_same_training(train, relaunch_env):
    """Without dropout and BatchNorm a batch in four parts is the batch, but for rounding."""
    from relaunch.trainers.rundir import RunDir

    for name, parts in (("one", 1), ("four", 4)):
        assert (
            train(
                *NET,
                "--max-steps",
                5,
                "--optimizer",
                "adam",
                "--lr",
                0.001,
                "--grad-accum-steps",
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
        train(
            "cifar10",
            "--arch",
            "net_bn",
            "--batch-size",
            32,
            "--max-steps",
            5,
            "--run",
            "./run",
            "--stop-after",
            4,
        )
        == 75
    )
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0
    assert modes == [True] * 5


def test_dropout_is_drawn_anew_for_every_step_and_micro_batch(train, at):
    seeds = []

    class Generator:
        manual_seed = staticmethod(seeds.append)

    at(1, lambda training: setattr(training, "generator", Generator))
    assert (
        train(
            "mnist",
            "--batch-size",
            8,
            "--grad-accum-steps",
            2,
            "--max-steps",
            4,
            "--seed",
            7,
            "--run",
            "./run",
        )
        == 0
    )
    assert seeds == [order.key("dropout", 7, step, micro, 0) for step in (1, 2, 3) for micro in (0, 1)]


def test_the_seed_decides(train, relaunch_env):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train("mnist", "--batch-size", 8, "--max-steps", 2, "--seed", seed, "--run", f"./{name}") == 0
    a, b, c = (outcome(relaunch_env / name) for name in "abc")
    assert a == b and a["model"] != c["model"]


# mistakes: one line, the code, and nothing written --------------------------------------------------------


@pytest.fixture
def odd_sets(relaunch_env):
    """Sets that something is wrong with, in odd/."""
    pack_images(relaunch_env / "odd/tiny", (8, 8, 3))
    pack_text(relaunch_env / "odd/short", train=30)
    pack_images(relaunch_env / "odd/halved", (32, 32, 3))
    with open(relaunch_env / "odd/halved/train/images.npy", "r+b") as f:
        f.truncate(5000)
    (relaunch_env / "odd/begun").mkdir()


@pytest.mark.parametrize(
    "command, code, words",
    [
        ("minst", 64, "unknown workload 'minst'; did you mean mnist?"),
        ("mnist --data nothing", 65, "no packed data set 'nothing'"),
        ("mnist --data odd/begun", 65, "odd/begun has no meta.json"),
        ("cifar10 --data odd/halved", 65, "odd/halved/train/images.npy has 5,000 bytes instead of"),
        ("mnist --data wikitext2", 64, "mnist trains on images, and wikitext2 holds text"),
        ("wikitext2 --data mnist", 64, "wikitext2 trains on text, and mnist holds images"),
        ("mnist --data odd/tiny", 64, "cnn does not take the 8x8x3 images of tiny"),
        (
            "cifar10 --arch net --batch-size 8 --data odd/tiny",
            64,
            "net does not take the 8x8x3 images of tiny",
        ),
        (
            f"mnist --batch-size {TRAIN + 1}",
            64,
            f"--batch-size {TRAIN + 1} is more than the {TRAIN} training images",
        ),
        (
            "wikitext2 --data odd/short --batch-size 20",
            64,
            "--batch-size 20 is too many columns for 30 training words",
        ),
        (
            "mnist --batch-size 8 --grad-accum-steps 3",
            64,
            "--batch-size 8 does not divide by --grad-accum-steps 3",
        ),
        ("cifar10 --arch net_bn --batch-size 1", 64, "net_bn cannot train on one image at a time"),
        (
            "cifar10 --arch net_bn --batch-size 4 --grad-accum-steps 4",
            64,
            "net_bn cannot train on one image at a time",
        ),
        ("mnist --split test", 64, "--split goes with --evaluate"),
        (
            "wikitext2 --emsize 4000000000 --nhead 1",
            69,
            "out of memory (tried to allocate 800000000000 bytes); choose a smaller model",
        ),
    ],
)
def test_a_mistake_is_one_line(train, odd_sets, relaunch_env, capsys, command, code, words):
    before = tree(relaunch_env)
    assert train(*command.split()) == code
    error = capsys.readouterr().err
    assert error.startswith(f"relaunch: {code} ") and words in error and error.count("\n") == 1
    assert tree(relaunch_env) == before and not (relaunch_env / "runs").exists()


def test_a_mistake_of_a_real_process(launch, relaunch_env):
    for command, code, words in (
        (["minst"], 64, "did you mean mnist?"),
        (["mnist", "--data", "nothing"], 65, "no packed data set 'nothing'"),
    ):
        done = launch(*command)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(f"relaunch: {code} ") and words in done.err and done.err.count("\n") == 1
    assert not (relaunch_env / "runs").exists()


def test_a_mistake_of_two_processes_is_said_once(launch, relaunch_env):
    done = launch("mnist", "--batch-size", 9, processes=2, accelerate="accelerate")
    assert done.code and done.err.count("relaunch: ") == 1
    assert (
        "relaunch: 64 --batch-size 9 does not divide by 2 processes x 1 accumulation steps; choose a multiple"
        in done.err
    )
    assert not (relaunch_env / "runs").exists()


def test_no_memory_for_a_step_or_an_evaluation(train, at, relaunch_env, capsys, monkeypatch):
    """Advice for each, and no restart: the same would happen again. What the real allocator refuses is asked of it."""
    from relaunch.trainers.tasks.images import Images

    def greedy(*_):
        return torch.empty(1 << 50)

    assert train(*NET, "--run", "./step", "--max-steps", 4, "--save-every", 2) == 0
    at(3, greedy)
    assert train(*NET, "--run", "./run", "--max-steps", 4, "--save-every", 2) == 69
    expected = f"relaunch: 69 out of memory (tried to allocate {1 << 52} bytes); raise --grad-accum-steps"
    assert capsys.readouterr().err.startswith(expected)
    assert (status(relaunch_env / "run")["state"], status(relaunch_env / "run")["code"]) == ("failed", 69)
    with monkeypatch.context() as patch:
        patch.setattr(Images, "score", greedy)
        assert train("cifar10", "--run", "./run", "--resume", "auto") == 69
    assert "; lower --eval-batch-size" in capsys.readouterr().err
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0
    assert outcome(relaunch_env / "run")["model"] == outcome(relaunch_env / "step")["model"]


@pytest.mark.parametrize(
    "said, expected",
    [
        (
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1.75 GiB is free. Including …",
            "(Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1.75 GiB is free)",
        ),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out of memory"),
    ],
)
def test_what_a_gpu_says_when_it_has_no_memory(said, expected):
    with pytest.raises(process.Lost) as lost, process.fits("advice"):
        raise RuntimeError(said)
    assert lost.value.code == 69 and expected in lost.value.what
    with pytest.raises(RuntimeError, match="a bug"), process.fits("advice"):
        raise RuntimeError("a bug")


# failures after a run has begun ------------------------------------------------------------------------------


def test_a_failure_before_the_first_step_is_written_down(train, relaunch_env, capsys):
    """The curves cannot be opened, when status.json says `running` already."""
    assert train(*NET, "--max-steps", 4, "--run", "run", "--stop-after", 2) == 75
    run = relaunch_env / "runs/run"
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").write_text("not a folder")
    assert train("cifar10", "--run", "run", "--resume", "auto") == 73
    assert (status(run)["state"], status(run)["code"], status(run)["step"]) == ("failed", 73, 2)
    (run / "tensorboard").unlink()
    assert train("cifar10", "--run", "run", "--resume", "auto") == 0


def test_a_failure_of_ddp_is_written_down(relaunch_env):
    """Two machines hold other data under one name: their models differ, which DDP finds when it is built."""
    for rank, channels in enumerate((1, 3)):
        pack_images(relaunch_env / f"data-{rank}/mnist", (28, 28, channels))
    worker = (
        f"RELAUNCH_DATA=data-$RANK exec {sys.executable} -m trainers.train mnist --batch-size 8 --run run"
    )
    group = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    done = Process(
        ["env", "ACCELERATE_USE_CPU=true", sys.executable, *group, "sh", "-c", f"{worker} --timeout 20"]
    ).end()
    assert done.code and "not to match" in done.err, done.err
    found = status(relaunch_env / "runs/run")
    assert (found["state"], found["step"]) == ("failed", 0) and found["code"], found
