"""Several jobs on one folder: exactly one trains it, with locks and without, whoever was killed before."""

import fcntl
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from relaunch.data_prep import owner
from relaunch.data_prep.errors import Failure
from relaunch.trainers.rundir import RunDir


def without_locks(*_):
    raise OSError(37, os.strerror(37))  # ENOLCK


@pytest.fixture(params=["with locks", "without"])
def run(request, tmp_path, monkeypatch) -> RunDir:
    if request.param == "without":
        monkeypatch.setattr(fcntl, "flock", without_locks)
    return RunDir(tmp_path)


def job(run: RunDir, go: int, told: int, skew: float) -> int:
    """A process that wants the run as soon as `go` is closed, says whether it has it, and holds it."""
    child = os.fork()
    if child:
        return child
    try:
        clock = time.time
        time.time = lambda: clock() + skew
        os.read(go, 1)
        try:
            run.lock(wait=0.0)
            os.write(told, b"1")
        except Failure as failure:
            os.write(told, b"0" if failure.code == 77 else b"x")
        except BaseException:
            os.write(told, b"x")
        time.sleep(60)
    finally:
        os._exit(0)


def race(run: RunDir, jobs: int) -> bytes:
    """What so many jobs say that begin at once; all are killed afterwards."""
    go, start = os.pipe()
    ears, told = os.pipe()
    children = []
    for n in range(jobs):
        children.append(job(run, go, told, skew=86400.0 * (n - 1)))
        # only this process keeps the end that lets them go
    os.close(go)
    os.write(start, b"." * jobs)
    said = b""
    while len(said) < jobs:
        said += os.read(ears, jobs)
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    for end in (start, ears, told):
        os.close(end)
    return said


@pytest.mark.slow
def test_exactly_one_wins(run):
    """2 to 4 at a time, each time after an owner that was killed; their clocks differ by days."""
    for n in range(50):
        assert sorted(race(run, 2 + n % 3)) == sorted(b"1" + b"0" * (1 + n % 3)), n


def test_an_owner_on_another_machine_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", without_locks)
    (tmp_path / ".owner").write_text("elsewhere")
    with pytest.raises(Failure) as failure:
        RunDir(tmp_path).lock(wait=0.0)
    assert failure.value.code == 77 and f"remove {tmp_path / '.owner'}" in failure.value.fix
    (tmp_path / ".owner").write_text(socket.gethostname())  # killed here
    mark = tmp_path / ".owner"
    assert owner.own(mark) and not owner.own(mark)
    owner.release(mark)
    assert not mark.exists() and owner.own(mark)
    owner.release(mark)


@pytest.mark.parametrize("name", [".lock", ".owner"])
def test_a_link_is_not_followed(tmp_path, monkeypatch, name):
    if name == ".owner":
        monkeypatch.setattr(fcntl, "flock", without_locks)
    (tmp_path / "mine").write_text("precious")
    (tmp_path / name).symlink_to("mine")
    with pytest.raises((Failure, OSError)):
        RunDir(tmp_path).lock(wait=0.0)
    assert Path(tmp_path / "mine").read_text() == "precious"
