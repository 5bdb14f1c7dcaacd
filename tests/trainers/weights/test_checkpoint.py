"""Checkpoints: whole or not at all, on a machine that is killed at any moment, with bits that flip."""

import json
import os
import shutil

import pytest
import torch

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.checkpoint import FILES, State
from rigs.killed import killed
from rigs.runs import outcome, sha256, steps, tree

NET = ["cifar10", "--arch", "net", "--batch-size", 8, "--max-steps", 20, "--save-every", 4]


def state(step: int, best: int | None = None) -> State:
    generator = torch.Generator().manual_seed(step)
    weights = {
        "a.weight": torch.randn(50, 20, generator=generator),
        "a.bias": torch.randn(7, generator=generator),
        "a.count": torch.tensor(step),
    }
    meta = {
        "step": step,
        "samples": 8 * step,
        "world": 1,
        "config_hash": "c",
        "data_hash": "d",
        "global_batch": 8,
        "best": {"step": best} if best else None,
    }
    return State(weights, {"a.weight/momentum_buffer": torch.randn(50, 20, generator=generator)}, meta)


def equal(a: State, b: State) -> bool:
    return a.meta == b.meta and all(
        x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x)
        for x, y in ((a.model, b.model), (a.optimizer, b.optimizer))
    )


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path)


# commit and load ------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(run):
    path = checkpoint.save(run, state(12), keep=3)
    assert path.name == "step-000000012" and checkpoint.newest_valid(run) == path
    assert equal(checkpoint.load(path), state(12))
    assert sorted(p.name for p in path.iterdir()) == sorted([*FILES, "MANIFEST.json"])
    assert [p.name for p in run.checkpoints.iterdir()] == [path.name]  # nothing half-written beside it


def test_equal_states_are_equal_bytes(run, tmp_path):
    other = RunDir(tmp_path / "other")
    checkpoint.save(run, state(3), keep=1)
    checkpoint.save(other, state(3), keep=1)
    assert tree(run.checkpoint(3)) == tree(other.checkpoint(3))


def test_the_manifest_tells_what_it_is(run):
    manifest = checkpoint.verify(checkpoint.save(run, state(5), keep=1))
    assert {
        k: manifest[k]
        for k in ("schema", "step", "samples", "world", "global_batch", "config_hash", "data_hash")
    } == {
        "schema": 1,
        "step": 5,
        "samples": 40,
        "world": 1,
        "global_batch": 8,
        "config_hash": "c",
        "data_hash": "d",
    }
    assert {n: (f["bytes"], f["sha256"]) for n, f in manifest["files"].items()} == {
        n: ((run.checkpoint(5) / n).stat().st_size, sha256(run.checkpoint(5) / n)) for n in FILES
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_no_number_that_is_not_finite(run, part, value):
    bad = state(4)
    next(iter(getattr(bad, part).values())).view(-1)[3] = value
    with pytest.raises(Failure) as failure:
        checkpoint.save(run, bad, keep=1)
    assert failure.value.code == 70 and not run.checkpoints.exists()


# which are kept -------------------------------------------------------------------------------------------


def test_the_newest_the_best_and_the_one_resumed_from_are_kept(run):
    for step in range(1, 10):
        checkpoint.save(run, state(step, best=2 if step < 8 else 8), keep=2, protect={4})
        kept = steps(run.path)
        assert step in kept and len([s for s in kept if s not in (2, 4)]) <= 2
        assert (2 in kept) == (2 <= step < 8) and (4 in kept) == (step >= 4)
    assert kept == [4, 8, 9]


def test_pruning_counts_no_later_damaged_ones(run):
    """A resume fell back past damaged ones: what is saved then is not the oldest of the newest."""
    for step in (15, 20, 25):
        checkpoint.save(run, state(step), keep=9)
    for step in (20, 25):
        (run.checkpoint(step) / "MANIFEST.json").unlink()
    checkpoint.save(run, state(16), keep=1, protect={15})
    assert steps(run.path) == [15, 16, 20, 25]
    assert checkpoint.newest_valid(run) == run.checkpoint(16)


# damage ---------------------------------------------------------------------------------------------------


def flip(path, byte: int, bit: int = 0):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*FILES, "MANIFEST.json"])
def test_one_flipped_bit(run, name):
    path = checkpoint.save(run, state(10), keep=1, logged={"bytes": 380, "sha256": "ab" * 32})
    content = (path / name).read_bytes()
    missed = []
    for i in range(0, len(content), max(1, len(content) // 150)):
        flip(path / name, i, i % 8)
        try:
            checkpoint.verify(path)
            missed.append(i)
        except Failure as failure:
            assert failure.code == 65
        (path / name).write_bytes(content)
    assert not missed and checkpoint.verify(path)


DAMAGE = {
    "a flipped bit": lambda path: flip(path / "model.safetensors", 3000),
    "truncated": lambda path: os.truncate(path / "optimizer.safetensors", 1000),
    "grown": lambda path: os.truncate(path / "model.safetensors", 100_000),
    "no manifest": lambda path: (path / "MANIFEST.json").unlink(),
    "no weights": lambda path: (path / "model.safetensors").unlink(),
    "an empty manifest": lambda path: (path / "MANIFEST.json").write_text("{}"),
    "a manifest of nothing": lambda path: (path / "MANIFEST.json").write_text(
        json.dumps(json.loads((path / "MANIFEST.json").read_text()) | {"files": {}})
    ),
    "empty": lambda path: [p.unlink() for p in path.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_one_is_passed_over_loudly(run, damage, capsys):
    for step in (5, 10):
        checkpoint.save(run, state(step), keep=2)
    damage(run.checkpoint(10))
    assert checkpoint.newest_valid(run) == run.checkpoint(5)
    error = capsys.readouterr().err
    assert (
        error.startswith("relaunch: ")
        and "step-000000010" in error
        and "falling back" in error
        and error.count("\n") == 1
    )


def test_none_is_valid(run):
    for step in (5, 10):
        checkpoint.save(run, state(step), keep=2)
        flip(run.checkpoint(step) / "state.json", 30)
    before = tree(run.path)
    with pytest.raises(Failure) as failure:
        checkpoint.newest_valid(run)
    assert failure.value.code == 65 and "none of the 2 checkpoints" in failure.value.line()
    assert tree(run.path) == before


def test_names_lead_to_checkpoints(run, capsys):
    with pytest.raises(Failure, match="has no checkpoint yet"):
        checkpoint.select(run, None)
    for step in (5, 10):
        checkpoint.save(run, state(step, best=5), keep=2)
    assert [checkpoint.step_of(checkpoint.select(run, s)) for s in (None, "best", "5", "10")] == [
        10,
        5,
        5,
        10,
    ]
    with pytest.raises(Failure, match="no checkpoint of step 7"):
        checkpoint.select(run, "7")
    flip(run.checkpoint(5) / "model.safetensors", 900)
    with pytest.raises(Failure, match="is damaged"):  # it was asked for by name
        checkpoint.select(run, "best")


# kill -9 --------------------------------------------------------------------------------------------------

MOMENTS = [
    (os, "fsync"),
    (os, "rename"),
    (files, "exchange"),
    (files, "remove"),
    (files, "write_synced"),
]  # before each, the disk holds something else


def never(one, other):
    """A disk that cannot swap two names."""
    return False


@pytest.mark.parametrize(
    "step, swap",
    [(20, files.exchange), (10, files.exchange), (10, never)],
    ids=["the next step", "the same step, evaluated", "the same, on a disk that cannot swap"],
)
def test_killed_at_any_moment_of_a_save(run, step, swap, monkeypatch):
    """There is always a valid one, by its name and for readers: the old or the new; and no half of one."""
    monkeypatch.setattr(files, "exchange", swap)
    old, new = state(10), state(step, best=10)
    moment, seen, alive = 0, [], True
    while alive:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        checkpoint.save(run, old, keep=1)
        alive = killed(moment, MOMENTS, lambda: checkpoint.save(run, new, keep=1))
        if swap is not never:
            assert all(checkpoint.verify(path) for path in checkpoint.checkpoints(run)), moment
            checkpoint.newest_valid(run)
        checkpoint.recover(run)
        found = checkpoint.load(checkpoint.newest_valid(run))
        assert equal(found, new) or (alive and equal(found, old)), moment
        checkpoint.sweep(run)
        assert not [p for p in run.checkpoints.iterdir() if p.name.startswith(".")], moment
        seen.append(equal(found, new))
        moment += 1
    assert moment > 10 and seen == sorted(seen)  # old, …, old, new, …, new


def test_a_training_killed_while_it_saves_ends_the_same(train, relaunch_env):
    assert train(*NET, "--run", "./whole") == 0
    moments = 15  # beyond the files of the run's start
    while killed(moments, MOMENTS, lambda: train(*NET, "--run", "./run")):
        assert train(*NET, "--run", "./run", "--resume", "auto") == 0
        assert outcome(relaunch_env / "run") == outcome(relaunch_env / "whole"), moments
        shutil.rmtree(relaunch_env / "run")
        moments += 23
    assert moments > 80  # five saves
