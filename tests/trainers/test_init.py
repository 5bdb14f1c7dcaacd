"""A new run that begins with other weights: of a run, of an export, of torchvision's layout."""

import json
import shutil

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from relaunch.data_prep.errors import Failure
from relaunch.trainers import export, origin
from rigs.runs import outcome, sha256, status, steps, tree

NET = "cifar10 --arch net --batch-size 8 --max-steps 5 --log-interval 7".split()
STILL = "--lr 0 --weight-decay 0 --max-steps 1".split()


def record(run) -> dict:
    return json.loads((run / "plan.json").read_text())["init"]


@pytest.fixture
def source(train, relaunch_env):
    assert train(*NET, "--run", "source") == 0
    return relaunch_env / "runs/source"


def test_from_a_run_and_from_its_export(train, relaunch_env, source, capsys):
    assert export.run(["source", "--out", "out"])[0] == 0
    *files, about = sorted((relaunch_env / "out").iterdir(), key=lambda f: (f.suffix == ".json", f.suffix))
    assert [f.suffix for f in (*files, about)] == [".pth", ".safetensors", ".json"]
    model = source / "checkpoints/step-000000005/model.safetensors"
    for n, name in enumerate(["source", "source@5", "source@best", str(model.parent), *map(str, files)]):
        capsys.readouterr()
        assert train(*NET, *STILL, "--init", name, "--run", f"tuned-{n}") == 0
        run = relaunch_env / f"runs/tuned-{n}"
        assert f"begun with the weights of {name}\n" in capsys.readouterr().out
        assert outcome(run)["model"] == sha256(model) and steps(run) == [1]
        found = record(run)
        assert (found["source"], found["fresh"]) == (name, [])
        assert found["sha256"] == sha256(files[n - 4] if n >= 4 else model)
        assert outcome(run)["state"]["init"] == found
    assert train(*NET, *STILL, "--resume", "source", "--run", "synonym") == 0
    assert record(relaunch_env / "runs/synonym") == record(relaunch_env / "runs/tuned-0")


def test_a_resume_does_not_read_them_again(train, relaunch_env, source, capsys):
    command = [*NET, "--init", "source", "--resume", "auto", "--run"]
    assert train(*command, "whole") == 0
    assert train(*command, "parts", "--stop-after", 3) == 75
    assert "--init" not in capsys.readouterr().out.splitlines()[-1]
    shutil.rmtree(source)
    assert train(*command, "parts") == 0
    assert outcome(relaunch_env / "runs/parts") == outcome(relaunch_env / "runs/whole")
    assert record(relaunch_env / "runs/parts") == record(relaunch_env / "runs/whole")
    capsys.readouterr()
    assert train(*NET, "--init", "other", "--resume", "auto", "--run", "parts") == 64
    said = (
        "--init other is not how runs/parts was begun: it was begun with the weights of source; leave it out"
    )
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--init", "source"], []])
def test_a_kill_before_the_first_checkpoint_does_not_begin_with_others(
    train, relaunch_env, source, fault, flags, capsys
):
    """The record tells what to begin with, also a command that does not; changed since, they are refused."""
    command = [*NET, "--resume", "auto", "--run"]
    assert train(*command, "whole", "--init", "source") == 0
    fault("step=3,do=raise")
    with pytest.raises(RuntimeError):
        train(*command, "parts", "--init", "source")
    fault("")
    assert steps(relaunch_env / "runs/parts") == []
    weights = source / "checkpoints/step-000000005"
    weights.rename(relaunch_env / "away")
    assert train(*command, "parts", *flags) == 65
    (relaunch_env / "away").rename(weights)
    plan = relaunch_env / "runs/parts/plan.json"
    text = plan.read_text()
    plan.write_text(text.replace(record(relaunch_env / "runs/parts")["sha256"], "0" * 64))
    capsys.readouterr()
    assert train(*command, "parts", *flags) == 65
    assert "is not what this run was begun with" in capsys.readouterr().err
    plan.write_text(text)
    assert train(*command, "parts", *flags) == 0
    assert outcome(relaunch_env / "runs/parts") == outcome(relaunch_env / "runs/whole")


def test_public_weights_of_other_classes(train, relaunch_env, capsys):
    """torchvision's ResNet-18 of 1,000 classes, as its own code saves it."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=1000).state_dict()
    torch.save(theirs, "resnet18.pth")
    command = ["tiny_imagenet", "--batch-size", 4, *STILL, "--init", "resnet18.pth", "--run"]
    assert train(*command, "refused") == 65
    error = capsys.readouterr().err
    assert "the last layer of" in error and "(fc) has 1,000 outputs, and this model's has 10" in error
    assert "; add --init-head fresh to begin it anew" in error and error.count("\n") == 1
    assert not (relaunch_env / "runs").exists()
    assert train(*command, "tuned", "--init-head", "fresh") == 0
    assert "--init-head fresh left as initialised: fc.weight, fc.bias\n" in capsys.readouterr().out
    tuned = relaunch_env / "runs/tuned"
    assert train("tiny_imagenet", "--batch-size", 4, *STILL, "--run", "scratch") == 0
    ours, scratch = (
        load_file(run / "checkpoints/step-000000001/model.safetensors")
        for run in (tuned, relaunch_env / "runs/scratch")
    )
    for name, _ in torchvision.models.resnet18(num_classes=10).named_parameters():
        assert ours[name].equal(scratch[name] if name.startswith("fc.") else theirs[name]), name
    assert record(tuned)["fresh"] == ["fc.weight", "fc.bias"]
    assert train(*command, "tuned", "--init-head", "fresh", "--resume", "auto") == 0
    assert status(tuned)["state"] == "done"


def test_a_head_that_fits_is_taken_over_and_said(train, relaunch_env, source, capsys):
    capsys.readouterr()
    assert train(*NET, *STILL, "--init", "source", "--init-head", "fresh", "--run", "tuned") == 0
    assert "--init-head fresh left nothing out: the last layer has the same shape" in capsys.readouterr().out
    assert outcome(relaunch_env / "runs/tuned")["model"] == outcome(source)["model"]


class Timm(nn.Module):
    """Layers as timm's and torchvision's classifiers are named; `where`: the last one's name."""

    def __init__(self, where: str, classes: int, width: int = 4):
        super().__init__()
        self.stem = nn.Linear(3, width)
        inner = nn.Linear(width, classes)
        for part in reversed(where.split(".")[1:]):
            outer = nn.Module()
            outer.norm = nn.LayerNorm(width)
            outer.add_module(part, inner)
            inner = outer
        self.add_module(where.split(".")[0], inner)


@pytest.mark.parametrize("where", ["fc", "head", "head.fc", "classifier", "classifier.6", "heads.head"])
def test_the_last_layer_by_the_names_that_are_in_use(where):
    theirs, ours = Timm(where, 1000), Timm(where, 10)
    fresh = {
        name: tensor.clone() for name, tensor in ours.state_dict().items() if name.startswith(f"{where}.")
    }
    with pytest.raises(Failure, match=f"the last layer of x.pth \\({where}\\) has 1,000 outputs") as caught:
        origin.fill(ours, theirs.state_dict(), "x.pth", fresh=False)
    assert caught.value.code == 65 and "--init-head fresh" in caught.value.fix
    assert origin.fill(ours, theirs.state_dict(), "x.pth", fresh=True) == [*fresh]
    for name, tensor in ours.state_dict().items():
        assert tensor.equal(fresh.get(name, theirs.state_dict()[name])), name
    wider = Timm(where, 1000, width=5).state_dict()
    with pytest.raises(Failure, match="other shapes in stem.weight, stem.bias") as caught:
        origin.fill(ours, wider, "x.pth", fresh=True)
    assert caught.value.code == 65
    with pytest.raises(Failure, match=r"stem.weight of shape \[5, 3\]"):
        origin.fill(ours, wider, "x.pth", fresh=False)


def test_what_cannot_be_begun_with(train, relaunch_env, source, capsys):
    (relaunch_env / "empty").mkdir()
    before = tree(relaunch_env)
    for words, code, said in (
        (
            ["--init", "source", "--resume", "source"],
            64,
            "--init and --resume PATH both say what to begin with",
        ),
        (["--init", "source", "--evaluate"], 64, "--init goes with training"),
        (["--init-head", "fresh"], 64, "--init-head goes with --init"),
        (["--init-head", "old", "--init", "source"], 64, "--init-head 'old' is not known; there is fresh"),
        (["--init", "nowhere"], 65, "no run or checkpoint 'nowhere'"),
        (["--init", "source@7"], 65, "no checkpoint of step 7; it has 5"),
        (["--init", "source", "--arch", "net_bn"], 65, "does not fit this model"),
        (["--init", "source", "--run", "source"], 64, "differs from this run's"),
        (["--init", "source@5", "--run", "source"], 64, "source@5 is a checkpoint of runs/source itself"),
        (["--init", "./empty", "--run", "./empty"], 65, "empty is no run yet"),
    ):
        capsys.readouterr()
        run = ["--run", "new"] if "--run" not in words else []
        assert train(*NET, "--lr", 0.7, *words, *run) == code, words
        error = capsys.readouterr().err
        assert error.startswith(f"relaunch: {code} ") and said in error and error.count("\n") == 1, error
    assert tree(relaunch_env) == before
