"""Disks that lend no locks and sync nothing: a missing net is a line, and no full disk."""

import errno
import fcntl
import os
import threading
import time

import pytest

from relaunch.data_prep import files, owner
from relaunch.data_prep.errors import Failure
from relaunch.data_prep.making import exclusive
from relaunch.data_prep.recipes import prepare
from relaunch.launch import machine
from rigs.prep_sources import image_folder_files, tree_of


def refused(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=owner.NO_LOCKS, ids=errno.errorcode.get)
def without_locks(request, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refused(request.param))


@pytest.fixture(params=files.NO_SYNC, ids=errno.errorcode.get)
def without_sync(request, monkeypatch):
    monkeypatch.setattr(os, "fsync", refused(request.param))
    monkeypatch.setattr(files, "_said_unsynced", False)


def test_a_set_is_packed_all_the_same(tmp_path, without_locks, without_sync, capsys):
    source = tree_of(tmp_path / "s", image_folder_files(count=2))
    data = prepare("mine", source, root=tmp_path / "out", progress=False, size=16)
    assert data.splits == {"train": 4, "val": 4}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mine"]
    error = capsys.readouterr().err
    assert error.count("relaunch: this file system syncs nothing to disk (") == 1


def test_one_at_a_time_without_locks(tmp_path, without_locks, capsys):
    order = []

    def other():
        with exclusive(tmp_path, "mine"):
            order.append("other")

    with exclusive(tmp_path, "mine"):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "other"] and not list(tmp_path.iterdir())
    fix = f"if it was killed on another machine, remove {tmp_path / '.mine.owner'}"
    assert fix in capsys.readouterr().err


def test_an_error_is_still_one(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refused(errno.EIO))
        with pytest.raises(Failure) as failure, exclusive(tmp_path, "mine"):
            pass
        assert failure.value.code == 73
    monkeypatch.setattr(os, "fsync", refused(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(tmp_path / "x", b"x")


def test_doctor_says_so(tmp_path, monkeypatch):
    assert machine.shared_disk(tmp_path) == "locks hold, clocks agree"
    monkeypatch.setattr(fcntl, "flock", refused(errno.ENOLCK))
    assert machine.shared_disk(tmp_path) == "no locks here: a run is owned by its file .owner, clocks agree"
