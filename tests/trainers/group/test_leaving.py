"""A rank ends alone, for real, while the others wait for it, also for their device: nobody stays, and why."""

import os
import re
import subprocess
import sys
import time

import pytest

from relaunch.launch import accelerate_config

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

LAUNCHER = """
import os, sys
from relaunch.launch import supervise
from relaunch.data_prep.errors import Failure
with supervise.Asked() as asked:
    end = supervise.run(sys.argv[1:], dict(os.environ), False, asked)
if end.what: print(Failure(end.code, end.what, end.fix).line(), file=sys.stderr)
sys.exit(end.code)
"""


@pytest.fixture
def group(relaunch_env):
    """group("raise", "device"): two ranks, rank 1 in trouble at step 3; (code, lines, all, seconds)."""
    script, trouble = relaunch_env / "worker.py", relaunch_env / "trouble"
    script.write_text(WORKER)
    config = accelerate_config.FOLDER / "cpu2.yaml"
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    accelerate += ["--main_process_port", "0", str(script)]

    def run(do: str, *words: str, timeout: int = 60, supervised: bool = True):
        command = [*accelerate, str(timeout), *words]
        fault = f"step={9 if 'fails' in words else 3},rank=1,do={do},once={trouble}"
        done = subprocess.run(
            [sys.executable, "-c", LAUNCHER, *command] if supervised else command,
            capture_output=True,
            text=True,
            env=os.environ | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "40", "RELAUNCH_FAULT": fault},
            timeout=60,
        )
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert str(script) not in listed, "a process was left behind"
        ours = [line for line in done.stderr.splitlines() if re.match("relaunch: (?!FAULT)", line)]
        since = trouble.stat().st_mtime if trouble.exists() else time.time()
        return done.returncode, ours, done.stderr, time.time() - since

    return run


def test_an_exception_of_one_rank_ends_all_within_seconds(group):
    """Its own end waits for nobody, and the others' for no timeout: their device tells them nothing."""
    code, ours, errors, seconds = group("raise", "device")
    assert code == 1 and len(ours) == 1 and errors.count("Traceback") == 1, errors
    assert "rank 1 (on " in ours[0] and " is gone: crashed with the lines above" in ours[0]
    assert "(RuntimeError: RELAUNCH_FAULT at step 3)" in ours[0]
    assert seconds < 15


@pytest.mark.slow
@pytest.mark.parametrize("supervised", [True, False])
def test_a_failure_of_one_rank_is_said_once_whichever_rank_it_is(group, supervised):
    code, ours, errors, _ = group("kill", "fails", "device", supervised=supervised)
    assert code == (65 if supervised else 1) and len(ours) == 1, errors
    assert ours[0].endswith("a file is gone; bring it back")


@pytest.mark.slow
@pytest.mark.parametrize("do, words", [("kill", "device"), ("sleep:1000", "met")])
def test_who_is_missing_is_named_while_the_others_wait_for_their_device(group, do, words):
    """Killed when all had come, or come too late: there NCCL would end in an abort."""
    code, ours, errors, _ = group(do, words, timeout=8)
    assert code == 76 and len(ours) == 1, errors
    assert ours[0].startswith("relaunch: 76 rank 1 (on ") and " is missing: the others waited 4 s" in ours[0]
