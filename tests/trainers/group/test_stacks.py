"""The stacks of a process that hangs, asked for by another, and a process alone whose reader is stuck."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relaunch.trainers.group import stacks
from relaunch.trainers.group.missing import Group, Place
from relaunch.trainers.rundir import RunDir
from rigs.own import write
from rigs.ranks import ours
from rigs.runs import status

# Native code that keeps Python's lock: no other thread of the process runs.
BUSY = """
import ctypes, os, signal
from relaunch.trainers.group import stacks
stacks.listen()
print(stacks.myself().answers, flush=True)
while True: ctypes.PyDLL(None).sleep(100)  # which a signal ends
"""


@pytest.fixture(autouse=True)
def no_run(monkeypatch):
    monkeypatch.setattr(stacks, "_run", None)  # that of a training which failed in this process


@pytest.fixture
def busy():
    child = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    yield stacks.Someone("n0", child.pid, int(child.stdout.readline()))
    child.kill()
    child.communicate()


def test_native_code_that_keeps_pythons_lock_is_found(busy):
    for _ in range(100):  # it may have said that it is there, and not be in that line yet
        stacks.ask(busy)
        time.sleep(0.01)
        if found := b'File "<string>", line 6 in <module>' in stacks.answer(busy):
            break
    assert found and stacks.state(busy) == "busy in native code"


def test_of_who_is_stopped_the_kernel_tells(busy):
    os.kill(busy.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, busy.pid, os.WSTOPPED | os.WNOWAIT)
    stacks.ask(busy)
    assert stacks.state(busy) == "stopped" and stacks.answer(busy).startswith(b"State: T (stopped)\n")


def test_who_does_not_listen_is_not_asked():
    """The signal would end it: a process that has the number of one that died."""
    child = subprocess.Popen(["sleep", "100"])
    stacks.ask(stacks.Someone("n0", child.pid, 3))
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.2)
    child.kill()
    child.wait()
    assert stacks.state(stacks.Someone("n0", child.pid, 3)) == "gone"


def test_lines_of_libraries_and_of_waiting_say_nothing():
    assert stacks.told(__file__) and stacks.told(sys.modules[RunDir.__module__].__file__)
    for module in (stacks, pytest, subprocess):
        assert not stacks.told(module.__file__)
    assert not stacks.told("<string>")


def test_a_disk_that_takes_no_stacks_ends_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stacks, "_run", RunDir(tmp_path))
    (tmp_path / "logs").write_text("no folder")
    stacks.write(1, "rank 1 of 2", "waits").join(10)
    assert "relaunch: no stacks in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "missing, places, says",
    [
        ({1}, {}, "rank 1 (on n1) is missing: the others waited 9 s in vain"),
        (
            {1},
            {0: Place("gather", "f, a.py:1"), 1: Place("", "stopped")},
            "rank 1 (on n1) is missing: the others waited 9 s in vain in gather (f, a.py:1), "
            "while rank 1 is stopped",
        ),
        (
            {0, 1},
            {0: Place("", "in f, a.py:1"), 1: Place("", "in f, a.py:2")},
            "ranks 0, 1 (on n0, n1) are without a batch: waited 9 s in vain for the data, in f, a.py:1",
        ),
        (
            set(),
            {r: Place("gather", "f, a.py:1") for r in (0, 1)},
            "all 2 ranks live, and wait for each other in gather (f, a.py:1)",
        ),
        (set(), {}, "all 2 ranks live, and wait for each other"),
    ],
)
def test_what_is_said_of_a_hang(missing, places, says):
    group = Group(0, 2, range(1), 9, ["n0", "n1"])
    assert group.hung(missing, {0, 1}, places).what == says


def test_who_comes_when_the_others_have_left_is_the_one_they_waited_for():
    import torch.distributed as dist

    from relaunch.trainers.group.peers import CLOSED, TIMED_OUT, Peers

    store = dist.HashStore()
    for key, value in {"here/1": "", "failed/1": TIMED_OUT, "at/1": '["gather", "f, a.py:1"]'}.items():
        store.set(key, value)
    late = Peers(0, 2, seconds=2)
    late._failed = CLOSED
    assert late._conclude(store).what.startswith(
        "rank 0 is missing: the others waited 1 s in vain in gather (f, a.py:1), while rank 0 is in test_who_"
    )


@pytest.mark.slow
def test_a_process_alone_whose_reader_is_stuck_is_ended(relaunch_env):
    sleep = "time.sleep(1000)  # once it has saved"
    stuck = f"        if training and os.path.exists('run/checkpoints'):\n            {sleep}\n"
    flowers = write(
        relaunch_env / "work",
        ("import os\n", "import os\nimport time\n"),
        ("        if training:\n", stuck + "        if training:\n"),
    )
    train = [sys.executable, "-m", "launch", "train", str(flowers), "--config", "cpu", "--run", "./run"]
    done = subprocess.run(
        [*train, "--timeout", "20", "--save-every", "2"], capture_output=True, text=True, timeout=100
    )
    line = flowers.read_text().splitlines().index(f"            {sleep}") + 1
    assert done.returncode == 76 and len(ours(done.stderr)) == 1, done.stderr
    assert ours(done.stderr)[0].startswith("relaunch: 76 rank 0 (on ")
    assert (
        f" in vain for the data, in prepare, flowers.py:{line} (stacks: run/logs/stacks-rank-*.txt)"
        in done.stderr
    )
    assert f'flowers.py", line {line} in prepare' in Path("run/logs/stacks-rank-0.txt").read_text()
    assert status(relaunch_env / "run")["code"] == 76
