"""Files that are whole or not there, whatever interrupts their writing, and what a refusing disk becomes."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from test_packed import failure

from relaunch.data_prep import files
from relaunch.data_prep.errors import STORAGE, Failure
from rigs import REPOSITORY

OLD, NEW = b"old" * 700_000, b"new!" * 900_000  # a few writes of the kernel each


def python(program: str, *arguments, **options) -> subprocess.Popen:
    """A process with this program and `files` imported."""
    program = f"import os, sys; from pathlib import Path; from relaunch.data_prep import files; {program}"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_reader_never_sees_a_part(tmp_path):
    path, seen, over = tmp_path / "file", set(), threading.Event()
    files.write_atomic(path, OLD)

    def read():
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        files.write_atomic(path, (NEW, OLD)[i % 2])
    over.set()
    reader.join()
    assert seen <= {OLD, NEW} and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path, delay):
    path = tmp_path / "file"
    files.write_atomic(path, OLD)
    contents = f"({OLD[:3]!r} * {len(OLD) // 3}, {NEW[:4]!r} * {len(NEW) // 4})"
    writer = python(
        f"a, b = {contents}; print('go', flush=True);"
        "[files.write_atomic(Path(sys.argv[1]), (b, a)[i % 2]) for i in range(100_000)]",
        path,
    )
    assert writer.stdout.readline() == "go\n"
    time.sleep(delay)
    writer.kill()
    writer.communicate()
    assert path.read_bytes() in (OLD, NEW)


def test_a_failing_write_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "file"
    files.write_atomic(path, "old")
    writer = python(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "files.write_atomic(Path(sys.argv[1]), bytes(3 << 20))",
        path,
    )
    _, said = writer.communicate()
    assert "OSError: [Errno 27] File too large" in said
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"bytes",
        memoryview(np.arange(12, dtype=np.float32).reshape(3, 4)),
        bytes(range(256)) * (files.CHUNK // 256) + b"and a little more than a chunk",
    ],
    ids=["nothing", "bytes", "numbers", "more than a chunk"],
)
def test_the_hash_is_that_of_the_bytes_on_the_disk(tmp_path, content):
    returned = files.write_synced(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == bytes(content)
    assert returned == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert returned == files.sha256(tmp_path / "file")
    assert files.md5(tmp_path / "file") == hashlib.md5(bytes(content)).hexdigest()


@pytest.mark.parametrize(
    "number, fix",
    [
        (errno.ENOSPC, "free some space, or choose another place with --out FOLDER"),
        (errno.EDQUOT, "free some space, or choose another place with --out FOLDER"),
        (errno.EROFS, "choose another place with --out FOLDER"),
        (errno.EACCES, "choose another place with --out FOLDER"),
        (errno.EIO, "choose another place with --out FOLDER"),
    ],
    ids=lambda value: errno.errorcode.get(value),
)
def test_what_a_disk_refuses_is_73_with_a_way_out(number, fix):
    with pytest.raises(Failure) as caught, files.storage("there", "--out FOLDER"):
        raise OSError(number, os.strerror(number))
    said = caught.value
    assert (said.code, said.fix) == (
        STORAGE,
        fix,
    ) and said.what == f"cannot write there ({os.strerror(number)})"


def test_real_disks_that_refuse(tmp_path):
    with pytest.raises(Failure) as full, files.storage("/dev/full", "--out"):
        files.write_synced("/dev/full", b"x")
    assert full.value.line().startswith("relaunch: 73 cannot write /dev/full (No space left on device); free")
    with pytest.raises(Failure) as refused, files.storage("/sys/file", "--out"):
        files.write_atomic(files.Path("/sys/file"), "x")  # no rights there, not even root's
    assert refused.value.code == 73 and refused.value.fix == "choose another place with --out"


def test_other_failures_pass_through_storage():
    for error in (Failure(65, "bad"), ValueError("bad"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, files.storage("there", "--out"):
            raise error
        assert caught.value is error


def test_trees_are_synced_and_removed_as_far_as_they_are_there(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    files.sync_tree(tmp_path / "a")
    files.remove(tmp_path / "a")
    files.remove(tmp_path / "a")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError):
        files.sync(tmp_path / "a")


def test_json_is_strict_and_comes_back(tmp_path):
    value = {"a": [1, 0.1, None, "ü"], "b": {}}
    files.write_atomic(tmp_path / "x.json", files.dump_json(value))
    assert files.read_json(tmp_path / "x.json") == value
    with pytest.raises(ValueError):
        files.dump_json({"loss": float("nan")})
    (tmp_path / "x.json").write_text('{"a": ')
    for name in ("x.json", "missing.json"):
        assert f"cannot read {tmp_path / name} (" in failure(65, files.read_json, tmp_path / name)
