"""The fault hook: what it understands, where it strikes, and that it is never on in silence."""

import os
import signal
import subprocess
import sys
import time

import pytest

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.group import faults
from rigs.runs import outcome, steps

NET = ["cifar10", "--arch", "net", "--batch-size", 8, "--max-steps", 12, "--save-every", 4, "--run", "./run"]


@pytest.mark.parametrize(
    "text",
    [
        "10",
        "step=10",
        "step=x,do=kill",
        "stop=10,do=kill",
        "step=10,do=die",
        "step=1,do=sleep",
        "step=1,do=nan",
        "do=kill,step=1",
    ],
)
def test_what_is_not_understood_is_refused(text, fault):
    with pytest.raises(Failure) as refused:
        fault(text)
    assert refused.value.code == USAGE and repr(text) in refused.value.what
    assert refused.value.fix.startswith("write PLACE[=N],[rank=R,]do=ACTION[,once=FILE]")


def test_a_process_refuses_it_in_one_line(launch, relaunch_env, monkeypatch):
    monkeypatch.setenv("RELAUNCH_FAULT", "step=10,do=explode")
    done = launch(*NET)
    assert done.code == USAGE and done.err.count("\n") == 1
    assert done.err.startswith("relaunch: 64 RELAUNCH_FAULT: 'step=10,do=explode' is not understood; write ")
    assert not (relaunch_env / "run").exists()


def test_it_strikes_there_and_nowhere_else(fault, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    fault("step=3,rank=1,do=raise;step=4,rank=2,do=raise")
    assert capsys.readouterr().err == "relaunch: FAULT armed: step=3,rank=1,do=raise\n"
    for place, at in (("step", 2), ("save", 3), ("step", 4), ("start", 0)):
        faults.fault(place, at)
    with pytest.raises(RuntimeError, match="RELAUNCH_FAULT at step 3"):
        faults.fault("step", 3)


def test_each_time_or_once(fault, tmp_path):
    fault(f"save,do=raise,once={tmp_path / 'done'};step=*,do=sleep:0.02")
    began = time.monotonic()
    for at in range(5):
        faults.fault("step", at)
    assert time.monotonic() - began > 0.1
    with pytest.raises(RuntimeError):
        faults.fault("save", 7)
    faults.fault("save", 7)


def test_off_it_costs_nothing(fault):
    fault("")
    began = time.process_time()
    for at in range(100_000):
        faults.fault("step", at)
    assert time.process_time() - began < 0.5  # 5 us each; it is 0.1


@pytest.mark.parametrize("do", ["kill", "term", "stop"])
def test_signals_are_real(do, relaunch_env):
    program = f"from relaunch.trainers.group import faults as f; f.arm('start,do={do}'); f.fault('start')"
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if do == "stop":
        assert os.WIFSTOPPED(status)
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
    else:
        assert os.WTERMSIG(status) == signal.Signals[f"SIG{do.upper()}"]
    child.returncode = 0  # it was waited for here


def test_a_kill_at_the_start(start, relaunch_env, monkeypatch):
    monkeypatch.setenv("RELAUNCH_FAULT", "start,do=kill")
    assert start(*NET).end().code == -signal.SIGKILL and not (relaunch_env / "run").exists()


def test_a_kill_before_a_commit_leaves_the_checkpoint_before(start, train, relaunch_env, monkeypatch):
    """A real process, killed with all files of a checkpoint written and none committed."""
    monkeypatch.setenv("RELAUNCH_FAULT", "save=8,do=kill")
    dead = start(*NET).end()
    assert dead.code == -signal.SIGKILL and dead.err == "relaunch: FAULT armed: save=8,do=kill\n"
    assert steps(relaunch_env / "run") == [4]
    assert train(*NET, "--resume", "auto") == 0
    assert train(*NET[:-1], "./whole") == 0
    assert outcome(relaunch_env / "run") == outcome(relaunch_env / "whole")
