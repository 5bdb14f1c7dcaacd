"""Numbers that are not finite never reach the weights: what a training does then, and goes on to."""

import json
import math

import pytest
import torch

from relaunch.trainers import records, rollback
from relaunch.trainers.guard import BEFORE, FAR, Guard, finite
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs.runs import outcome, status, steps

NET = "cifar10 --arch net --batch-size 8 --max-steps 12 --save-every 4 --log-interval 1 --keep 9".split()
BACK = [*NET, "--on-nan", "rollback"]


def state(training) -> list[torch.Tensor]:
    slots = training.optimizer.state.values()
    averaged = training.average.module.parameters() if training.average else []
    tensors = [*training.module.parameters(), *averaged, *(t for slot in slots for t in slot.values())]
    return [torch.as_tensor(t).detach().clone() for t in tensors]


@pytest.fixture
def spoilt(train, fault, at):
    """spoilt("--flag", …): a training with a NaN in a gradient of step 6 ends with 70, as step 5 left it."""

    def trained(*flags):
        kept = []
        fault("gradient=6,do=nan")
        for step in (5, 6):
            at(step, lambda training: kept.append(state(training)))
        assert train(*NET, *flags, "--run", "./run") == 70
        assert all(map(torch.equal, *kept)) and len(kept) == 2

    return trained


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_such_a_step_changes_nothing_and_ends_the_training(spoilt, relaunch_env, capsys, optimizer):
    spoilt("--optimizer", optimizer, "--ema", 0.9)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "relaunch: 70 the gradient of conv1.weight is not finite at step 6, which was not "
    )
    assert "step 4 is saved" in error
    run = relaunch_env / "run"
    assert steps(run) == [4] and checkpoint.newest_valid(RunDir(run)) == RunDir(run).checkpoint(4)
    said = status(run)
    assert (said["state"], said["code"], said["step"], said["saved"]) == ("failed", 70, 6, 4)
    assert max(row["step"] for row in records.metrics(RunDir(run))) == 5


def test_a_rollback_trains_what_a_training_without_that_batch_would(
    train, relaunch_env, fault, monkeypatch, capsys
):
    fault("gradient=7,do=nan;gradient=6,do=nan")
    assert train(*BACK, "--run", "./back") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "back to step" in line]
    assert len(said) == 2 and said[0].endswith("back to step 4: rollback 1 of at most 10")
    found = [{"step": n, "to": 4, "what": "the gradient of conv1.weight is not finite"} for n in (6, 7)]
    back = outcome(relaunch_env / "back")
    assert back["state"].pop("rollbacks") == found
    assert records.plan(RunDir(relaunch_env / "back"))["rollbacks"] == found
    rows = [row["step"] for row in back["metrics"] if "loss" in row and row["split"] == "train"]
    assert rows == [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]
    fault("")
    monkeypatch.setattr(rollback, "leaves_out", lambda training, step: step in (6, 7))
    assert train(*BACK, "--run", "./without") == 0
    assert back == outcome(relaunch_env / "without")


def test_a_run_that_went_back_is_resumed_to_the_same_bits(train, relaunch_env, fault):
    fault("gradient=6,do=nan")
    assert train(*BACK, "--run", "./whole") == 0
    fault(f"gradient=6,do=nan,once={relaunch_env}/met;step=7,do=raise,once={relaunch_env}/died")
    with pytest.raises(RuntimeError):  # before it saves anything again
        train(*BACK, "--run", "./run")
    assert train(*BACK, "--run", "./run", "--resume", "auto") == 0
    assert outcome(relaunch_env / "run") == outcome(relaunch_env / "whole")
    told = [records.plan(RunDir(relaunch_env / name))["rollbacks"] for name in ("run", "whole")]
    assert told[0] == told[1] and len(told[0]) == 1


@pytest.mark.parametrize(
    "faults, reason, went",
    [
        ("gradient=2,do=nan", "nothing is saved yet, so that there is none to go back to", 0),
        (
            ";".join(f"gradient={step},do=nan" for step in (5, 6, 7, 8)),
            "at step 8, which was not taken; step 4 is saved, after 3 rollbacks, 3 of them to step 4",
            3,
        ),
    ],
    ids=["without a checkpoint", "in vain"],
)
def test_rollbacks_end(train, relaunch_env, fault, capsys, faults, reason, went):
    fault(faults)
    assert train(*BACK, "--run", "./run") == 70
    assert reason in capsys.readouterr().err.splitlines()[-1]
    assert len(records.plan(RunDir(relaunch_env / "run")).get("rollbacks", [])) == went


def test_it_may_be_chosen_when_the_run_goes_on(train, relaunch_env, fault):
    fault("gradient=6,do=nan")
    assert train(*NET, "--run", "./run") == 70
    assert train(*NET, "--run", "./run", "--resume", "auto", "--on-nan", "rollback") == 0
    assert status(relaunch_env / "run")["step"] == 12


def test_a_loss_far_outside_the_last_ones_is_noticed(train, at):
    guards = []
    at(3, lambda training: guards.append(training.guard))
    assert train(*NET, "--max-steps", 3, "--run", "./run") == 0
    guard: Guard = guards[0]
    guard.forget()

    def seen(loss: float) -> bool:
        assert guard.judge(1, ["w"], [2.0, loss])
        return guard.far

    assert not any(seen(1 + step % 3) for step in range(BEFORE)), "the first ones have none before them"
    assert not seen(3 * FAR) and seen(3.1 * FAR**2) and not seen(3.1 * FAR**2)
    assert not guard.judge(2, ["w"], [1.0, math.inf]) and guard.found == (2, "the loss")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_gradients_of_any_type_are_looked_at(dtype):
    tensors = [torch.ones(3), torch.ones(2, 3, dtype=dtype)]
    assert finite(tensors) and finite([])
    tensors[1][1, 2] = math.inf
    assert not finite(tensors)


@pytest.fixture
def device(monkeypatch):
    """Steps as on a GPU, whose numbers are read one step later: the CPU's kernels know the flag, too."""

    class Event:
        record = synchronize = lambda self: None

    def later(guard, training):
        made(guard, training)
        guard.on_device = True

    made = Guard.__init__
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Guard, "__init__", later)


@pytest.mark.parametrize(
    "save_every, seen_after", [(4, 7), (6, 6)], ids=["a step later", "before it is saved"]
)
def test_a_device_passes_such_a_step_by_and_is_asked_later(
    spoilt, relaunch_env, device, save_every, seen_after
):
    spoilt("--save-every", save_every, "--log-interval", 50)
    said = status(relaunch_env / "run")
    assert "at step 6, which was not taken" in said["reason"] and said["step"] == seen_after
    assert steps(relaunch_env / "run") == ([4] if save_every == 4 else [])


# several ranks --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ranks_go_back_together_though_one_alone_found_it(start, relaunch_env, monkeypatch):
    monkeypatch.setenv("RELAUNCH_FAULT", "gradient=6,rank=1,do=nan")
    two = dict(processes=2, accelerate="accelerate")
    whole = start(*BACK, "--run", "./whole", **two).end()
    assert whole.code == 0, whole.err
    monkeypatch.setenv(
        "RELAUNCH_FAULT", f"gradient=6,rank=1,do=nan;step=10,do=kill,once={relaunch_env}/struck"
    )
    assert start(*BACK, "--run", "./killed", **two).end().code != 0
    assert start(*BACK, "--run", "./killed", "--resume", "auto", **two).end().code == 0
    assert outcome(relaunch_env / "killed") == outcome(relaunch_env / "whole")
    told = json.loads((relaunch_env / "whole/plan.json").read_text())["rollbacks"]
    assert [(each["step"], each["to"]) for each in told] == [(6, 4)]
