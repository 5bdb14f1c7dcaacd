"""Packed arrays that somebody changed after they were packed, at equal size: a start notices."""

import os
import shutil

import pytest

from relaunch.data_prep import spot
from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import open_packed
from rigs.runs import status, tree
from rigs.sets import pack_images, pack_text

COMMAND = "mnist --data ./set --batch-size 8 --max-steps 6".split()


@pytest.fixture
def packed(tmp_path):
    pack_images(tmp_path / "set", (28, 28, 1))
    return open_packed(tmp_path / "set", ".")


def touch_up(packed, name: str, place: int, keep_times: bool = False):
    """Change a byte, as whoever opens the array to write does; or as a disk does, which tells no time."""
    path = packed.path / name
    times = path.stat()
    with open(path, "r+b") as f:
        f.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        old = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([old[0] ^ 1]))
    if keep_times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        os.utime(path, (times.st_atime + 60, times.st_mtime + 60))


@pytest.mark.parametrize("name", ["train/images.npy", "train/labels.npy", "val/images.npy"])
def test_a_changed_array_looks_changed(packed, name, capsys):
    spot.check(packed)
    assert capsys.readouterr().err == ""
    if not (packed.path / name).exists():
        name = name.replace("val", "test")
    touch_up(packed, name, 150)
    with pytest.raises(Failure) as failure:
        spot.check(packed)
    assert failure.value.code == 65 and f"{name} was changed after it was packed" in failure.value.line()


def test_a_copy_only_looks_changed(packed, tmp_path, capsys):
    shutil.copytree(packed.path, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy/meta.json", (5, 5))
    copy = open_packed(tmp_path / "copy", ".")
    spot.check(copy)
    assert capsys.readouterr().err.count("is newer than its meta.json: copied, or changed; hashing it") >= 4
    assert spot.look(copy) == spot.look(packed)


def test_what_tells_no_time_is_seen_in_a_sampled_page_or_by_hashing_all(packed):
    before = spot.look(packed)
    touch_up(packed, "train/images.npy", -1, keep_times=True)
    spot.check(packed)
    for notices in (lambda: spot.compare(packed, before), lambda: spot.check(packed, whole=True)):
        with pytest.raises(Failure) as failure:
            notices()
        assert failure.value.code == 65
    spot.compare(packed, None)  # a run of an older version, which saw nothing


def test_a_large_array_costs_a_few_pages(tmp_path, packed):
    os.truncate(packed.path / "train/images.npy", 1 << 33)  # a hole: reading it all would take seconds
    spot.look(packed)


def test_what_differs_is_said(packed, tmp_path):
    before = spot.look(packed)
    assert spot.differences(packed, None) == ""
    pack_images(tmp_path / "other", (28, 28, 3), seed=7)
    said = spot.differences(open_packed(tmp_path / "other", "."), before)
    assert "train/images.npy is " in said and "x28x28x3 and was " in said
    pack_text(tmp_path / "text")
    said = spot.differences(open_packed(tmp_path / "text", "."), before)
    assert "its 0 classes are not the 10 of then" in said
    assert "it lacks train/images.npy" in said and "vocab.txt is new" in said


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_training_notices(train, relaunch_env, packed, capsys, keep_times):
    """At its first start by the times, or if asked to hash everything; at a resume by a page, too."""
    assert train(*COMMAND, "--run", "./run", "--stop-after", 3, "--verify-data") == 75
    touch_up(packed, "train/images.npy", -1, keep_times)
    before = tree(relaunch_env / "run")
    verify = ["--verify-data"] if keep_times else []
    for flags in (["--run", "./run", "--resume", "auto"], ["--run", "./new", *verify]):
        capsys.readouterr()
        assert train(*COMMAND, *flags) == 65
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("relaunch: 65 set/train/images.npy ") and (
            "changed" in error or "damaged" in error
        )
    assert tree(relaunch_env / "run") == before and not (relaunch_env / "new").exists()
    touch_up(packed, "train/images.npy", -1)  # put back
    assert train("mnist", "--run", "./run", "--resume", "auto") == 0
    assert status(relaunch_env / "run")["state"] == "done"


def test_data_that_was_packed_anew(train, relaunch_env, packed, capsys):
    assert train(*COMMAND, "--run", "./run", "--stop-after", 3) == 75
    shutil.rmtree(packed.path)
    pack_images(packed.path, (28, 28, 1), seed=7)
    assert train("mnist", "--run", "./run", "--resume", "auto") == 65
    error = capsys.readouterr().err
    assert "relaunch: 65 set is not the data that run was trained on: " in error
    assert "train/images.npy has other contents" in error and "--resume ./run" in error
    assert train(*COMMAND, "--run", "./new", "--resume", "./run") == 0
