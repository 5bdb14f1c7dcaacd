"""`relaunch bundle` and `unbundle`: a run moves as one file, of which each bit counts, or is refused."""

import errno
import json
import os
import random
import shutil
import subprocess
import tarfile

import pytest

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.launch import bundle, bundled, runs
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs.runs import outcome, status, steps, tree
from rigs.saved import save, saved_run

NET = "cifar10 --arch net --batch-size 8 --epochs 2 --save-every 5 --keep 2".split()  # 12 steps an epoch


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    run = saved_run(tmp_path / "runs/first")
    (run.path / "logs").mkdir()
    run.log(0).write_text("what it said\n")
    return run


def refused(what, *argv: str) -> Failure:
    with pytest.raises(Failure) as caught:
        what([*argv])
    return caught.value


def packed(out: str = "first.tar", *argv: str):
    assert bundle.main_bundle(["first", "--out", out, *argv]) == 0


def nothing_left(folder) -> bool:
    return not [path for path in folder.iterdir() if path.name.startswith(".")]


# there and back -------------------------------------------------------------------------------------------


def test_a_run_moves_with_its_newest_and_best_checkpoints(run, tmp_path, capsys):
    (run.path / ".lock").write_text("")
    run.stop.write_text("")
    assert bundle.main_bundle(["first"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(
        "first.tar: 13 files of runs/first, 0.0 MB, with the checkpoints of steps 40, 80\n"
    )
    assert "left out: steps 20, 60; --all-checkpoints takes them\n" in told
    assert bundle.main_unbundle(["first.tar", "--run", "again"]) == 0
    told = capsys.readouterr().out
    assert (
        told == "runs/again: 13 files, 0.0 MB, each as it was bundled; with the checkpoints of steps 40, 80\n"
    )
    again, there = RunDir("runs/again"), tree(run.path)
    dropped = ("step-000000020", "step-000000060", ".lock", "STOP")
    assert tree(again.path) == {n: s for n, s in there.items() if not any(d in n for d in dropped)}
    assert int(again.config.stat().st_mtime) == int(run.config.stat().st_mtime)
    assert checkpoint.newest_valid(again) == again.checkpoint(80)
    assert nothing_left(tmp_path) and nothing_left(tmp_path / "runs")


def test_all_checkpoints_but_damaged_ones_links_and_what_is_kept_aside(run, capsys):
    (run.checkpoint(20) / "state.json").write_text("{}")
    (run.path / "raw").symlink_to("/etc")
    (run.path / "motd").symlink_to("/etc/hostname")
    save(RunDir(run.checkpoints / "aside-1"), 100)
    packed("first.tar", "--all-checkpoints")
    told = capsys.readouterr()
    assert (
        "with the checkpoints of steps 40, 60, 80\n" in told.out
        and "left out: raw, motd, aside-1" in told.out
    )
    assert "step-000000020/state.json has" in told.err and told.err.endswith("left out\n")


def test_checkpoints_may_lie_on_another_disk(run, tmp_path):
    shutil.move(run.checkpoints, tmp_path / "scratch")
    run.checkpoints.symlink_to(tmp_path / "scratch")
    packed()
    assert bundle.main_unbundle(["first.tar", "--run", "again"]) == 0
    assert steps(tmp_path / "runs/again") == [40, 80]


def test_other_programs_read_it(run, tmp_path):
    """Names of any length and alphabet, and sizes as tar writes them."""
    deep = run.path / ("deep" * 20) / ("er" * 30)
    deep.mkdir(parents=True)
    (deep / "猫.txt").write_text("miau")
    packed()
    with tarfile.open("first.tar") as tar:
        names = [member.name for member in tar]
        assert names[-2:] == ["BUNDLE.json", "BUNDLE.sha256"] and all(member.isreg() for member in tar)
    (tmp_path / "there").mkdir()
    for words in (["tar", "xf", "../first.tar"], ["sha256sum", "-c", "BUNDLE.sha256"]):
        subprocess.run(words, cwd=tmp_path / "there", check=True, capture_output=True)
    assert bundle.main_unbundle(["first.tar", "--run", "again"]) == 0
    unpacked = {f"first/{n}": s for n, s in tree(tmp_path / "runs/again").items()}
    assert unpacked.items() <= tree(tmp_path / "there").items() and len(unpacked) == len(names) - 2
    large = tarfile.TarInfo.frombuf(bundled.header("model", 2**40), "utf-8", "strict")
    assert (large.name, large.size) == ("model", 2**40)


def test_a_run_that_is_being_trained_is_taken_as_it_was_saved(run, capsys):
    run.status.write_text(json.dumps(status(run.path) | {"state": "running", "step": 99, "pid": 1}))
    trains = RunDir(run.path)
    trains.lock()
    packed()
    trains._lock.close()
    assert "runs/first is being trained: what it has saved by now is bundled" in capsys.readouterr().err
    assert bundle.main_unbundle(["first.tar", "--run", "again"]) == 0
    assert (
        "to go on from there: relaunch train mnist --run runs/again --resume auto" in capsys.readouterr().out
    )
    now = status(RunDir("runs/again").path)
    assert (now["state"], now["step"], now["reason"]) == (
        "preempted",
        80,
        "bundled at step 80 while it was trained on elsewhere",
    )
    assert status(run.path)["state"] == "running"


def test_a_run_without_checkpoints_and_one_that_lost_them(run, capsys):
    shutil.rmtree(run.checkpoints)
    assert "had checkpoints, and none is there" in refused(bundle.main_bundle, "first").what
    run.status.unlink()
    run.metrics.unlink()
    packed()
    assert "with no checkpoint yet" in capsys.readouterr().out


# damage ---------------------------------------------------------------------------------------------------


def test_each_bit_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved_run(tmp_path / "runs/first", [80], 80)
    packed()
    content, chance = (tmp_path / "first.tar").read_bytes(), random.Random(0)
    size = len(content)
    ends = [
        *range(0, 512, 50),
        *range(size - 4096, size, 150),
    ]  # the first header, and what stands after files
    for at in [*ends, *chance.sample(range(size), 60)]:
        bad = bytearray(content)
        bad[at] ^= 1 << chance.randrange(8)
        (tmp_path / "bad.tar").write_bytes(bad)
        failure = refused(bundle.main_unbundle, "bad.tar", "--run", "bad")
        assert failure.code == 65 and failure.line().count("\n") == 0, at
        assert os.listdir(tmp_path / "runs") == ["first"], at
    at = content.index(b"weights 80")
    (tmp_path / "bad.tar").write_bytes(content[:at] + b"W" + content[at + 1 :])
    what = "bad.tar is damaged: checkpoints/step-000000080/model.safetensors is not as it was bundled"
    assert refused(bundle.main_unbundle, "bad.tar", "--run", "bad").what == what


def test_what_is_cut_short_or_grew_or_is_no_bundle(run, tmp_path):
    packed()
    content = (tmp_path / "first.tar").read_bytes()
    whole = len(content)
    for size in (0, 1, 512, 2048, 5000, whole - 2048, whole - 512, whole - 1):
        (tmp_path / "bad.tar").write_bytes(content[:size])
        assert refused(bundle.main_unbundle, "bad.tar", "--run", "bad").code == 65, size
    cut = content[:1024] + content[2048:]  # in the middle
    for bad in (content + b"\0", content + bytes(512), cut, b"\0" * 9000, random.Random(0).randbytes(9000)):
        (tmp_path / "bad.tar").write_bytes(bad)
        assert refused(bundle.main_unbundle, "bad.tar", "--run", "bad").code == 65
    with tarfile.open("plain.tar", "w") as tar:
        tar.add(run.path, "first")
    for name in ("plain.tar", "runs", "runs/first/config.json"):
        assert refused(bundle.main_unbundle, name, "--run", "bad").code == 65
    assert os.listdir(tmp_path / "runs") == ["first"]


def evil(path, names: dict, run: str = "first", **told):
    """A bundle whose hashes are right, of these files."""
    with open(path, "wb") as f:
        entries = {}
        for name, content in names.items():
            f.write(bundled.header(f"{run}/{name}", len(content)) + content + bundled.padding(len(content)))
            entries[name] = {
                "bytes": len(content),
                "modified": 0,
                "sha256": bundled.hashlib.sha256(content).hexdigest(),
            }
        listed = {"schema": 1, "relaunch": "9", "run": run, "files": entries, **told}
        f.write(bundled.framed(files.dump_json(listed).encode()))


@pytest.mark.parametrize(
    "names, told",
    [
        ({"../out": b"x"}, {}),
        ({"a/../../out": b"x"}, {}),
        ({"/tmp/out": b"x"}, {}),
        ({"a//b": b"x"}, {}),
        ({"": b"x"}, {}),
        ({"./a": b"x"}, {}),
        ({".lock": b"x"}, {}),
        ({"logs/.owner": b"x"}, {}),
        ({"a\0b": b"x"}, {}),
        ({"a": b"x", "a/b": b"x"}, {}),
        ({"a": b"x"}, {"run": "../first"}),
        ({"a": b"x"}, {"run": ""}),
        ({"a": b"x"}, {"run": 7}),
        ({"a": b"x"}, {"schema": 2}),
        ({"a": b"x"}, {"files": []}),
        ({"a": b"x"}, {"files": {"a": {"bytes": -512, "modified": 0, "sha256": ""}}}),
        ({"a": b"x"}, {"files": {"a": {"bytes": 2**52, "modified": 0, "sha256": ""}}}),
        ({"a": b"x"}, {"files": {"a": {"bytes": 1, "modified": 2**50, "sha256": ""}}}),
        ({"a": b"x"}, {"files": {"a": {"bytes": 1, "modified": 0}}}),
        ({"a": b"x"}, {"files": {"\ud800": {"bytes": 1, "modified": 0, "sha256": ""}}}),
        ({"a": b"x"}, {"files": {}}),
    ],
    ids=str,
)
def test_no_path_leaves_the_folder(run, tmp_path, names, told):
    evil(tmp_path / "evil.tar", names, **told)
    before = tree(tmp_path)
    assert refused(bundle.main_unbundle, "evil.tar", "--run", "bad").code == 65
    assert tree(tmp_path) == before and sorted(os.listdir(tmp_path)) == ["evil.tar", "runs"]


def test_links_and_devices_have_no_place_in_it(run, tmp_path):
    """A tar header that claims to be one is not what BUNDLE.json makes of its entry."""
    for kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
        packed("odd.tar")
        content = bytearray((tmp_path / "odd.tar").read_bytes())
        head = bundled.block(b"first/config.json", 0, 0, kind)
        content[:512] = head
        (tmp_path / "odd.tar").write_bytes(content)
        assert refused(bundle.main_unbundle, "odd.tar", "--run", "bad").code == 65
        os.unlink("odd.tar")
    assert os.listdir(tmp_path / "runs") == ["first"]


# places ---------------------------------------------------------------------------------------------------


def test_nothing_is_replaced(run, tmp_path):
    packed()
    before = tree(tmp_path)
    assert refused(bundle.main_bundle, "first").line() == (
        "relaunch: 64 first.tar exists; remove it, or name another file with --out"
    )
    (tmp_path / "runs/empty").mkdir()
    for name in ("first", "empty", "./first.tar"):
        assert refused(bundle.main_unbundle, "first.tar", "--run", name).code == 64
    assert "did you mean first.tar?" in refused(bundle.main_unbundle, "frist.tar").fix
    assert "did you mean first?" in refused(bundle.main_bundle, "frist").fix
    assert tree(tmp_path) == before


def test_a_run_that_comes_into_being_meanwhile_stays(run, tmp_path, monkeypatch):
    packed()
    sync = files.sync_tree

    def begun(folder):
        sync(folder)
        (tmp_path / "runs/again").mkdir()

    monkeypatch.setattr(files, "sync_tree", begun)
    assert "has come into being" in refused(bundle.main_unbundle, "first.tar", "--run", "again").what
    assert not os.listdir(tmp_path / "runs/again") and nothing_left(tmp_path / "runs")


def test_what_a_killed_one_left_is_no_run_and_goes(run, tmp_path):
    packed()
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / f"runs/.again.{gone.pid}.part/again"
    left.mkdir(parents=True)
    shutil.copy(run.config, left)
    assert [path.path.name for path in runs.rundir.runs()] == ["first"]
    assert bundle.main_unbundle(["first.tar", "--run", "again"]) == 0
    assert sorted(os.listdir(tmp_path / "runs")) == ["again", "first"]


@pytest.mark.parametrize("unpacks", [False, True])
def test_a_full_disk(run, tmp_path, monkeypatch, unpacks):
    packed()
    before = tree(tmp_path)

    def full(source, target, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "copy", full)
    argv = ["first.tar", "--run", "again"] if unpacks else ["first", "--out", "other.tar"]
    failure = refused(bundle.main_unbundle if unpacks else bundle.main_bundle, *argv)
    assert failure.code == 73 and failure.fix.startswith("free some space, or choose another place with --")
    assert tree(tmp_path) == before and nothing_left(tmp_path) and nothing_left(tmp_path / "runs")


def test_a_file_that_changes_while_it_is_read(run, tmp_path, monkeypatch):
    """A checkpoint that is not any more what was verified, and one that has gone."""
    find = bundle.members

    def changed(run, checkpoints):
        found = find(run, checkpoints)
        (run.checkpoint(80) / "model.safetensors").write_bytes(b"another")
        return found

    monkeypatch.setattr(bundle, "members", changed)
    assert "model.safetensors changed while it was read" in refused(bundle.main_bundle, "first").what
    monkeypatch.setattr(bundle, "members", lambda *args: (find(*args), shutil.rmtree(run.checkpoint(60)))[0])
    assert "60/model.safetensors (No such file" in refused(bundle.main_bundle, "first").what
    assert os.listdir(tmp_path) == ["runs"]


# a real training ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_moved_run_goes_on_to_the_same_bits(train, relaunch_env, capsys):
    """And is evaluated, compared and listed as any other."""
    from relaunch.trainers import diff, evaluate

    assert train(*NET, "--run", "whole") == 0
    assert train(*NET, "--run", "first", "--stop-after", 14) == 75
    packed()
    shutil.move("runs/first", relaunch_env / "elsewhere")
    assert bundle.main_unbundle(["first.tar"]) == 0
    told = capsys.readouterr().out
    assert "to go on from there: relaunch train cifar10 --run runs/first --resume auto" in told
    assert evaluate.run(["first@best"])[0] == 0
    assert diff.run(["first@12", "first"])[0] == 0
    assert runs.main_runs(["show", "first"]) == 0 and "14 of 24" in capsys.readouterr().out
    assert train("cifar10", "--run", "first", "--resume", "auto") == 0
    assert outcome(relaunch_env / "runs/first") == outcome(relaunch_env / "runs/whole")
    assert records.status(RunDir("runs/first"))["state"] == "done"
