"""Every way to stop a real training, at every moment: code, checkpoint, nobody left, the same weights.

pytest tests/launch/test_matrix.py -m slow
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from relaunch.launch import processes
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STEPS = 30
JOB = [
    "train",
    "mnist",
    "--data",
    "digits",
    "--max-steps",
    str(STEPS),
    "--threads",
    "1",
    "--log-interval",
    "1",
    "--save-every",
    "5",
    "--eval-batch-size",
    "1",
]  # an evaluation of a second or so, to be met in its middle


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("matrix")


def begin(here, run: str, world: int) -> subprocess.Popen:
    with open(here / f"{run}.log", "a") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "launch",
                *JOB,
                "--config",
                "cpu" if world == 1 else "cpu2",
                "--run",
                run,
                "--resume",
                "auto",
            ],
            cwd=here,
            stdout=log,
            stderr=log,
        )


def weights(run: RunDir) -> list[str]:
    newest = run.checkpoint(records.newest(run))
    return [
        hashlib.sha256((newest / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "optimizer.safetensors")
    ]


@pytest.fixture(scope="module")
def undisturbed(here):
    known = {}

    def of(world: int) -> list[str]:
        if world not in known:
            assert begin(here, f"whole-{world}", world).wait(timeout=200) == 0
            known[world] = weights(RunDir(here / "runs" / f"whole-{world}"))
        return known[world]

    return of


def reached(run: RunDir, launcher: subprocess.Popen, phase: str) -> bool:
    """Whether the training is where it is to be stopped."""
    if phase == "start":
        return bool(processes.children(launcher.pid))
    rows = run.metrics.read_text().splitlines() if run.metrics.exists() else []
    if phase == "step":
        return len(rows) >= 7
    if phase == "checkpoint":  # a folder that is being written, or one that has just been
        return any(run.checkpoints.glob("*")) and (records.newest(run) or 0) < 10
    return any('"epoch_loss"' in row for row in rows) and not any('"split": "val"' in row for row in rows)


def living(word: str) -> list[str]:
    return [p for p in os.listdir("/proc") if p.isdigit() and word in command(p)]


def command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as f:
            return f.read()
    except OSError:
        return ""


PHASES = ("start", "step", "checkpoint", "evaluation")
# What asks by a signal is one handler, tried with one of them at every moment. One process alone has no
# accelerate in between, and each way to stop it at one moment. The launcher is killed at random, too:
# tests/test_storm.py and tests/launch/test_drill.py.
MOMENTS = [
    *((2, "SIGTERM", phase) for phase in PHASES),
    *((2, "SIGKILL", phase) for phase in ("step", "checkpoint")),
    *((2, "STOP", phase) for phase in PHASES[1:]),  # the folder is there once the workers are
    (2, "SIGINT", "start"),
    *((2, how, "step") for how in ("SIGINT", "SIGUSR1", "SIGUSR2")),
    *((1, how, "step") for how in ("SIGTERM", "SIGKILL", "STOP", "SIGINT")),
    (1, "SIGTERM", "start"),
]


@pytest.mark.parametrize("world, how, phase", MOMENTS)
def test_stop(here, undisturbed, how, world, phase):
    name = f"run-{how}-{world}-{phase}"
    run, expected = RunDir(here / "runs" / name), undisturbed(world)
    launcher = begin(here, name, world)
    deadline = time.monotonic() + 120
    while not reached(run, launcher, phase):
        assert launcher.poll() is None and time.monotonic() < deadline, (here / f"{name}.log").read_text()
        time.sleep(0.005)
    if how == "STOP":
        run.stop.touch()
    else:
        launcher.send_signal(signal.Signals[how])
    code = launcher.wait(timeout=120)
    while living(name):
        assert time.monotonic() < deadline + 60, "somebody is left"
        time.sleep(0.05)
    text = (here / f"{name}.log").read_text()
    if (how, world) != (
        "SIGKILL",
        2,
    ):  # there nobody is left over accelerate, which has its say after the workers have saved
        assert "Traceback" not in text, text
    status = json.loads(run.status.read_text()) if run.status.exists() else None
    assert code == {"STOP": 78, "SIGKILL": -9}.get(how, 75), text
    if phase != "start":
        assert (status["state"], status["code"]) == (("stopped", 78) if how == "STOP" else ("preempted", 75))
        assert records.newest(run) == status["step"] > 0
    print(f"{how} {world} {phase}: code {code}, saved at step {records.newest(run)}")
    assert begin(here, name, world).wait(timeout=200) == 0, (here / f"{name}.log").read_text()
    assert weights(run) == expected
