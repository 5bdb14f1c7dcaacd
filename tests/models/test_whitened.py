"""The whitened network: what its first layer does, and that a training fits it before the first step."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from relaunch.data_prep.packed import open_packed
from relaunch.models.whitened import Whitened
from relaunch.trainers.build import fit_inputs, make_model
from relaunch.trainers.config import parse


@pytest.mark.parametrize("channels, side, stride", [(3, 32, 1), (3, 32, 2), (1, 28, 2), (3, 64, 2)])
def test_shapes(channels, side, stride):
    model = Whitened(channels, 7, (8, 16, 16), stride)
    assert model(torch.zeros(2, channels, side, side)).shape == (2, 7)


def test_patches_become_uncorrelated_features_of_one_size():
    torch.manual_seed(1)
    images = F.avg_pool2d(torch.randn(50, 3, 34, 34), 3, 1) * torch.tensor([1.0, 3.0, 0.5]).view(3, 1, 1)
    model = Whitened(widths=(4, 4, 4))
    model.fit_inputs(images, eps=0)
    features = model.whiten(images).transpose(0, 1).flatten(1)
    half = len(features) // 2
    covariance = features[:half] @ features[:half].T / features.shape[1]
    assert torch.allclose(covariance, torch.eye(half), atol=1e-3)
    assert torch.equal(features[:half], -features[half:])


def test_a_training_fits_it_to_its_images_and_leaves_it_alone(train, sets, relaunch_env):
    command = "cifar10 --arch whitened_small --batch-size 8 --max-steps 3".split()
    assert train(*command, "--run", "./fast") == 0
    config = parse(command).config
    packed = open_packed("cifar10", sets)
    model = make_model(config, packed.sizes)
    before = model.whiten.weight.clone()
    fit_inputs(config, packed, model)
    trained = load_file(relaunch_env / "fast" / "checkpoints" / f"step-{3:09d}" / "model.safetensors")
    assert (
        torch.equal(trained["whiten.weight"], model.whiten.weight)
        and (before != trained["whiten.weight"]).any()
    )
    (relaunch_env / "fast" / "checkpoints").rename(
        relaunch_env / "gone"
    )  # as a kill before the first leaves it
    for name in ("status.json", "metrics.jsonl"):
        (relaunch_env / "fast" / name).unlink()
    assert train(*command, "--run", "./fast", "--resume", "auto") == 0
    again = load_file(relaunch_env / "fast" / "checkpoints" / f"step-{3:09d}" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in trained.items())
    assert (trained["whiten.bias"] != 0).any()
