"""Storage that refuses, and numbers that are not finite: what it costs; nothing bad is committed."""

import subprocess
import sys

import pytest

from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs.disks import Limit, TinyDisk
from rigs.runs import outcome, status, steps, tree

NET = "cifar10 --arch net --batch-size 8 --max-steps 20 --save-every 4".split()


# a full disk ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[TinyDisk, Limit])
def disk(request, relaunch_env):
    (relaunch_env / "disk").mkdir()
    try:
        made = request.param(relaunch_env / "disk")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    yield made
    made.end()


def test_a_full_disk_costs_checkpoints_and_not_the_training(train, relaunch_env, disk, at, capsys):
    assert train(*NET, "--run", "./whole") == 0
    at(5, lambda training: (training.saver.settle(), disk.fill()))
    at(13, lambda training: (training.saver.settle(), disk.free()))
    assert train(*NET, "--run", "./disk/run") == 0
    error = capsys.readouterr().err
    assert [f"ALARM: no checkpoint of step {step} " in error for step in (4, 8, 12, 16)] == [
        False,
        True,
        True,
        False,
    ]
    assert outcome(disk.folder / "run") == outcome(relaunch_env / "whole")


@pytest.mark.parametrize("stop", [[], ["--stop-after", 15]], ids=["the end", "a stop"])
def test_a_last_checkpoint_that_does_not_fit_is_73(train, relaunch_env, disk, at, capsys, stop):
    assert train(*NET, "--run", "./whole") == 0
    at(13, lambda training: (training.saver.settle(), disk.fill()))
    capsys.readouterr()
    assert train(*NET, "--run", "./disk/run", *stop) == 73
    assert "relaunch: 73 the last checkpoint could not be written" in capsys.readouterr().err
    disk.free()
    assert steps(disk.folder / "run") == [4, 8, 12]
    assert train(*NET, "--run", "./disk/run", "--resume", "auto") == 0
    assert outcome(disk.folder / "run") == outcome(relaunch_env / "whole")


@pytest.mark.parametrize("disk", [TinyDisk], indirect=True)  # a run's first files are below any limit
def test_a_start_on_a_full_disk_is_73(train, relaunch_env, disk, capsys):
    assert train(*NET, "--run", "./disk/run", "--stop-after", 5) == 75
    before = tree(disk.folder)
    disk.fill()
    for command in (["--run", "./disk/run", "--resume", "auto"], ["--run", "./disk/new"]):
        capsys.readouterr()
        assert train(*NET, *command) == 73
        assert capsys.readouterr().err.startswith("relaunch: 73 cannot write disk/")
    disk.free()
    assert {k: v for k, v in tree(disk.folder).items() if k in before} == before
    assert train(*NET, "--run", "./disk/run", "--resume", "auto") == 0
    assert train(*NET, "--run", "./disk/new", "--resume", "auto") == 0


def test_a_log_that_cannot_be_written_does_not_end_a_training(train, relaunch_env, monkeypatch):
    """A full disk, or a reader that went away: `relaunch train … | head`."""

    class Gone:
        def write(self, text):
            raise BrokenPipeError

        flush = write

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Gone())
        assert train(*NET, "--run", "./run") == 0
    assert status(relaunch_env / "run")["state"] == "done"


def test_a_log_that_cannot_be_written_leaves_the_code_as_it_is(relaunch_env):
    program = (
        "import sys; from relaunch.data_prep.talk import tell; from relaunch.trainers.group import process; "
        "sys.exit(process.main(lambda argv: (tell('stopped'), (75, None))[1]))"
    )
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", program], stdout=full, timeout=60).returncode == 75


# a loss that is not finite --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, committed",
    [
        (["--log-interval", 1], []),
        (["--save-every", 1], [1]),
        (["--batch-size", 96], []),
        (["--stop-after", 3], []),
    ],
    ids=["seen in the log", "seen in the weights", "seen in the evaluation", "seen at the stop"],
)
def test_a_loss_that_is_not_finite_is_70_and_never_committed(train, relaunch_env, capsys, flags, committed):
    diverging = "cifar10 --arch net --schedule constant --lr 1e30 --batch-size 8 --run ./run".split()
    assert train(*diverging, *flags) == 70
    error = capsys.readouterr().err
    assert error.startswith("relaunch: 70 ") and "not finite" in error and error.count("\n") == 1
    assert status(relaunch_env / "run")["code"] == 70 and status(relaunch_env / "run")["state"] == "failed"
    assert steps(relaunch_env / "run") == committed
    for step in committed:
        saved = checkpoint.load(RunDir(relaunch_env / "run").checkpoint(step))
        assert all(t.isfinite().all() for part in (saved.model, saved.optimizer) for t in part.values())


def test_a_loss_that_was_not_finite_though_the_weights_are(train, relaunch_env, at, capsys):
    """fp16 skips such a step: the window that is not logged yet holds it."""
    at(3, lambda training: training.window.__setitem__(0, float("inf")))
    assert train(*NET, "--run", "./run", "--stop-after", 3) == 70
    assert (
        capsys.readouterr().err.startswith("relaunch: 70 the loss is not finite after step 3")
        and steps(relaunch_env / "run") == []
    )
