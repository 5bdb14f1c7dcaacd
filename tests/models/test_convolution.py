"""The convolution for small images: nn.Conv2d's numbers to rounding, and the same count of FLOPs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relaunch.models.cnn import Net
from relaunch.models.convolution import FEW, Conv2d
from relaunch.trainers.summary import flop_counter


@pytest.mark.parametrize("images", [FEW, FEW + 1])
@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"bias": False}])
def test_numbers_and_flops_are_those_of_torch_s_own(images, settings):
    torch.manual_seed(0)
    ours, theirs = Conv2d(3, 6, 3, **settings), nn.Conv2d(3, 6, 3, **settings)
    theirs.load_state_dict(ours.state_dict())
    x, found = torch.randn(images, 3, 9, 7), []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        with flop_counter() as counter:
            out = layer(given)
            (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append([out, given.grad, *(p.grad for p in layer.parameters())])
        found[-1].append(torch.tensor(counter.get_total_flops()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    few = "thnn" in str(ours(x).grad_fn).lower() or "slow" in str(ours(x).grad_fn).lower()
    assert few == (images == FEW), "few images go another way"


@pytest.mark.parametrize("images", [FEW, 32])
def test_the_tutorials_network_is_what_the_tutorial_says(images):
    torch.manual_seed(0)
    net, x = Net(), torch.randn(images, 3, 32, 32)

    def tutorial(x):
        for conv in (net.conv1, net.conv2):
            x = F.max_pool2d(F.relu(F.conv2d(x, conv.weight, conv.bias)), 2)
        return net.fc3(F.relu(net.fc2(F.relu(net.fc1(x.flatten(1))))))

    outputs = net(x), tutorial(x)
    gradients = [
        torch.autograd.grad(F.cross_entropy(out, torch.arange(images) % 10), net.parameters())
        for out in outputs
    ]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)
