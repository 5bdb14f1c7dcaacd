"""A training from its command to its run's folder: every workload, and every mistake that is one line."""

import pytest
from conftest import records, status, steps

from trainers import workloads
from trainers.build import make_model
from trainers.checkpoint import load
from trainers.config import parse

CASES = [(name, arch) for name in workloads.names() for arch in workloads.load(name).archs]


@pytest.mark.parametrize("workload, arch", CASES)
def test_one_step(train, sets, relaunch_env, workload, arch):
    from data_prep.packed import open_packed

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
    assert train(workload, *gentle, "--batch-size", 16, "--max-steps", 15, "--log-interval", 5, "--run", "./run") == 0
    name = {"images": "loss", "text": "nll"}[workloads.load(workload).kind]
    losses = [r[name] for r in records(relaunch_env / "run") if r["split"] == "train" and name in r]
    assert len(losses) == 3 and losses[-1] < losses[0]
