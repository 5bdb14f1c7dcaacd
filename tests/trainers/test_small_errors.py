"""An error at each call of a metrics line, the time record and the status: it costs no row, no training."""

import json
import os
import subprocess
import sys

import pytest

from rigs import REPOSITORY

PROGRAM = """
import json, os, sys
from pathlib import Path

import torch.utils.tensorboard  # noqa: F401  once, and not in each child

from relaunch.trainers import records
from relaunch.trainers.metrics import Metrics
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.spent import Spent
from rigs import errnos

how, streams = sys.argv[1:]
write, close = os.write, os.close
ROWS = [{"step": n, "samples": n, "epoch": 0.5, "split": "train", "loss": 1 / n} for n in range(1, 5)]


def child(run, trouble, ear):
    # what a training writes between two checkpoints; with an error at one call, or from it on
    metrics, spent = Metrics(run, 0), Spent(run)
    spent.write(0, 0, saved=True)
    if streams == "full":
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1), os.dup2(full, 2)
    os.environ["ERRNO"] = trouble
    errnos.arm("worker")
    for row in ROWS:
        metrics.log(row)
        spent.write(row["step"], row["samples"])
        run.write_status("running", step=row["step"])
        if row["step"] == 2:
            try:
                metrics.sealed()
                metrics.to_disk()
            except OSError:
                pass  # it costs this checkpoint
    metrics.close()
    write(ear, b"ended")


def one(at, errno) -> list[str]:
    run = RunDir(Path(f"run-{at}"))
    run.path.mkdir()
    Path("struck").unlink(missing_ok=True)
    ear, mouth = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(run, f"worker {at} {errno} {how}", mouth)
        finally:
            os._exit(0)
    close(mouth)
    said = os.read(ear, 99)
    os.waitpid(pid, 0)
    close(ear)
    wrong = [] if said == b"ended" else ["it did not come to its end"]
    found = records.metrics(run)
    if found != (ROWS if how == "once" else ROWS[: len(found)]):
        wrong.append(f"rows of steps {[row['step'] for row in found]}")
    if not records.times(run):
        wrong.append("the time record is gone")
    status = run.status.read_text() if run.status.exists() else "{}"
    if not isinstance(json.loads(status), dict):
        wrong.append(f"status {status}")
    return [f"{at} {errno} {how}: {each}" for each in wrong]


found, at, errors = [], 0, ("ENOSPC", "EIO", "EROFS", "ESTALE")
while at == 0 or Path("struck").exists():
    found += one(at, errors[at % len(errors)])
    at += 1
print(json.dumps({"calls": at - 1, "wrong": found}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how, streams", [("once", "open"), ("once", "full"), ("ever", "full")])
def test_at_each_call_of_what_a_training_writes_beside_its_checkpoints(tmp_path, how, streams):
    """`once`: every row is there; `ever`: those written before are. Never an end of the training."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, streams],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{REPOSITORY / 'tests'}"},
        timeout=300,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["wrong"] and found["calls"] > 60, found
