"""A step on a GPU: it waits for nothing, and neither fresh memory nor where the set lies changes a bit."""

import warnings

import pytest
import torch

from relaunch.trainers.group.runtime import Runtime
from relaunch.trainers.loop import Training
from relaunch.trainers.tasks import sample_batches
from rigs.runs import outcome, status, steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine shows no GPU to CUDA"),
]
NET = ["cifar10", "--batch-size", 4, "--grad-accum-steps", 2, "--clip", 1]
IMAGES = ["tiny_imagenet", "--batch-size", 8, "--cutmix", 0.5, "--crop", 4]


@pytest.mark.parametrize("share", [sample_batches.RESIDENT, 0], ids=["on the device", "from memory"])
@pytest.mark.parametrize("words", [IMAGES, NET, ["mnist", "--batch-size", 8], ["wikitext2", "--clip", 0.25]])
def test_a_step_waits_for_nothing(train, monkeypatch, words, share):
    """No copy, and no number that is read, makes the CPU wait for the device; once an epoch it may."""
    advance = Training.advance

    def without_waiting(training):
        first = training.step % training.epoch_steps == 0
        with warnings.catch_warnings(action="ignore"):  # it says once that it is a prototype
            torch.cuda.set_sync_debug_mode("default" if first else "error")
        try:
            advance(training)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Training, "advance", without_waiting)
    monkeypatch.setattr(sample_batches, "RESIDENT", share)
    assert train(*words, "--run", "./run", "--max-steps", 9, "--log-interval", 9) == 0


@pytest.mark.parametrize("words", [IMAGES, ["wikitext2"]])
def test_fresh_memory_that_is_not_filled_changes_no_bit(train, relaunch_env, monkeypatch, words):
    command = [*words, "--max-steps", 9, "--eval-batch-size", 5]
    assert train(*command, "--run", "./fresh") == 0
    settle = Runtime.settle

    def filled(runtime, *asked):
        settle(runtime, *asked)
        torch.utils.deterministic.fill_uninitialized_memory = True

    monkeypatch.setattr(Runtime, "settle", filled)
    assert train(*command, "--run", "./filled") == 0
    assert outcome(relaunch_env / "fresh") == outcome(relaunch_env / "filled")


@pytest.mark.parametrize(
    "words", [[*NET, "--optimizer", "sgd"], [*NET, "--optimizer", "muon"], ["wikitext2"]]
)
def test_a_step_that_is_not_finite_is_found_and_not_saved(train, relaunch_env, fault, words):
    fault("gradient=6,do=nan")
    command = [*words, "--max-steps", 9, "--save-every", 6, "--run", "./run"]
    assert train(*command) == 70 and "at step 6, which" in status(relaunch_env / "run")["reason"]
    assert 6 not in steps(relaunch_env / "run")


def test_a_step_computed_twice_changes_no_bit(train, relaunch_env):
    for every in (0, 2):
        assert train(*NET, "--max-steps", 9, "--check-every", every, "--run", f"./{every}") == 0
    plain, checked = (outcome(relaunch_env / str(every)) for every in (0, 2))
    assert (plain["model"], plain["optimizer"]) == (checked["model"], checked["optimizer"])


def test_where_the_set_lies_changes_no_bit(train, relaunch_env, monkeypatch):
    for name, share in (("device", sample_batches.RESIDENT), ("memory", 0)):
        monkeypatch.setattr(sample_batches, "RESIDENT", share)
        assert train(*IMAGES, "--max-steps", 9, "--run", f"./{name}") == 0
    assert outcome(relaunch_env / "device") == outcome(relaunch_env / "memory")
