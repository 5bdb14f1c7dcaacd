"""Who packs the embedded sets: what trains or scores does, once; what only looks writes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_packed import failure

from relaunch.data_prep.packed import open_packed, verify
from relaunch.data_prep.recipes import ensure, prepare
from rigs import REPOSITORY

TRAIN = ["mnist", "--data", "digits", "--max-steps", 1, "-b", 8]


def test_opening_packs_nothing_and_says_what_to_type(tmp_path):
    root = tmp_path / "data"
    for name in ("digits", "pydoc"):
        line = failure(65, open_packed, name, root)
        assert line.endswith(f"run: relaunch prep {name} --out {root}") and not root.exists()


def test_ensure_packs_an_embedded_set_once_and_no_other(tmp_path):
    ensure("mnist", tmp_path / "data")
    ensure(str(tmp_path / "data" / "digits"), tmp_path)  # a path: somebody's own place
    assert os.listdir(tmp_path) == []
    ensure("digits", tmp_path)
    meta = tmp_path / "digits" / "meta.json"
    before = meta.stat()
    ensure("digits", tmp_path)
    after = meta.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    verify(open_packed("digits", tmp_path))


def test_a_set_in_the_working_folder_is_opened_not_packed_again(tmp_path, monkeypatch):
    prepare("digits", root=tmp_path, progress=False)
    monkeypatch.chdir(tmp_path)
    ensure("digits", "elsewhere")
    assert open_packed("digits", "elsewhere").path == Path("digits") and os.listdir() == ["digits"]


@pytest.mark.parametrize(
    "words, says",
    [
        (["launch", "train", *TRAIN, "--config", "cpu", "--dry-run"], "digits in empty"),
        (["trainers", "summary", "mnist", "--data", "digits"], "28x28"),
        (["trainers", "summary", "wikitext2", "--data", "pydoc"], "run: relaunch prep pydoc --out empty"),
    ],
    ids=["--dry-run", "summary", "summary of words"],
)
def test_what_only_looks_writes_nothing(relaunch_env, words, says):
    done = subprocess.run(
        [sys.executable, REPOSITORY / words[0] / "__main__.py", *map(str, words[1:]), "--data-root", "empty"],
        capture_output=True,
        text=True,
    )
    assert says in done.stdout + done.stderr and os.listdir() == []


def test_a_data_root_that_cannot_be_written_is_73_with_the_way_out(train, capfd):
    Path("file").write_text("")
    assert train(*TRAIN, "--data-root", "file/data") == 73
    assert capfd.readouterr().err.splitlines()[-1] == (
        "relaunch: 73 cannot write file/data/.digits.lock (Not a directory); "
        "choose another place with --data-root ROOT"
    )
    assert os.listdir() == ["file"]


def test_a_set_on_a_disk_that_nobody_can_write_is_trained_on(train):
    prepare("digits", root="data", progress=False)
    before = sorted(p.stat().st_mtime_ns for p in [Path("data"), *Path("data").rglob("*")])
    assert train(*TRAIN, "--data-root", "data") == 0
    assert sorted(p.stat().st_mtime_ns for p in [Path("data"), *Path("data").rglob("*")]) == before


def test_trainings_started_at_once_on_an_empty_root_share_one_set(start):
    begun = [start(*TRAIN, "--data-root", "data", "--run", name) for name in ("one", "two", "three")]
    ended = [process.end() for process in begun]
    assert [process.code for process in ended] == [0, 0, 0], [process.err for process in ended]
    assert os.listdir("data") == ["digits"]
    verify(open_packed("digits", "data"))


def test_only_the_first_process_of_a_training_packs(launch):
    """The others would say that they wait for it."""
    done = launch(*TRAIN, "--data-root", "data", "--run", "two", processes=2, accelerate="accelerate")
    assert done.code == 0 and "is preparing" not in done.out + done.err, done.err
