"""`relaunch checkpoints`: what is listed, verified, dropped, and gone back to, at any moment of a kill."""

import gc
import json
import os
import shutil

import pytest

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.launch import checkpoints
from relaunch.trainers import aside, records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs.killed import killed
from rigs.runs import outcome, status, steps, tree
from rigs.saved import save, saved_run

NET = "cifar10 --arch net --batch-size 8 --epochs 3 --schedule constant --keep 9".split()  # 12 steps an epoch


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    return saved_run(tmp_path / "runs/first")


def flip(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def refused(*argv: str) -> Failure:
    with pytest.raises(Failure) as caught:
        checkpoints.main([*argv])
    failure = caught.value
    found = Failure(failure.code, failure.what, failure.fix)
    del caught, failure
    gc.collect()  # the frames of a traceback hold the run's lock, which a process's end lets go of
    return found


# ls -------------------------------------------------------------------------------------------------------


def test_they_are_listed(run, capsys):
    flip(run.checkpoint(40) / "model.safetensors")  # which a look at the folder does not show
    shutil.copytree(run.checkpoint(20), run.checkpoints / ".step-000000090.7.part")
    (run.checkpoint(60) / "MANIFEST.json").unlink()
    assert checkpoints.main(["first"]) == checkpoints.main(["first", "ls"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()[:6]
    assert head.split() == "step epoch age size metric schema".split()
    marks = ["resumed from", "best", "not whole: it has no MANIFEST.json", "newest"]
    for row, step, epoch, mark in zip(rows, (20, 40, 60, 80), "1234", marks):
        cells = row.split()
        assert cells[:2] == [str(step), epoch] and f"top1 90.{step} %" in row and row.endswith(f"  {mark}")
    assert rows[4].startswith(".step-000000090.7.part: 0.0 MB, what a killed save left")


# verify ---------------------------------------------------------------------------------------------------


def test_every_byte_is_verified(run, capsys):
    assert checkpoints.main(["first", "verify"]) == 0
    out = capsys.readouterr().out
    assert out.count(": whole, ") == 4 and out.endswith("a resume takes step 80\n")
    flip(run.checkpoint(80) / "optimizer.safetensors")
    flip(run.checkpoint(40) / "model.safetensors")
    failure = refused("first", "verify")
    assert failure.code == 65 and failure.fix == "a resume takes step 60"
    assert failure.what == "step-000000040, step-000000080 of runs/first are damaged"
    assert (
        "80: runs/first/checkpoints/step-000000080/optimizer.safetensors is damag" in capsys.readouterr().out
    )
    assert refused("first", "verify", "best").fix == "a resume takes step 60"
    assert checkpoints.main(["first", "verify", "60", "@20"]) == 0
    flip(run.checkpoint(60) / "state.json")
    flip(run.checkpoint(20) / "state.json")
    assert refused("first", "verify").fix == "no checkpoint is left to resume from"


def test_rows_that_are_not_as_logged_are_said(run):
    flip(run.metrics)
    assert "of metrics.jsonl are not as logged" in refused("first", "verify").what


# prune ----------------------------------------------------------------------------------------------------


def test_pruning_says_what_goes_and_keeps_what_saving_would(run, capsys):
    shutil.copytree(run.checkpoint(20), run.checkpoints / ".step-000000090.7.part")
    before = tree(run.path)
    assert checkpoints.main(["first", "prune", "--keep", "1", "--dry-run"]) == 0
    said = "keeps step 20 (resumed from)\nkeeps step 40 (best)\nkeeps step 80 (newest)\n"
    gone = "step-000000060, .step-000000090.7.part"
    assert capsys.readouterr().out.startswith(f"{said}would drop {gone}: 0.0 MB")
    run.path.joinpath(".lock").unlink()
    assert tree(run.path) == before
    assert checkpoints.main(["first", "prune", "--keep", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{said}drops {gone}: ")
    assert steps(run.path) == [20, 40, 80] and not checkpoint.leftovers(run)
    assert checkpoints.main(["first", "prune", "--keep", "1"]) == 0
    assert capsys.readouterr().out.endswith("drops nothing\n")


def test_pruning_counts_from_the_newest_valid_one(run):
    flip(run.checkpoint(80) / "state.json")
    assert checkpoints.main(["first", "prune", "--keep", "1"]) == 0
    assert steps(run.path) == [20, 40, 60, 80]
    assert checkpoint.newest_valid(run) == run.checkpoint(60)


@pytest.mark.parametrize("argv", [["prune", "--keep", "1"], ["restore", "20"]])
def test_a_run_that_is_being_trained_is_left_alone(run, argv):
    trains = RunDir(run.path)
    trains.lock()
    before = tree(run.path)
    assert refused("first", *argv).code == 77
    assert tree(run.path) == before
    trains._lock.close()


# restore --------------------------------------------------------------------------------------------------


def last_row(run: RunDir) -> int:
    return records.metrics(run)[-1]["step"]


def test_going_back_and_forth_loses_nothing(run, capsys):
    before, was = tree(run.path), status(run.path)
    assert checkpoints.main(["first", "restore", "best"]) == 0
    out = capsys.readouterr().out
    assert (
        "restored to step 40; to go on from there: relaunch train mnist --run runs/first --resume auto" in out
    )
    assert "in runs/first/checkpoints/aside-1: steps 60, 80, and the metrics beyond step 40" in out
    assert checkpoint.newest_valid(run) == run.checkpoint(40) and last_row(run) == 40
    now = status(run.path)
    assert (now["state"], now["code"], now["step"], now["saved"]) == ("stopped", 78, 40, 40)
    assert capsys.readouterr().err == ""  # no word of a checkpoint that is not there

    save(run, 50, 40, " anew")  # it is trained on, in another way
    save(run, 80, 40, " anew")
    assert refused("first", "restore", "60").fix == "relaunch checkpoints first restore aside-1"
    assert checkpoints.main(["first", "verify"]) == 0
    capsys.readouterr()
    assert checkpoints.main(["first", "restore", "aside-1"]) == 0
    out = capsys.readouterr().out
    assert "steps 60, 80 brought back" in out and "relaunch checkpoints first restore aside-2" in out
    kept = aside.folders(run)
    assert [path.name for path in kept] == ["aside-2"] and aside.steps(kept[0]) == [50, 80]
    shutil.rmtree(kept[0])
    run.path.joinpath(".lock").unlink()
    assert tree(run.path) | {"status.json": ""} == before | {"status.json": ""}
    assert {n: v for n, v in status(run.path).items() if n in was} == was


def test_where_lines_part_is_not_pruned(run):
    assert checkpoints.main(["first", "restore", "60"]) == 0
    save(run, 100)
    save(run, 120)
    checkpoint.prune(run, 120, 1, set())
    assert steps(run.path) == [60, 120]
    files.remove(run.checkpoints / "aside-1")
    checkpoint.prune(run, 120, 1, set())
    assert steps(run.path) == [120]


def test_what_is_kept_aside_is_a_sign_of_checkpoints_and_no_checkpoint(run):
    assert checkpoints.main(["first", "restore", "60"]) == 0
    checkpoint.sweep(run)
    assert [p.name for p in aside.folders(run)] == ["aside-1"] and steps(run.path) == [20, 40, 60]
    for path in records.checkpoints(run):
        shutil.rmtree(path)
    run.status.unlink()
    run.metrics.unlink()
    with pytest.raises(Failure, match="checkpoints/ holds aside-1"):
        checkpoint.newest_valid(run)


def test_going_back_to_the_newest_or_a_damaged_one(run, capsys):
    before = tree(run.path)
    assert checkpoints.main(["first", "restore", "80"]) == 0
    assert "nothing to restore" in capsys.readouterr().out
    flip(run.checkpoint(20) / "state.json")
    assert refused("first", "restore", "20").code == 65
    flip(run.checkpoint(20) / "state.json")
    run.path.joinpath(".lock").unlink()
    assert tree(run.path) == before


def test_going_back_past_a_damaged_one(run, capsys):
    flip(run.checkpoint(80) / "state.json")
    assert checkpoints.main(["first", "restore", "60"]) == 0
    assert checkpoint.newest_valid(run) == run.checkpoint(60) and capsys.readouterr().err == ""
    assert checkpoints.main(["first", "restore", "aside-1"]) == 0
    assert "falling back" in capsys.readouterr().err and steps(run.path) == [20, 40, 60, 80]


def test_going_back_to_what_is_anothers(run):
    """A parent's best, which a fork has a copy of; and the checkpoint of a run with other settings."""
    begun = json.loads(run.plan.read_text())
    fork = {"run": "runs/whole", "step": 40}
    run.plan.write_text(json.dumps(begun | {"fork": fork}))
    assert refused("first", "restore", "20").line() == (
        "relaunch: 64 step 20 of runs/first is its parent's: it was forked from runs/whole@40; "
        "begin there again: --fork runs/whole@20"
    )
    run.config.write_text(json.dumps(json.loads(run.config.read_text()) | {"lr": 7.0}))
    assert (
        "says --lr 7.0, and runs/first/checkpoints/step-000000040 was"
        in refused("first", "restore", "40").what
    )


@pytest.mark.parametrize(
    "argv, code, says",
    [
        ("first restore", 64, "restore needs one step; relaunch checkpoints first lists them"),
        (
            "first restore 41",
            65,
            "runs/first has no checkpoint of step 41; it has 40, 60, 20, 80",
        ),
        ("first restore bset", 64, "'bset' is not a step; did you mean best? there are best, 20, 40, 60, 80"),
        ("first restore aside-1", 65, "runs/first has no aside-1; nothing of it is kept aside"),
        ("first prune", 64, "prune needs --keep N, which is at least 1; add --keep 1, for example"),
        ("first prune --keep 0", 64, "prune needs --keep N, which is at least 1; add --keep 1, for example"),
        ("first ls --keep 1", 64, "--keep and --dry-run go with prune"),
        ("first ls 40", 64, "ls takes no step; verify and restore do"),
        ("verify first 40", 64, "the run comes before verify; type relaunch checkpoints first verify 40"),
        ("frist", 65, "no run or checkpoint 'frist'; did you mean first? runs here: first"),
    ],
)
def test_mistakes_are_one_line(run, argv, code, says):
    assert refused(*argv.split()).line() == f"relaunch: {code} {says}"


# kill -9 --------------------------------------------------------------------------------------------------

CALLS = [(os, "fsync"), (os, "rename"), (os, "replace"), (os, "unlink"), (os, "mkdir"), (files, "remove")]


@pytest.mark.slow
def test_killed_at_any_moment_of_a_restore_and_of_its_undoing(run, tmp_path, capfd):
    """A valid checkpoint is there each time, none is lost, and the same command again does it."""
    whole = tmp_path / "whole"
    shutil.copytree(run.path, whole)
    for undoes in (False, True):
        moment, alive = 0, True
        while alive:
            shutil.rmtree(run.path)
            shutil.copytree(whole, run.path)
            if undoes:
                checkpoints.main(["first", "restore", "40"])
            argv = ["first", "restore", "aside-1" if undoes else "40"]
            alive = killed(moment, CALLS, lambda: checkpoints.main(argv))
            assert checkpoint.newest_valid(run)
            there = [
                path for folder in (run.checkpoints, *aside.folders(run)) for path in records.within(folder)
            ]
            assert sorted(map(records.step_of, there)) == [20, 40, 60, 80], moment
            if undoes and (run.checkpoints / "aside-1").exists() or not undoes:
                checkpoints.main(argv)
            assert steps(run.path) == ([20, 40, 60, 80] if undoes else [20, 40]), moment
            if not undoes:
                checkpoints.main(["first", "restore", "aside-1"])
            assert not aside.folders(run) and steps(run.path) == [20, 40, 60, 80], moment
            assert run.metrics.read_bytes() == (whole / "metrics.jsonl").read_bytes(), moment
            moment += 1
        assert moment > 8


# a real training ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_goes_on_from_where_it_was_restored(train, relaunch_env, capsys):
    """It ends as it did before; and what was kept aside can be taken up again."""
    assert train(*NET, "--run", "first") == 0
    run = RunDir(relaunch_env / "runs/first")
    before, bytes_before = outcome(run.path), tree(run.checkpoints)
    assert checkpoints.main(["first", "restore", "12"]) == 0
    capsys.readouterr()
    assert train("cifar10", "--run", "first", "--resume", "auto") == 0
    told = capsys.readouterr()
    assert "resumed from step 12" in told.out and "falling back" not in told.err
    assert outcome(run.path) == before
    assert checkpoints.main(["first", "restore", "aside-1"]) == 0
    assert tree(run.checkpoints) | bytes_before == tree(run.checkpoints)
    capsys.readouterr()
    assert train("cifar10", "--run", "first", "--resume", "auto") == 0
    assert "finished already, at step 36/36" in capsys.readouterr().out
    assert json.loads(run.status.read_text())["state"] == "done"
