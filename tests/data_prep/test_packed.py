"""The packed format: opening, verifying, and writing that survives kills, races and full disks."""

import json
import os
import signal
import subprocess
import time
import warnings

import numpy as np
import pytest

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.making import new_folder
from relaunch.data_prep.packed import data_root, open_packed, verify
from relaunch.data_prep.progress import Progress
from relaunch.data_prep.recipes import ensure, prepare
from rigs.prep_sources import ROOT, image_folder_files, mnist, prep, tree_of, wikitext_files, zip_of
from rigs.runs import tree


def failure(code, action, *args, **kwargs) -> str:
    with pytest.raises(Failure) as caught:
        action(*args, **kwargs)
    assert caught.value.code == code, caught.value.line()
    assert "\n" not in caught.value.line()
    return caught.value.line()


@pytest.fixture
def small(tmp_path):
    mnist(tmp_path / "source")
    return prepare("mnist", tmp_path / "source", root=tmp_path / "data", progress=False)


@pytest.fixture(scope="module")
def many_images(tmp_path_factory):
    """Takes about a second to pack, so that there is a middle to be killed in."""
    return tree_of(tmp_path_factory.mktemp("many"), image_folder_files(count=3000, size=(48, 48)))


def test_a_set_describes_itself(small, tmp_path):
    assert (small.kind, small.splits, small.eval_split, len(small.classes)) == (
        "images",
        {"train": 30, "test": 10},
        "test",
        10,
    )
    assert small.images("train").dtype == np.uint8 and small.images("train").shape == (30, 28, 28, 1)
    assert small.labels("test").dtype == np.int64 and small.labels("test").tolist() == list(range(10))
    flat = small.images("train") / 255
    assert small.mean == pytest.approx([flat.mean()]) and small.std == pytest.approx([flat.std()])
    assert "it has: train, test" in failure(64, small.images, "val")
    assert "tokens.npy" in failure(64, small.tokens, "train")
    assert (
        open_packed("mnist", tmp_path / "data").hash
        == open_packed(tmp_path / "data" / "mnist", "elsewhere").hash
    )


def test_a_map_becomes_a_tensor_without_a_warning(small):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.from_numpy(small.images("train")).shape == (30, 28, 28, 1)


def test_data_root_is_flag_then_environment_then_data(monkeypatch):
    monkeypatch.setenv("RELAUNCH_DATA", "from_env")
    assert (str(data_root("flag")), str(data_root())) == ("flag", "from_env")
    monkeypatch.delenv("RELAUNCH_DATA")
    assert str(data_root()) == "data"


def test_missing_and_incomplete_sets_say_what_to_run(small, tmp_path):
    root = tmp_path / "data"
    assert failure(65, open_packed, "cifar10", root).endswith(
        f"no packed data set 'cifar10' in {root}; run: relaunch prep cifar10 --out {root}"
    )
    assert "--source PATH" in failure(65, open_packed, "flowers", root)
    labels = small.path / "test" / "labels.npy"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1])
    assert f"{labels} has 207 bytes instead of 208" in failure(65, open_packed, "mnist", root)
    labels.unlink()
    assert f"{labels} is missing" in failure(65, open_packed, "mnist", root)
    (small.path / "meta.json").write_text("{}")
    assert "meta.json cannot be read" in failure(65, open_packed, "mnist", root)
    (small.path / "meta.json").unlink()
    assert "no meta.json" in failure(65, open_packed, "mnist", root)
    # prep never deletes a folder that it did not make
    assert "move it away" in failure(65, prepare, "mnist", tmp_path / "source", root=root, progress=False)


@pytest.mark.parametrize("file", ["train/images.npy", "test/labels.npy"])
def test_verify_finds_one_flipped_bit(small, file):
    verify(small)
    content = bytearray((small.path / file).read_bytes())
    content[-1] ^= 1
    (small.path / file).write_bytes(content)
    assert str(small.path / file) in failure(65, verify, open_packed(small.path, ""))
    done = subprocess.run(prep(small.path, "--verify"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 65 and done.stderr.count("\n") == 1


def test_equal_sources_give_equal_bytes(tmp_path):
    for place in ("a", "b"):
        source = zip_of(tmp_path / "wiki.zip", wikitext_files())
        os.utime(source, (1, len(place)))
        prepare("wikitext2", source, root=tmp_path / place, progress=False)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 5 and files == sorted(
        p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file()
    )
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert str(tmp_path) not in (tmp_path / "a" / "wikitext2" / "meta.json").read_text()


def test_the_hash_is_of_the_data_not_of_the_name(tmp_path):
    mnist(tmp_path / "s")
    one, two = (
        prepare(name, tmp_path / "s", recipe="mnist", root=tmp_path / "d", progress=False)
        for name in ("one", "two")
    )
    mnist(tmp_path / "t")
    other = prepare("other", tmp_path / "t", recipe="mnist", root=tmp_path / "d", progress=False)
    assert one.hash == two.hash != other.hash


def test_a_prepared_set_is_left_alone(small, tmp_path):
    root, before = tmp_path / "data", (small.path / "meta.json").stat().st_mtime_ns
    prepare("mnist", root=root)  # no source, no network
    prepare("mnist", tmp_path / "source", root=root)
    mnist(tmp_path / "other")
    assert "another source" in failure(64, prepare, "mnist", tmp_path / "other", root=root)
    assert (small.path / "meta.json").stat().st_mtime_ns == before
    assert os.listdir(root) == ["mnist"]


@pytest.mark.parametrize("name", ["mnist", "digits"])
@pytest.mark.parametrize("there", ["an empty folder", "a folder of somebody", "a file", "a damaged set"])
def test_what_lies_there_is_never_replaced(tmp_path, name, there):
    mnist(tmp_path / "source")
    source = tmp_path / "source" if name == "mnist" else None
    target = tmp_path / "data" / name
    if there == "a damaged set":
        prepare(name, source, root=tmp_path / "data", progress=False)
        (target / "train" / "labels.npy").write_bytes(b"")
    elif there == "a file":
        tree_of(target.parent, {name: "mine"})
    else:
        target.mkdir(parents=True)
        tree_of(target, {"notes.txt": "mine"} if there == "a folder of somebody" else {})
    before = tree(target.parent)
    line = failure(65, ensure_or_prepare, name, source, target)
    assert f"move it away, then run: relaunch prep {name}" in line
    assert tree(target.parent) == before and target.exists() and os.listdir(target.parent) == [name]


def ensure_or_prepare(name, source, target):
    """As a training does for an embedded set, as prep does for the others."""
    if source is None:
        ensure(name, target.parent)
        open_packed(name, target.parent)
    prepare(name, source, root=target.parent, progress=False)


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.mark.parametrize("moment", ["folder", "labels", "images"])
def test_a_kill_midway_leaves_nothing_that_opens_and_the_next_start_cleans_up(many_images, tmp_path, moment):
    partial = tmp_path / ".many.partial"
    awaited = {
        "folder": partial,
        "labels": partial / "train" / "labels.npy",
        "images": partial / "train" / "images.npy",
    }[moment]
    process = subprocess.Popen(prep("many", "--source", many_images, "--out", tmp_path), cwd=ROOT)
    wait_for(lambda: awaited.exists() and (moment == "folder" or awaited.stat().st_size > 0), process)
    process.kill()
    process.wait()
    assert partial.exists() and not (tmp_path / "many").exists()
    failure(65, open_packed, "many", tmp_path)
    verify(prepare("many", many_images, root=tmp_path, progress=False))
    assert os.listdir(tmp_path) == ["many"]


def test_ctrl_c_is_one_line_and_leaves_nothing(many_images, tmp_path):
    process = subprocess.Popen(
        prep("many", "--source", many_images, "--out", tmp_path), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    wait_for((tmp_path / ".many.partial" / "train").exists, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.count("\n"), os.listdir(tmp_path)) == (75, 1, []), errors


def test_ctrl_c_ends_the_packing_between_two_batches(tmp_path):
    """Inside NumPy or a pool of threads it hung, or became another error, in about one of twenty."""
    reached, before = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "x"), Progress("", None, "B", False) as bar:
        signal.raise_signal(signal.SIGINT)
        reached.append("in a batch")
        bar.add(1)
        reached.append("after it")
    assert reached == ["in a batch"] and os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is before
    with new_folder(tmp_path / "x"), Progress("", None, "B", False) as bar:
        bar.add(1)


def test_several_processes_at_once_make_one_set(tmp_path):
    program = (
        "import sys; from relaunch.data_prep.packed import open_packed;"
        "from relaunch.data_prep.recipes import ensure;"
        "ensure('digits', sys.argv[1]); print(open_packed('digits', sys.argv[1]).hash)"
    )
    start = [*prep()[:1], "-c", program, str(tmp_path)]
    processes = [
        subprocess.Popen(start, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert {out for out, _ in results} == {open_packed("digits", tmp_path).hash + "\n"}
    assert os.listdir(tmp_path) == ["digits"]


def test_a_failed_write_is_73_and_leaves_nothing(many_images, tmp_path):
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from relaunch.data_prep.prep import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [prep()[0], "-c", program, "many", "--source", many_images, "--out", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n"), os.listdir(tmp_path)) == (73, 1, []), done.stderr


def test_meta_is_strict_json(small):
    text = (small.path / "meta.json").read_text()
    meta = json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
    assert meta["schema"] == 1 and meta["recipe"] == "mnist" and meta["source"]["as_published"] is False
    small.path.joinpath("meta.json").write_text(text.replace('"schema": 1', '"schema": NaN'))
    failure(65, open_packed, small.path, "")
