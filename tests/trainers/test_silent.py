"""Hardware that computes wrong without a word: what a step run twice, and compared replicas, notice."""

import pytest
import torch

from relaunch.data_prep.errors import Failure
from relaunch.trainers import guard, silent
from rigs.runs import outcome, status, steps

NET = "cifar10 --arch net_bn --batch-size 8 --max-steps 8 --save-every 4 --log-interval 1 --keep 9".split()
HOSTS = ["n0", "n0", "n1", "n1"]


def test_a_step_computed_twice_leaves_every_bit_as_it_was(train, relaunch_env):
    """BatchNorm's statistics, dropout, several micro-batches and an average are in it."""
    text = "wikitext2 --data pydoc --max-steps 5 --emsize 8 --nhid 8 --nlayers 1 --nhead 1 -b 4".split()
    for name, command in {"images": [*NET, "--grad-accum-steps", 2, "--ema", 0.9], "text": text}.items():
        for every in (0, 2):
            assert train(*command, "--check-every", every, "--run", f"./{name}{every}") == 0
        plain, checked = (outcome(relaunch_env / f"{name}{every}") for every in (0, 2))
        assert checked["state"]["config"].pop("check_every") == 2
        assert plain["state"]["config"].pop("check_every") == 0 and plain == checked


@pytest.mark.parametrize("count", [1, 5])
def test_bits_that_flip_in_one_of_two_passes_are_76(train, relaunch_env, fault, capsys, count):
    fault(f"gradient=6,do=flip:{count},once={relaunch_env / 'flipped'}")
    assert train(*NET, "--check-every", 2, "--run", "./run") == 76
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        error.startswith("relaunch: 76 rank 0 (on ")
        and "is not to be trusted: step 6 computed twice" in error
    )
    assert status(relaunch_env / "run")["code"] == 76 and steps(relaunch_env / "run") == [4]


def test_a_loss_far_outside_the_last_ones_has_the_next_step_checked(train, relaunch_env, fault, monkeypatch):
    monkeypatch.setattr(guard, "BEFORE", 2)
    monkeypatch.setattr(guard, "FAR", 0.0)
    fault(f"gradient=4,do=flip:1,once={relaunch_env / 'flipped'}")
    assert train(*NET, "--run", "./run") == 76
    assert steps(relaunch_env / "run") == []


@pytest.mark.parametrize(
    "digests, said",
    [
        ([("cpu", 1)] * 4, None),
        ([None], None),
        ([("cpu", 1), ("cpu", 2), ("cpu", 1), ("cpu", 1)], "rank 1 (on n0) is"),
        ([("cpu", 1), ("cpu", 2)], "ranks 0, 1 (on n0) are"),
        ([("cpu", 1), ("cpu", 2), ("cpu", 2), ("cpu", 1)], "ranks 0, 1, 2, 3 (on n0, n1) are"),
        ([("old", 1), ("old", 1), ("new", 2), ("new", 2)], None),
        ([("old", 1), ("old", 1), ("new", 2), ("new", 3)], "ranks 2, 3 (on n1) are"),
    ],
)
def test_the_minority_is_named_among_processors_of_a_kind(digests, said):
    if not said:
        return silent.refuse_unless_equal(digests, HOSTS, 8)
    with pytest.raises(Failure, match="at step 8, which is not saved") as caught:
        silent.refuse_unless_equal(digests, HOSTS, 8)
    assert caught.value.code == 76 and caught.value.what.startswith(f"{said} not to be trusted")


@pytest.mark.parametrize("shape", [(), (1,), (7,), (100, 3), (8, 3, 5, 5)])
def test_a_ledger_of_a_tensor_notices_any_bits_of_one_and_of_two_numbers(shape):
    tensor = torch.randn(shape)
    tensor = tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
    before = silent.ledger(silent.bits(tensor))
    numbers = silent.bits(tensor)
    assert len(numbers) == tensor.numel() and numbers.data_ptr() == tensor.data_ptr(), "no copy"
    for places in [(0,), (0, len(numbers) // 2 or 0), (0, len(numbers) - 1)]:
        for count in (1, 5):
            flipped = numbers.clone()
            for sign, place in enumerate(dict.fromkeys(places)):  # one up, one down: their sum stays
                flipped[place] += (1 - 2 * sign) * ((1 << count) - 1)
            assert not torch.equal(before, silent.ledger(flipped))


# several ranks --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_rank_whose_weights_are_not_those_of_the_others_is_named_and_nothing_saved(
    start, relaunch_env, monkeypatch
):
    monkeypatch.setenv("RELAUNCH_FAULT", "weight=6,rank=1,do=flip:1")
    ended = start(*NET, "--batch-size", 12, "--run", "./run", processes=3, accelerate="accelerate").end()
    said = [line for line in ended.err.splitlines() if line.startswith("relaunch: 76 ")]
    assert len(said) == 1 and said[0].startswith("relaunch: 76 rank 1 (on "), ended.err
    assert status(relaunch_env / "run")["code"] == 76 and steps(relaunch_env / "run") == [4]


@pytest.mark.slow
def test_a_rank_that_computes_a_step_in_two_ways_is_named(start, relaunch_env, monkeypatch):
    two = dict(processes=2, accelerate="accelerate")
    assert start(*NET, "--run", "./plain", **two).end().code == 0
    assert start(*NET, "--check-every", "3", "--run", "./checked", **two).end().code == 0
    plain, checked = (outcome(relaunch_env / name) for name in ("plain", "checked"))
    assert (plain["model"], plain["metrics"]) == (checked["model"], checked["metrics"])
    monkeypatch.setenv("RELAUNCH_FAULT", f"gradient=6,rank=1,do=flip:3,once={relaunch_env}/flipped")
    ended = start(*NET, "--check-every", "3", "--run", "./run", **two).end()
    said = [line for line in ended.err.splitlines() if line.startswith("relaunch: 76 ")]
    assert len(said) == 1 and "76 rank 1 (on " in said[0] and "step 6 computed twice" in said[0], ended.err
    assert steps(relaunch_env / "run") == [4]
