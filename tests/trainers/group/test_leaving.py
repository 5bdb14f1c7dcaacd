"""A rank ends alone, for real, while the others wait for it, also for their device: nobody stays, and why."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rigs import REPOSITORY
from rigs.processes import Process
from rigs.ranks import living, ours, ranks

# Ranks that meet in each step. In step 3 one of them ends, and those left may wait for a device that waits
# for it: nothing comes back. To end in order is to wait, as with NCCL.
WORKER = """
import sys, time
from relaunch.data_prep.errors import Failure
from relaunch.trainers.group import faults, process
def run(argv):
    import torch.distributed as dist
    from relaunch.trainers.group.runtime import Runtime
    dist.destroy_process_group = lambda: time.sleep(1000)
    runtime = Runtime(1, timeout=int(argv[0]))
    with runtime.watched():
        for step in range(5):
            if step == 3 and "fails" in argv and runtime.rank == 1:
                raise Failure(65, "a file is gone", "bring it back")
            if step == 3 and "fail" in argv:  # all do; rank 0 hears of it before it says so
                time.sleep(1.5 * (runtime.rank == 0))
                raise Failure(65, "a file is gone", "bring it back")
            faults.fault("step", step)
            if step == 3 and "device" in argv:
                with runtime.peers.waiting():
                    time.sleep(1000)
            if step == 3 and "met" in argv:
                with runtime.met():
                    time.sleep(1000)
            runtime.agree(0)
    return 0, None
sys.exit(process.main(run))
"""


@pytest.fixture
def group(relaunch_env):
    """group("raise", "device"): two ranks, rank 1 in trouble at step 3; (code, lines, all, seconds)."""
    script, trouble = relaunch_env / "worker.py", relaunch_env / "trouble"
    script.write_text(WORKER)

    def run(do: str, *words: str, timeout: int = 60, supervised: bool = True):
        fault = f"step={9 if words[0].startswith('fail') else 3},rank=1,do={do},once={trouble}"
        done = subprocess.run(
            ranks(script, str(timeout), *words, supervised=supervised),
            capture_output=True,
            text=True,
            env=os.environ | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "40", "RELAUNCH_FAULT": fault},
            timeout=60,
        )
        assert not living(str(script)), "a process was left behind"
        since = trouble.stat().st_mtime if trouble.exists() else time.time()
        return done.returncode, ours(done.stderr), done.stderr, time.time() - since

    return run


def test_an_exception_of_one_rank_ends_all_within_seconds(group):
    """Its own end waits for nobody, and the others' for no timeout: their device tells them nothing."""
    code, lines, errors, seconds = group("raise", "device")
    assert code == 1 and len(lines) == 1 and errors.count("Traceback") == 1, errors
    assert "rank 1 (on " in lines[0] and " is gone: crashed with the lines above" in lines[0]
    assert "(RuntimeError: RELAUNCH_FAULT at step 3)" in lines[0]
    assert seconds < 15


@pytest.mark.slow
@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize("words", [("fails", "device"), ("fail",)])
def test_a_failure_is_said_once_whichever_rank_it_is_of(group, words, supervised):
    code, lines, errors, _ = group("kill", *words, supervised=supervised)
    assert code == (65 if supervised else 1) and len(lines) == 1, errors
    assert lines[0].endswith("a file is gone; bring it back")


@pytest.mark.slow
@pytest.mark.parametrize("do, words", [("kill", "device"), ("sleep:1000", "met")])
def test_who_is_missing_is_named_while_the_others_wait_for_their_device(group, do, words):
    """Killed when all had come, or come too late: there NCCL would end in an abort."""
    code, lines, errors, _ = group(do, words, timeout=8)
    assert code == 76 and len(lines) == 1, errors
    assert (
        lines[0].startswith("relaunch: 76 rank 1 (on ") and " is missing: the others waited 4 s" in lines[0]
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_accelerate_that_dies_before_the_ranks_have_met_ends_them(relaunch_env, monkeypatch):
    """They would wait for its store, where they meet, until their time is up."""
    monkeypatch.setenv("RELAUNCH_FAULT", "start,do=sleep:3")
    words = "train mnist --config cpu2 --max-steps 3 --max-restarts 0 --run ./run".split()
    training = Process([sys.executable, str(REPOSITORY / "launch/__main__.py"), *words])
    training.until("FAULT armed: start,do=sleep:3\nrelaunch: FAULT armed")  # of both
    os.kill(training.children()[0], signal.SIGKILL)
    began = time.monotonic()
    training.end()
    assert training.code == 1 and time.monotonic() - began < 40
    assert ours(training.err)[-1].startswith("relaunch: 1 accelerate was gone before its processes had met")
