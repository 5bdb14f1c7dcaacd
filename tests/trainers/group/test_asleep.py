"""A job that the scheduler suspends for longer than its ranks wait for each other: nobody was missing."""

import os
import signal
import time

import pytest

from relaunch.trainers.group import peers
from rigs.processes import Process
from rigs.ranks import ranks

# In each step rank 1 waits for rank 0, for their gradients: there it is found when all are suspended.
WORKER = """
import sys, time
from relaunch.trainers.group import process
def run(argv):
    import torch
    from relaunch.trainers.group.runtime import Runtime
    runtime = Runtime(1, timeout=12)
    model = runtime.accelerator.prepare(torch.nn.Linear(4, 4))
    with runtime.peers.watched():
        for step in range(12):
            if runtime.main:
                time.sleep(0.4)
                print(step, flush=True)
            with runtime.peers.waiting():
                model(torch.ones(2, 4)).sum().backward()
            runtime.agree(0)
    runtime.close()
    return 0, None
sys.exit(process.main(run))
"""


@pytest.mark.slow
def test_who_was_suspended_waits_anew(relaunch_env):
    script = relaunch_env / "worker.py"
    script.write_text(WORKER)
    job = Process(ranks(script)).until("\n3\n")
    everyone = [job.popen.pid, *job.children()]
    assert len(everyone) == 3, "accelerate and two ranks"
    for word, seconds in ((signal.SIGSTOP, 8), (signal.SIGCONT, 0)):
        for pid in everyone:
            os.kill(pid, word)
        time.sleep(seconds)
    assert job.end().code == 0 and "\n11\n" in job.out, job.err


def test_the_clock_stands_still_while_nobody_looks(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(peers.time, "monotonic", lambda: now)
    group = peers.Peers(0, 2, seconds=120)  # each waits for 90 s
    with group.waiting():
        for gap in (3600, *[peers.LOOK] * 100, 3600, *[peers.LOOK] * 70):
            now += gap
            assert not group._overdue()
        for _ in range(12):
            now += peers.LOOK
            late = group._overdue()
        assert late
    assert not group._overdue(), "it waits for nobody"


def test_a_process_alone_computes_for_however_long_and_waits_for_a_batch_so_long(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(peers.time, "monotonic", lambda: now)
    alone = peers.Peers(0, 1, seconds=120)
    for what, late in (("work on the device", ""), ("", peers.NO_BATCH)):
        with alone.waiting(what):
            for _ in range(200):
                now += peers.LOOK
                found = alone._overdue()
        assert found == late
