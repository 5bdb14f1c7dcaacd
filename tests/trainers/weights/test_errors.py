"""Errors of the disk, one after the other at each call of a save, of a metrics line and of the status."""

import builtins
import errno
import json
import os

import pytest
from test_checkpoint import state

from relaunch.data_prep import files
from relaunch.trainers import records
from relaunch.trainers.metrics import Metrics
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs.runs import tree

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.ESTALE)
# what a file is written by, made durable by, and named by
CALLS = [(builtins, "open"), (os, "open"), (os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir")]
CALLS += [(files, "exchange")]


class Failing:
    """The `at`-th of CALLS that concern `folder` fails, as the system says it; `struck` once it has."""

    def __init__(self, monkeypatch, folder, at: int, number: int):
        self.left, self.struck = at, False
        self.folder, self.number = str(folder), number
        for owner, name in CALLS:
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name)))

    def wrapped(self, call):
        def wrapper(first, *args, **kwargs):
            place = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)
            if str(place).startswith(self.folder):
                self.left -= 1
                if self.left == -1:
                    self.struck = True
                    raise OSError(self.number, os.strerror(self.number), str(place))
            return call(first, *args, **kwargs)

        return wrapper


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path / "run")


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("step", [20, 10], ids=["the next step", "the same step"])
def test_at_each_call_of_a_save(run, monkeypatch, capsys, number, step):
    """The save fails, or has been done; one of the two is always valid, and the next save works."""
    struck, at = True, 0
    while struck:
        files.remove(run.path)
        checkpoint.save(run, state(10), keep=1)
        with monkeypatch.context() as patch:
            failing = Failing(patch, run.path, at, number)
            try:
                checkpoint.save(run, state(step, best=10), keep=1)
                saved = True
            except OSError as error:
                assert error.errno == number
                saved = False
        struck, at = failing.struck, at + 1
        checkpoint.recover(run)
        newest = checkpoint.newest_valid(run)
        assert (
            newest == run.checkpoint(step) if saved else newest in (run.checkpoint(10), run.checkpoint(step))
        )
        checkpoint.sweep(run)
        checkpoint.save(run, state(30), keep=1)
        left = {p.name for p in run.checkpoints.iterdir()}
        assert not [name for name in left if name.startswith(".")], left
    assert at > 10
    assert all(line.startswith("relaunch: ") for line in capsys.readouterr().err.splitlines())


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_at_each_call_of_a_metrics_line(run, monkeypatch, number):
    struck, at = True, 0
    while struck:
        files.remove(run.path)
        run.path.mkdir()
        metrics = Metrics(run, 0)
        with monkeypatch.context() as patch:
            failing = Failing(patch, run.path, at, number)
            for step in (1, 2):
                metrics.log({"step": step, "samples": 1, "epoch": 0.1, "split": "train", "loss": 1.0})
                try:
                    metrics.sealed()
                    metrics.to_disk()
                except OSError as error:
                    assert error.errno == number
        metrics.log({"step": 3, "samples": 1, "epoch": 0.1, "split": "val", "loss": 1.0})
        metrics.close()
        assert [r["step"] for r in records.metrics(run)] == [1, 2, 3], at
        struck, at = failing.struck, at + 1
    assert at > 4


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_at_each_call_of_the_status(run, monkeypatch, capsys, number):
    """The old status or the new one, whole; and no exception: what is reported is not the report's."""
    struck, at = True, 0
    while struck:
        files.remove(run.path)
        run.path.mkdir()
        run.write_status("running", step=3)
        with monkeypatch.context() as patch:
            failing = Failing(patch, run.path, at, number)
            run.write_status("done", 0, 4)
        struck, at = failing.struck, at + 1
        assert json.loads(run.status.read_bytes())["state"] in ("running", "done")
        assert len(tree(run.path)) == 1
    assert at > 3
    assert capsys.readouterr().err.count("cannot write") >= 3
