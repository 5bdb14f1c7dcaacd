"""Stopping: every signal, the STOP file, a dead parent, a locked run; what they leave, and the code."""

import fcntl
import os
import signal
import subprocess

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch import supervise
from relaunch.trainers.group import process
from relaunch.trainers.rundir import RunDir
from rigs.runs import outcome, status, steps, tree

NET = ["cifar10", "--arch", "net", "--batch-size", 8, "--max-steps", 30, "--run", "./run"]


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGTERM],
        [signal.SIGINT],
        [signal.SIGUSR1],
        [signal.SIGUSR2],
        [signal.SIGHUP],
        [signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1],
    ],
    ids=str,
)
def test_signals_save_and_leave_with_75(train, relaunch_env, fault, capsys, numbers):
    fault(";".join(f"step=7,do={n.name.removeprefix('SIG').lower()}" for n in numbers))
    assert train(*NET) == 75
    run = status(relaunch_env / "run")
    assert (run["state"], run["code"], run["step"]) == ("preempted", 75, 7)
    assert (
        run["reason"] == f"stopped by {numbers[0].name}, and saved"
        and run["reason"] in capsys.readouterr().out
    )
    assert steps(relaunch_env / "run") == [7]


def test_what_nohup_started_outlives_its_terminal(signals):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process.listen()
    with supervise.Asked() as asked:
        os.kill(os.getpid(), signal.SIGHUP)
    assert asked.first is None and process.asked_to_stop() is None


def test_only_a_second_ctrl_c_after_two_seconds_insists(signals, monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    clock = 1000.0
    monkeypatch.setattr(process.time, "monotonic", lambda: clock)
    os.kill(os.getpid(), signal.SIGINT)
    clock = 1001.9  # a launcher that repeats
    os.kill(os.getpid(), signal.SIGINT)
    clock = 1005.0
    os.kill(os.getpid(), signal.SIGTERM)
    assert left == [] and process.asked_to_stop() == signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
    assert left == [130]


# a run that somebody else holds: its owner waits, so signals find it before its first step ----------------


@pytest.fixture
def held(relaunch_env):
    """A run's folder whose lock is held; `close` lets go of it."""
    (relaunch_env / "run").mkdir()
    with open(relaunch_env / "run/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def test_a_second_ctrl_c_leaves_at_once(held, start):
    training = start(*NET).listening().signal(signal.SIGINT)
    training.until("relaunch: SIGINT: stopping after this step; Ctrl-C again after 2 s to leave now")
    with pytest.raises(subprocess.TimeoutExpired):  # once: it still means to save
        training.popen.wait(2.1)
    assert training.signal(signal.SIGINT).end(timeout=10).code == 130


def test_a_signal_before_the_first_step(held, start, relaunch_env):
    training = start(*NET).listening().signal(signal.SIGUSR1)
    held.close()
    assert training.end().code == 75
    assert "stopped by SIGUSR1, before the first step: nothing to save" in training.out
    assert status(relaunch_env / "run")["code"] == 75 and steps(relaunch_env / "run") == []
    assert training.err == ""


def test_another_process_owns_the_run(held, train, relaunch_env, monkeypatch, capsys):
    monkeypatch.setattr(RunDir.lock, "__defaults__", (0.3, True))  # of its 30 s
    before = tree(relaunch_env)
    assert train(*NET) == 77
    whose = "a process that has just begun, or is ending"
    assert capsys.readouterr().err.splitlines() == [
        f"relaunch: run is taken by {whose}; waiting 0 s for it",
        f"relaunch: 77 another process is training run: {whose}; wait for it, or choose another --run",
    ]
    assert tree(relaunch_env) == before
    held.close()
    assert train(*NET, "--max-steps", 1) == 0


def test_a_taken_run_says_whose_it_is(held, relaunch_env, monkeypatch, capsys):
    run = RunDir(relaunch_env / "run")
    run.plan.write_text('{"host": "node7"}')
    run.write_status("running", step=1200)
    with pytest.raises(Failure) as failure:
        run.lock(wait=0.1)
    whose = f"process {os.getpid()} on node7, at step 1,200, as of 20"
    assert whose in capsys.readouterr().err and whose in failure.value.what


def test_two_that_begin_one_run_at_once(train, relaunch_env, monkeypatch, capsys):
    """The second comes to the lock when the first has trained and gone."""
    lock = RunDir.lock

    def overtaken(run):
        monkeypatch.setattr(RunDir, "lock", lock)
        assert train(*NET, "--max-steps", 2) == 0
        lock(run)

    monkeypatch.setattr(RunDir, "lock", overtaken)
    assert train(*NET) == 77
    assert "relaunch: 77 another process has just begun run; add --resume auto" in capsys.readouterr().err
    assert steps(relaunch_env / "run") == [2]


# the STOP file --------------------------------------------------------------------------------------------


def ask(training):
    training.run.stop.touch()
    training.polled = 0.0  # it is looked for once a second


def test_the_stop_file(train, relaunch_env, at):
    at(7, ask)
    assert train(*NET) == 78
    assert (status(relaunch_env / "run")["state"], status(relaunch_env / "run")["step"]) == ("stopped", 7)
    assert steps(relaunch_env / "run") == [7] and not (relaunch_env / "run/STOP").exists()
    assert train(*NET, "--resume", "auto") == 0


def test_the_stop_file_and_a_signal(train, relaunch_env, at):
    at(7, lambda training: (ask(training), os.kill(os.getpid(), signal.SIGTERM)))
    assert train(*NET) == 78, "a scheduler must not start it again"
    assert not (relaunch_env / "run/STOP").exists()


def test_the_stop_file_before_the_first_step(train, relaunch_env):
    (relaunch_env / "run").mkdir()
    (relaunch_env / "run/STOP").touch()
    assert train(*NET) == 78
    assert not (relaunch_env / "run/STOP").exists() and steps(relaunch_env / "run") == []


def test_the_stop_file_during_an_evaluation(train, relaunch_env, monkeypatch, at):
    from relaunch.trainers.tasks.sample_batches import SampleScorer

    trainings, score = [], SampleScorer.score
    at(12, trainings.append)  # an epoch's end
    monkeypatch.setattr(
        SampleScorer, "score", lambda task, model, k: (ask(trainings[0]), score(task, model, k))[1]
    )
    assert train(*NET, "--eval-batch-size", 5) == 78
    assert status(relaunch_env / "run")["reason"] == "stopped by the STOP file, and saved"
    assert not (relaunch_env / "run/STOP").exists()
    assert outcome(relaunch_env / "run")["state"]["evaluated"] == 0


# a parent that dies ---------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not hasattr(os, "fork") or os.uname().sysname != "Linux",
    reason="the kernel tells of a parent's death on Linux",
)
def test_the_engine_dies_and_its_worker_saves(start, train, relaunch_env):
    """accelerate's one-process launcher never signals its worker: the kernel does."""
    command = ["mnist", "--batch-size", 16, "--max-steps", 40, "--log-interval", 5, "--run", "./run"]
    accelerate = start(*command, accelerate="accelerate").until("step 5/").signal(signal.SIGTERM).end()
    assert "stopped by SIGTERM, and saved" in accelerate.out
    assert status(relaunch_env / "run")["code"] == 75
    assert train(*command, "--resume", "auto") == 0
    assert train(*command[:-1], "./whole") == 0
    assert outcome(relaunch_env / "run") == outcome(relaunch_env / "whole")


def test_a_crash_is_written_down_with_its_step(train, relaunch_env, fault):
    fault("step=3,do=raise")
    with pytest.raises(RuntimeError):
        train("cifar10", "--arch", "net", "--batch-size", 8, "--run", "./crashed")
    said = status(relaunch_env / "crashed")
    assert (said["state"], said["code"], said["step"], said["reason"]) == (
        "failed",
        1,
        3,
        "RuntimeError: RELAUNCH_FAULT at step 3",
    )
