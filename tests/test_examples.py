"""Each example trains for real on the CPU, is stopped and resumed to the same bits, scored and compared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.recipes import prepare
from relaunch.trainers import diff, evaluate
from relaunch.trainers.compare import predictions
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs import REPOSITORY
from rigs.runs import outcome, records
from rigs.sets import pack_images

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def images(relaunch_env, monkeypatch):
    """Packed sets that are small and easy: photos (RGB) and grey."""
    monkeypatch.setenv("RELAUNCH_DATA", "data")
    pack_images(Path("data/photos"), (32, 32, 3))
    pack_images(Path("data/grey"), (28, 28, 1))


def trained(train, name: str, *flags) -> tuple[list[dict], dict]:
    """A run, equal to one that was stopped and resumed: its records, and the diff of its halves."""
    command = (EXAMPLES / f"{name}.py", *flags, "--keep", 9)
    assert train(*command, "--run", "whole") == 0
    steps = records(Path("runs/whole"))[-1]["step"]
    assert train(*command, "--run", "parts", "--stop-after", steps // 2 + 1) == 75
    assert train(*command, "--run", "parts", "--resume", "auto") == 0
    assert outcome(Path("runs/parts")) == outcome(Path("runs/whole"))
    first = steps // 2
    for source in (f"whole@{first}", "whole", "parts"):
        assert evaluate.run([source, "--threads", "1"]) == (0, None)
    assert diff.run(["whole", "parts", "--fail-under", "100", "--out", "same"]) == (0, None)
    assert json.loads(Path("same/diff.json").read_text())["identical"]
    assert diff.run([f"whole@{first}", "whole", "--out", "out"]) == (0, None)
    return records(Path("runs/whole")), json.loads(Path("out/diff.json").read_text())


def last(found: list[dict], split: str, name: str) -> list[float]:
    return [r[name] for r in found if r["split"] == split and name in r]


def test_every_example_has_its_test():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_diabetes(train, relaunch_env, monkeypatch):
    """As its first lines say: it writes its own table."""
    monkeypatch.setenv("RELAUNCH_DATA", "data")
    subprocess.run([sys.executable, EXAMPLES / "diabetes.py"], check=True, timeout=120)
    prepare("diabetes", "diabetes.npz", val_fraction=0.2, progress=False)
    found, result = trained(train, "diabetes", "--epochs", 8)
    assert last(found, "val", "r2")[-1] > 0.25, "a linear model reaches 0.33"
    assert 35 < last(found, "val", "mae")[-1] < 60, "in the target's own unit"
    assert result["worse"] + result["better"] == result["n"] == 88
    assert train(EXAMPLES / "diabetes.py", "--arch", "linear", "--epochs", 1, "--run", "linear") == 0


def test_denoise(train, images, capfd):
    flags = ("--data", "grey", "--width", 4, "-b", 16, "--epochs", 4, "--lr", 0.01)
    found, result = trained(train, "denoise", *flags)
    losses = last(found, "val", "loss")
    assert losses[-1] < losses[0] and "top1" not in found[-1]
    assert RunDir(Path("runs/whole")).path.exists() and result["n"] == 23
    p = predictions.read(next(Path("runs/whole/predictions").glob("*.parquet")))
    assert (list(p.columns), p.truth, p.facts["metrics"].keys()) == (["loss"], None, {"loss"})
    assert Path("out/changed.png").exists(), "what there is to see are the images"
    assert result["better"] > result["worse"] and "sign test" in capfd.readouterr().out
    assert train(EXAMPLES / "denoise.py", "--data", "photos", "--max-steps", 1, "--run", "rgb") == 0


def test_focal(train, images):
    flags = ("--data", "photos", "-b", 16, "--epochs", 8, "--lr", 0.05, "--crop", 0)
    found, result = trained(train, "focal", *flags)
    assert last(found, "val", "top1")[-1] > 30 and {"mcnemar_p", "classes"} <= set(result)
    plain = (EXAMPLES / "focal.py", *flags[:4], "--max-steps", 1, "--log-interval", 1, "--run")
    assert train(*plain, "plain", "--focusing", 0) == 0 and train(*plain, "focal") == 0
    losses = [last(records(Path("runs", name)), "train", "loss")[0] for name in ("plain", "focal")]
    assert losses[0] > losses[1] > 0.5 * losses[0], "at the beginning every class has a tenth: (9/10)^2"
    scored = [last(records(Path("runs", name)), "val", "loss")[0] for name in ("plain", "focal")]
    assert scored[0] == pytest.approx(scored[1], rel=0.1), "the nll, of both"


@pytest.mark.slow
def test_finetune(train, images, capfd):
    flags = ("--data", "photos", "-b", 16, "--max-steps", 4, "--save-every", 1)
    found, _ = trained(train, "finetune", *flags)
    assert {"loss", "top1", "top5"} <= set(found[-1])
    run = RunDir(Path("runs/whole"))
    weights = checkpoint.load(checkpoint.select(run, None)).model
    import torchvision

    torchvision.models.resnet18(num_classes=10).load_state_dict(weights, strict=True)
    assert train(EXAMPLES / "finetune.py", "--data", "grey", "--max-steps", 1) == 64
    assert "resnet18 does not take the 1x28x28 images of grey" in capfd.readouterr().err
    assert np.array_equal(open_packed("photos", "data").labels("train").shape, (96,))


@pytest.mark.slow
@pytest.mark.parametrize("name, data", [("denoise", "grey"), ("focal", "photos"), ("diabetes", "diabetes")])
def test_several_processes_a_kill_and_a_fork(name, data, images):
    """By the command line: two processes that SIGKILL ends and that go on, a fork of them, and eight."""
    if name == "diabetes":
        subprocess.run([sys.executable, EXAMPLES / "diabetes.py"], check=True, timeout=120)
        prepare("diabetes", "diabetes.npz", val_fraction=0.2, progress=False)

    def relaunch(*words, fault: str = "") -> int:
        program = [sys.executable, REPOSITORY / "launch/__main__.py", "train", EXAMPLES / f"{name}.py"]
        flags = ["--data", data, "-b", 16, "--max-steps", 6, "--save-every", 2, "--keep", 9, "--threads", 1]
        command = [str(word) for word in (*program, *flags, *words)]
        return subprocess.run(command, env=os.environ | {"RELAUNCH_FAULT": fault}, timeout=300).returncode

    assert relaunch("--config", "cpu2", "--run", "whole") == 0
    killed = ("--config", "cpu2", "--run", "parts", "--resume", "auto", "--max-restarts", 0)
    assert relaunch(*killed, fault="step=3,do=kill") not in (0, 75)
    assert relaunch(*killed) == 0
    assert relaunch("--config", "cpu2", "--fork", "whole@4", "--run", "fork") == 0
    whole, parts, fork = (outcome(Path("runs", run)) for run in ("whole", "parts", "fork"))
    assert parts == whole
    assert (fork["model"], fork["optimizer"]) == (whole["model"], whole["optimizer"])
    if name == "focal":
        assert relaunch("--config", "8gpu", "--emulate", "--run", "eight") == 0
