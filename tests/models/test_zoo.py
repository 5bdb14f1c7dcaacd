"""Models by name from torchvision and timm: their names, what they take, and that they train."""

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.sizes import published
from relaunch.models import zoo
from relaunch.trainers import export, summary, workloads
from relaunch.trainers.build import check_step, make_model
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.tasks.images import ImageTask
from rigs.runs import outcome
from rigs.stand_in import commit, small_set

needs_timm = pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")
CIFAR, MNIST = published("cifar10"), published("mnist")
SHUFFLE, DROP, DEPTH = (
    f"torchvision:{n}" for n in ("shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0")
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def config_of(arch: str, workload: str = "cifar10", *flags: str) -> RunConfig:
    return parse([workload, "--arch", arch, *flags]).config


def refused(make) -> str:
    with pytest.raises(Failure) as failure:
        make()
    assert failure.value.code == 64
    return failure.value.line()


# names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arch,words",
    [
        (
            "torchvision:resnet17",
            "torchvision has no model 'resnet17'; did you mean --arch torchvision:resnet1",
        ),
        ("torchvision:", "torchvision has no model ''; it has"),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no model 'fasterrcnn_resnet50_fpn'"),
        pytest.param(
            "timm:convnext_ato",
            "timm has no model 'convnext_ato'; did you mean --arch timm:convnext_atto?",
            marks=needs_timm,
        ),
        pytest.param(  # it names weights, which --arch does not load
            "timm:convnext_atto.d2_in1k",
            "timm has no model 'convnext_atto.d2_in1k'; did you mean --arch timm:convnext_atto?",
            marks=needs_timm,
        ),
        pytest.param(
            "timm:hf-hub:timm/resnet18", "timm has no model 'hf-hub:timm/resnet18'", marks=needs_timm
        ),
    ],
)
def test_an_unknown_name_is_one_line_with_a_near_one(arch, words):
    assert words in refused(lambda: make_model(config_of(arch), CIFAR))


def test_a_missing_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as Python itself marks what must not be imported
    line = refused(lambda: make_model(config_of("timm:resnet18"), CIFAR))
    assert "--arch timm:resnet18 needs timm, which is not installed" in line
    assert line.endswith("pip install timm, or pip install 'relaunch[timm]'")


@pytest.mark.parametrize(
    "workload,arch", [("wikitext2", "torchvision:resnet18"), ("cifar10", "keras:resnet50"), ("mnist", "timm")]
)
def test_a_library_that_does_not_fit_the_task_is_refused_when_the_line_is_read(workload, arch):
    line = refused(lambda: config_of(arch, workload))
    assert f"{workload} has no architecture '{arch}'; " in line
    assert ("timm:NAME" in line) == (workload != "wikitext2")


def test_the_launchers_question_finds_it(relaunch_env, capsys):
    """What --dry-run and doctor ask."""
    assert summary.run(["cifar10", "--json", "--arch", "torchvision:resnet17"])[0] == 64
    assert "torchvision has no model 'resnet17'" in capsys.readouterr().out
    assert summary.run(["cifar10", "--json", "--arch", SHUFFLE])[0] == 0
    assert '"parameters": 352042' in capsys.readouterr().out


def exported(tmp_path, arch):
    packed = small_set(tmp_path, "cifar10")
    _, _, model = commit(tmp_path / "run", f"cifar10 --arch {arch}", packed)
    assert export.run([str(tmp_path / "run")])[0] == 0
    return model, tmp_path / "run" / "export" / f"cifar10-{arch.replace(':', '-')}-000000012"


def test_weights_load_into_torchvision_and_back(tmp_path):
    model, stem = exported(tmp_path, SHUFFLE)
    theirs = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    for weights in load_file(f"{stem}.safetensors"), torch.load(f"{stem}.pth", weights_only=True):
        theirs.load_state_dict(weights, strict=True)
    model.load_state_dict(theirs.state_dict(), strict=True)


@needs_timm
def test_weights_load_into_timm_and_back(tmp_path):
    import timm

    model, stem = exported(tmp_path, "timm:test_resnet")
    theirs = timm.create_model("test_resnet", num_classes=10)
    theirs.load_state_dict(load_file(f"{stem}.safetensors"), strict=True)
    model.load_state_dict(theirs.state_dict(), strict=True)


# inputs and outputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arch,workload,shape,words",
    [
        ("torchvision:alexnet", "cifar10", (3, 32, 32), "does not take the 3x32x32 images of cifar10 ("),
        ("torchvision:inception_v3", "cifar10", (3, 32, 32), "choose another --arch, or pack the data with "),
        ("torchvision:maxvit_t", "cifar10", (3, 64, 64), "does not take the 3x64x64 images of cifar10 ("),
        ("torchvision:vit_b_32", "cifar10", (3, 40, 40), "does not take the 3x40x40 images of cifar10 ("),
        (
            SHUFFLE,
            "mnist",
            (1, 28, 28),
            "take 3 channels, and these have 1); use --arch timm:NAME, whose models",
        ),
        pytest.param(
            "timm:test_vit", "cifar10", (3, 6, 6), "does not take the 3x6x6 images of", marks=needs_timm
        ),
    ],
)
def test_images_that_a_model_does_not_take_are_refused(arch, workload, shape, words):
    sizes = replace(published(workload), shape=shape)
    assert words in refused(lambda: make_model(config_of(arch, workload), sizes))


@needs_timm
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "convnext_atto"])
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 96), (4, 32, 32)])
def test_timm_takes_any_channels_and_its_transformers_are_made_for_the_size(name, shape):
    model = zoo.build("timm", name, 7, shape).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, *shape)).shape == (2, 7)


def test_auxiliary_heads_are_left_out():
    """With them GoogLeNet's training makes a tuple; its weights keep torchvision's names."""
    model = make_model(config_of("torchvision:googlenet"), CIFAR)
    assert model.training and model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    theirs = torchvision.models.googlenet(num_classes=10, aux_logits=False, init_weights=False)
    theirs.load_state_dict(model.state_dict(), strict=True)


class Task(ImageTask):
    def output_shape(self, config, sizes):
        return (1, 4)


def test_a_task_that_wants_something_else_than_a_number_a_class(monkeypatch):
    work = replace(workloads.load("cifar10"), task=Task())
    monkeypatch.setattr(workloads, "load", lambda name: work)
    line = refused(lambda: make_model(config_of(SHUFFLE), CIFAR))
    assert f"--arch {SHUFFLE} gives 10 numbers for each of cifar10's images, and cifar10 is about" in line


class Odd(nn.Module):
    """`training`: what it makes then, of its logits; `spare` is in no path."""

    def __init__(self, training):
        super().__init__()
        self.fc, self.spare, self.of = nn.Linear(3072, 10), nn.Linear(2, 2), training

    def forward(self, x):
        y = self.fc(x.flatten(1))
        return self.of(y) if self.training else y


@pytest.mark.parametrize(
    "made,words",
    [
        (lambda y: (y, y), "makes tuple of one input of cifar10 in training, and should make [1, 10]"),
        (lambda y: y[:, :9], "makes [1, 9] of one input of cifar10 in training, and should make [1, 10]"),
    ],
)
def test_a_model_that_makes_something_else_in_training_is_refused(made, words):
    assert words in refused(lambda: check_step(config_of("net"), Odd(made), CIFAR))


def test_a_tried_step_changes_nothing_and_finds_what_gets_no_gradient():
    model, before = Odd(lambda y: y), torch.get_rng_state()
    model.fc.bias.requires_grad_(False)
    assert check_step(config_of("net"), model, CIFAR) == ["spare.weight", "spare.bias"]
    dropping = make_model(config_of(DEPTH), CIFAR)
    weights, before = {k: v.clone() for k, v in dropping.state_dict().items()}, torch.get_rng_state()
    assert check_step(config_of(DEPTH), dropping, CIFAR) == [] and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, weights[k]) for k, v in dropping.state_dict().items())


# training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arch",
    [DROP, DEPTH, pytest.param("timm:test_convnext", marks=needs_timm)],
)
def test_stopped_and_resumed_is_undisturbed(train, relaunch_env, arch):
    """Dropout and stochastic depth draw from what each step seeds, and BatchNorm's statistics are kept."""
    command = ["cifar10", "--arch", arch, "--batch-size", 16, "--max-steps", 5, "--lr", 0.01]
    assert train(*command, "--run", "./whole") == 0
    assert train(*command, "--run", "./parts", "--stop-after", 3) == 75
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # three saves of a gigabyte
def test_eighty_six_million_parameters_start_save_and_resume(train, relaunch_env):
    command = ["cifar10", "--arch", "torchvision:vit_b_16", "--batch-size", 4, "--max-steps", 3]
    assert train(*command, "--run", "./whole") == 0
    assert train(*command, "--run", "./parts", "--stop-after", 1) == 75
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")
    weights = relaunch_env / "whole" / "checkpoints" / "step-000000003" / "model.safetensors"
    assert weights.stat().st_size > 4 * 85e6
