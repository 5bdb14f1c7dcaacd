"""Pooling of 2x2 pixels: PyTorch's numbers and gradients, to the bit, in a fraction of the time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from relaunch.models import pooling
from relaunch.models.cnn import MnistNet, Net, NetBN, SimpleCNN
from relaunch.models.resnet import ResNet18


def both(x):
    """Values and gradients, ours and PyTorch's."""
    x.requires_grad_()
    found = []
    for pool in (pooling.MaxPool2d(), lambda x: F.max_pool2d(x, 2)):
        y = pool(x)
        (back,) = torch.autograd.grad(y, x, torch.arange(1.0, y.numel() + 1).view_as(y).to(x.dtype))
        found.append((y.detach(), back))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [(28, 28), (10, 14), (33, 47), (300, 2)])
def test_many_images_are_pooled_to_the_bit(size, dtype, monkeypatch):
    monkeypatch.setattr(pooling, "LEAST", 0)
    x = torch.randn(5, 3, *size).to(dtype)
    (y, back), (theirs, back_of_theirs) = both(x)
    assert torch.equal(y, theirs) and torch.equal(back, back_of_theirs)


def test_of_equal_pixels_the_first_one_learns(monkeypatch):
    monkeypatch.setattr(pooling, "LEAST", 0)
    every = torch.tensor(list(itertools.product((-1.0, 0.0, 2.0), repeat=4))).view(1, 81, 2, 2)
    ours, theirs = both(every)
    assert torch.equal(ours[1], theirs[1]) and torch.equal(ours[0], theirs[0])


def test_what_is_not_a_number_stays_one(monkeypatch):
    monkeypatch.setattr(pooling, "LEAST", 0)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 2] = torch.nan
    assert both(x)[0][0].isnan().tolist() == [[[[False, True], [False, False]]]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_scoring_pools_to_the_bit_and_keeps_the_layout(layout):
    x = torch.randn(7, 6, 31, 28).contiguous(memory_format=layout)
    with torch.no_grad():
        y, theirs = pooling.MaxPool2d()(x), F.max_pool2d(x, 2)
    assert torch.equal(y, theirs) and y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("make", [MnistNet, Net, NetBN, SimpleCNN])
def test_networks_train_as_with_pytorchs_pooling_after_the_relu(make, monkeypatch):
    """In 64 images, which are many enough: loss and gradients are the same bits."""
    shape = (1, 28, 28) if make is MnistNet else (3, 32, 32)
    x, labels = torch.randn(64, *shape), torch.arange(64) % 10

    def gradients():
        torch.manual_seed(3)
        model = make()
        F.cross_entropy(model(x), labels).backward()
        return [p.grad for p in model.parameters()]

    calls, ours = [], gradients()

    def theirs(self, x):
        calls.append(x)
        return F.max_pool2d(F.relu(x), 2)

    monkeypatch.setattr(pooling.MaxPool2d, "forward", theirs)
    assert all(map(torch.equal, ours, gradients())) and calls


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_resnet_pools_before_its_relu_to_the_bit(layout):
    """Of windows that overlap, with equal pixels, and some with none above zero."""
    x = torch.randint(-3, 3, (4, 64, 33, 32)).float().contiguous(memory_format=layout).requires_grad_()
    pool = ResNet18(10).maxpool
    found = []
    for y in (pool(x).relu(), pool(x.relu())):
        weights = torch.linspace(-1, 1, y.numel()).view_as(y)
        found += [y.detach(), *torch.autograd.grad(y, x, weights)]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
