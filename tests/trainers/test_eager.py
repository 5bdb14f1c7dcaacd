"""Optimizers made without torch.compile: the same numbers, and what a training loads."""

from __future__ import annotations

import contextlib
import copy
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
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5, "nesterov": True, "maximize": True, "fused": True}),
        (torch.optim.SGD, {"lr": 0.1, "fused": True}),
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
    mine, theirs = (o.state_dict()["state"].get(0, {}) for o in optimizers)
    assert mine.keys() == theirs.keys()


@pytest.mark.parametrize("odd", ["none", "float64", "sparse", "passed by"])
def test_a_step_of_sgd_takes_what_gradients_there_are(odd):
    """Of two groups, one with another kind of gradient, or at times with none; restored in between."""
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Embedding(4, 3, sparse=odd == "sparse"), torch.nn.Linear(3, 2))
    if odd == "float64":
        theirs.double()
    ours = copy.deepcopy(theirs)

    def steps(model, make):
        groups = [{"params": list(m.parameters()), "lr": rate} for m, rate in zip(model, (0.1, 0.3))]
        optimizer = make(torch.optim.SGD, groups, momentum=0.9, fused=True)
        for step in range(5):
            model(torch.arange(4)[step % 3 :]).square().sum().backward()
            if odd == "none" and step % 2:
                model[0].weight.grad = None
            if step == 3:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            if odd == "passed by":
                optimizer.found_inf = torch.tensor(float(step == 2))
            optimizer.step()
            optimizer.zero_grad()

    for model, make in ((theirs, lambda kind, *a, **k: kind(*a, **k)), (ours, eager.made)):
        refused = pytest.raises(RuntimeError, match="sparse")  # by torch's step
        with refused if odd == "sparse" else contextlib.nullcontext():
            steps(model, make)
    assert all(map(torch.equal, theirs.parameters(), ours.parameters()))


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
