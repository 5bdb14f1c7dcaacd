"""Saves beside the training: bytes are the step's, one is in flight, and nothing that it meets is lost."""

import os
import shutil
import time

import pytest
from test_checkpoint import MOMENTS

from relaunch.data_prep import files
from relaunch.trainers.group import faults
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs.disks import Limit
from rigs.killed import killed
from rigs.runs import outcome, sha256, status, steps

NET = "cifar10 --arch net_bn --batch-size 8 --max-steps 12 --save-every 4 --log-interval 1 --keep 9".split()


@pytest.fixture
def slow(monkeypatch):
    """Commits that begin only when the training is three steps further, or waits for them; what happened."""
    commit, happened = checkpoint.commit, []

    def late(run, parts, meta, *rest):
        happened.append(("begun", meta["step"]))
        time.sleep(0.3)
        commit(run, parts, meta, *rest)
        happened.append(("ended", meta["step"]))

    monkeypatch.setattr(checkpoint, "commit", late)
    return happened


def weights(run) -> dict:
    names = ("model.safetensors", "optimizer.safetensors", "state.json")
    return {(p.name, name): sha256(p / name) for p in checkpoint.checkpoints(RunDir(run)) for name in names}


def test_the_files_are_the_steps_whatever_the_training_does_meanwhile(train, relaunch_env, at, slow):
    came = []
    at(6, lambda training: came.append(training.saver.write))
    assert train(*NET, "--run", "./slow") == 0
    assert came[0].step == 4 and steps(relaunch_env / "slow") == [4, 8, 12]
    order = [(what, step) for step in (4, 8, 12) for what in ("begun", "ended")]
    assert slow == order, "one in flight, and the last one is waited for"
    for step in range(1, 12):
        at(step, lambda training: training.saver.settle())
    assert train(*NET, "--run", "./settled") == 0
    assert weights(relaunch_env / "slow") == weights(relaunch_env / "settled")


def test_what_was_logged_outlives_a_power_cut_before_the_checkpoint_that_tells_of_it(train, monkeypatch):
    synced, through = [], files.through

    def told(descriptor):
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        through(descriptor)

    monkeypatch.setattr(files, "through", told)
    assert train(*NET, "--run", "./run") == 0
    order = [name for name in synced if name in ("metrics.jsonl", "MANIFEST.json")]
    assert order == ["metrics.jsonl", "MANIFEST.json"] * 3


def test_a_stop_and_a_crash_wait_for_the_one_in_flight(train, relaunch_env, fault, slow):
    assert train(*NET, "--run", "./stopped", "--stop-after", 5) == 75
    assert steps(relaunch_env / "stopped") == [4, 5]
    fault("step=6,do=raise")
    with pytest.raises(RuntimeError):
        train(*NET, "--run", "./crashed")
    said = status(relaunch_env / "crashed")
    assert steps(relaunch_env / "crashed") == [4] and (said["state"], said["saved"]) == ("failed", 4)


def test_what_it_meets_ends_the_training_at_the_next_step(train, relaunch_env, at, capsys, slow):
    """Weights that are not finite, found while the training goes on: the loss is logged at step 50."""

    def poison(training):
        next(training.module.parameters()).data.view(-1)[3] = float("nan")
        at(5, lambda training: time.sleep(0.6))

    at(4, poison)
    assert train(*NET, "--log-interval", 50, "--run", "./run") == 70
    error = capsys.readouterr().err
    assert error.startswith("relaunch: 70 ") and "is not finite after step 4: not saved" in error
    said = status(relaunch_env / "run")
    assert (said["state"], said["code"], said["step"], said["saved"]) == ("failed", 70, 5, 0)
    assert steps(relaunch_env / "run") == []


def test_an_error_of_the_one_in_flight_is_told_when_another_ends_the_training(train, fault, capsys, at):
    at(5, lambda training: training.saver.write.thread.join())
    fault("save=4,do=raise;step=5,do=raise")
    with pytest.raises(RuntimeError, match="at step 5"):
        train(*NET, "--run", "./run")
    assert "relaunch: ALARM: no checkpoint of step 4 (RELAUNCH_FAULT at save 4)" in capsys.readouterr().err


def test_killed_while_the_first_one_is_in_flight(train, relaunch_env):
    """What is logged reaches beyond the step of a checkpoint that never was: no sign of one that is lost."""

    def child():
        faults.arm("save=4,do=sleep:9;step=8,do=kill")
        train(*NET, "--run", "./run")

    assert killed(10**6, (), child)
    assert steps(relaunch_env / "run") == []
    assert train(*NET, "--run", "./run", "--resume", "auto") == 0
    assert train(*NET, "--run", "./whole") == 0
    assert outcome(relaunch_env / "run") == outcome(relaunch_env / "whole")


@pytest.mark.slow
def test_killed_at_any_moment_of_saves_beside_training(train, relaunch_env, at):
    """Forks of one training at step 4 go on to two more saves; every tenth of the killed is resumed."""
    calls = [*MOMENTS, (os, "replace"), (os, "unlink")]  # of the records, too, and of what is pruned
    command = [*NET, "--keep", 1, "--log-interval", 50, "--run"]  # the forks begin where a line is due
    assert train(*command, "./whole") == 0
    run, moments = RunDir(relaunch_env / "run"), []

    def go_on(training):
        while not training.ends:
            training.iterate()

    def storm(training):
        training.save()
        training.saver.settle()
        shutil.copytree(run.path, calm := relaunch_env / "calm")
        alive = True
        while alive:
            alive = killed(len(moments), calls, lambda: go_on(training))
            assert all(checkpoint.verify(path) for path in checkpoint.checkpoints(run)), len(moments)
            moments.append(checkpoint.step_of(checkpoint.newest_valid(run)))
            run.path.rename(gone := relaunch_env / f"killed-{len(moments)}")
            shutil.copytree(calm, run.path)
            if len(moments) % 10:
                shutil.rmtree(gone)

    at(4, storm)
    assert train(*command, "./run") == 0
    assert len(moments) > 60 and set(moments) == {4, 8, 12} and moments == sorted(moments)
    for path in relaunch_env.glob("killed-*"):
        assert train(*command, f"./{path.name}", "--resume", "auto") == 0
        assert outcome(path) == outcome(relaunch_env / "whole")


@pytest.mark.slow
def test_two_ranks_hear_of_a_full_disk(launch, relaunch_env):
    """Rank 0's thread meets it; the alarm is said once, both go on together, and the last one is 73."""
    limit = Limit(relaunch_env)
    limit.fill()
    try:
        done = launch(*NET, "--run", "./run", processes=2, accelerate="accelerate")
    finally:
        limit.end()
    assert [done.err.count(f"ALARM: no checkpoint of step {step} ") for step in (4, 8)] == [1, 1], done.err
    assert done.err.count("relaunch: 73 the last checkpoint could not be written") == 1
    assert status(relaunch_env / "run")["code"] == 73 and steps(relaunch_env / "run") == []
    again = launch(*NET, "--run", "./run", "--resume", "auto", processes=2, accelerate="accelerate")
    assert again.code == 0 and steps(relaunch_env / "run") == [4, 8, 12], again.err
