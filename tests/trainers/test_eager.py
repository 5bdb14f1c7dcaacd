"""Optimizers made without torch.compile: the same numbers, and what a training loads."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from relaunch.trainers import eager, muon

TRAINED = """
import sys
from relaunch.trainers import train
code, _ = train.run(sys.argv[1:])
print(code, "torch._dynamo" in sys.modules)
"""
ARGV = "mnist --data digits --epochs 1 --threads 1 --run runs/it"


@pytest.mark.parametrize("optimizer", ["adadelta", "sgd", "adamw", "muon"])
def test_a_training_does_not_load_torch_compile(relaunch_env, monkeypatch, optimizer):
    """It would take half a second, and 110 MB."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    command = [sys.executable, "-c", TRAINED, *ARGV.split(), "--optimizer", optimizer, "--lr", "0.01"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    "kind, settings",
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "fused": True}),
        (torch.optim.Adadelta, {"lr": 0.5}),
        (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    ],
)
def test_a_step_is_that_of_its_class(kind, settings):
    torch.manual_seed(0)
    weights, inputs = torch.randn(5, 3), torch.randn(4, 3)
    parameters = [torch.nn.Parameter(weights.clone()) for _ in range(2)]
    optimizers = [kind(parameters[:1], **settings), eager.made(kind, parameters[1:], **settings)]
    for _ in range(3):
        for p, optimizer in zip(parameters, optimizers):
            (inputs @ p.T).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(*parameters)
    assert not torch.equal(parameters[0], weights)
    mine, theirs = (o.state_dict()["state"][0] for o in optimizers)
    assert mine.keys() == theirs.keys()


def test_muon_moves_what_is_no_matrix_as_adamw_does():
    weights, gradient = torch.ones(3), torch.tensor([1.0, 2.0, 3.0])
    theirs, ours = (torch.nn.Parameter(weights.clone()) for _ in range(2))
    groups = [{"params": [ours], "matrices": False}]
    made = torch.optim.AdamW([theirs], 0.1, weight_decay=0.2, fused=True)
    for p, optimizer in ((theirs, made), (ours, eager.made(muon.Muon, groups, 0.1, 0.9, 0.2))):
        p.grad = gradient.clone()
        optimizer.step()
    assert torch.equal(ours, theirs)


def test_what_a_method_was_kept_from_is_so_again_afterwards():
    def method():
        return 1

    kept = torch._disable_dynamo(method)
    with pytest.raises(ValueError), eager.spared(kept):
        assert vars(method)[eager.CACHE] is method
        assert kept() == 1
        raise ValueError
    assert eager.CACHE not in vars(method)
