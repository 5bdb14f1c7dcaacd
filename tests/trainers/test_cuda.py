"""What only a GPU can show. Skipped without one."""

import pytest
import torch

from relaunch.trainers.group.runtime import Runtime
from relaunch.trainers.loop import Training
from relaunch.trainers.tasks import sample_batches
from rigs.runs import outcome

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
IMAGES = ["tiny_imagenet", "--batch-size", 8, "--cutmix", 0.5, "--crop", 4]


@pytest.mark.parametrize("share", [sample_batches.RESIDENT, 0], ids=["on the device", "from memory"])
@pytest.mark.parametrize("words", [IMAGES, ["mnist", "--batch-size", 8], ["wikitext2", "--clip", 0.25]])
def test_a_step_waits_for_nothing(train, monkeypatch, words, share):
    """No copy, and no number that is read, makes the CPU wait for the device; once an epoch it may."""
    advance = Training.advance

    def without_waiting(training):
        first = training.step % training.epoch_steps == 0
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


def test_where_the_set_lies_changes_no_bit(train, relaunch_env, monkeypatch):
    for name, share in (("device", sample_batches.RESIDENT), ("memory", 0)):
        monkeypatch.setattr(sample_batches, "RESIDENT", share)
        assert train(*IMAGES, "--max-steps", 9, "--run", f"./{name}") == 0
    assert outcome(relaunch_env / "device") == outcome(relaunch_env / "memory")
