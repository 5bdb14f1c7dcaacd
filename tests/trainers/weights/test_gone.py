"""Checkpoints damaged, gone, elsewhere or another's: a run falls back loudly, or is left as it is."""

import json
import os
import shutil
import subprocess

import pytest

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.launch import checkpoints
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.source import open_source
from rigs.disks import Limit
from rigs.runs import outcome, steps, tree

NET = ["cifar10", "--arch", "net", "--batch-size", 8, "--max-steps", 20, "--save-every", 4]


def flip(path, byte: int):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


def test_a_run_goes_on_from_the_newest_valid_one(train, relaunch_env, capsys):
    assert train(*NET, "--run", "./whole") == 0
    assert train(*NET, "--run", "./run", "--stop-after", 13) == 75
    assert steps(relaunch_env / "run") == [8, 12, 13]
    for step in (12, 13):
        flip(relaunch_env / f"run/checkpoints/step-{step:09d}/model.safetensors", 9000)
    assert train(*NET, "--run", "./run", "--resume", "auto") == 0
    out, error = capsys.readouterr()
    assert error.count("falling back to an older checkpoint") == 2 and "resumed from step 8" in out
    assert outcome(relaunch_env / "run") == outcome(relaunch_env / "whole")
    assert 8 in steps(relaunch_env / "run"), "what was resumed from is kept until the next start"


def test_a_run_with_no_valid_one_stops_and_deletes_nothing(train, relaunch_env, capsys):
    assert train(*NET, "--run", "./run", "--stop-after", 8) == 75
    for step in (4, 8):
        os.truncate(relaunch_env / f"run/checkpoints/step-{step:09d}/optimizer.safetensors", 5000)
    before = tree(relaunch_env / "run")
    assert train(*NET, "--run", "./run", "--resume", "auto") == 65
    assert "relaunch: 65 none of the 2 checkpoints in run/checkpoints is valid" in capsys.readouterr().err
    assert tree(relaunch_env / "run") == before


# gone -----------------------------------------------------------------------------------------------------


def unmounted(run):
    """What a scratch disk held, on which the checkpoints lay."""
    os.rename(run / "checkpoints", run.parent / "scratch")
    (run / "checkpoints").symlink_to("nowhere")


def without_status(run):
    shutil.rmtree(run / "checkpoints")
    (run / "status.json").unlink()


def only_predictions(run):
    without_status(run)
    (run / "metrics.jsonl").unlink()


def only_leftovers(run):
    os.rename(run / "checkpoints/step-000000008", run / "checkpoints/.step-000000008.gone")
    shutil.rmtree(run / "checkpoints/step-000000004")
    for name in ("status.json", "metrics.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "predictions")


def a_file(run):
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("")


def old_status(run):
    """As a version wrote it that did not say what was saved."""
    shutil.rmtree(run / "checkpoints")
    told = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({k: v for k, v in told.items() if k != "saved"}))
    (run / "metrics.jsonl").unlink()


GONE = (unmounted, without_status, only_predictions, only_leftovers, a_file, old_status)


@pytest.mark.parametrize("lose", GONE, ids=lambda lose: lose.__name__)
def test_a_run_that_had_checkpoints_never_starts_afresh(train, relaunch_env, capsys, lose):
    """Whatever says that there was one; and everything stays as it is."""
    assert train(*NET, "--log-interval", 3, "--run", "./run", "--stop-after", 8) == 75
    assert train("cifar10", "--resume", "./run", "--evaluate") == 0
    lose(relaunch_env / "run")
    before = tree(relaunch_env / "run")
    capsys.readouterr()
    for _ in range(2):
        assert train(*NET, "--run", "./run", "--resume", "auto") == 65
        error = capsys.readouterr().err
        assert (
            error.startswith("relaunch: 65 run had checkpoints, and none is there (")
            and error.count("\n") == 1
        )
        assert "; mount or copy back what held them, or start a new --run; nothing here was changed" in error
    assert tree(relaunch_env / "run") == before
    if lose is unmounted:
        (relaunch_env / "run/checkpoints").unlink()
        (relaunch_env / "scratch").rename(relaunch_env / "run/checkpoints")
        assert train(*NET, "--run", "./run", "--resume", "auto") == 0


@pytest.mark.parametrize("at", [2, 4, 9])
def test_a_crash_before_the_first_checkpoint_starts_again(train, relaunch_env, fault, at):
    """Its rows of metrics are no sign of one, nor are those of the very step that was not committed."""
    command = [*NET[:-1], 9, "--log-interval", 1, "--run", "./run", "--resume", "auto"]
    fault(f"save={at},do=raise" if at == 9 else f"step={at},do=raise")
    with pytest.raises(RuntimeError):
        train(*command)
    fault("")
    assert train(*command) == 0


@pytest.fixture
def small_disk(tmp_path):
    limit = Limit(tmp_path)
    yield limit
    limit.end()


def test_a_run_of_which_no_checkpoint_ever_fitted_begins_again(
    train, relaunch_env, small_disk, fault, capsys
):
    """Its status says that none was saved: what it logged is no sign of one, up to the next that was due."""
    command = [*NET, "--log-interval", 1, "--run", "./run", "--resume", "auto"]
    assert train(*NET, "--log-interval", 1, "--run", "./whole") == 0
    small_disk.fill()
    fault("step=11,do=raise")
    with pytest.raises(RuntimeError):
        train(*command)
    small_disk.free()
    fault("")
    run = RunDir(relaunch_env / "run")
    status = json.loads(run.status.read_bytes())
    assert (status["saved"], steps(run.path), max(r["step"] for r in records.metrics(run))) == (0, [], 10)
    # as a kill had left it
    run.status.write_text(json.dumps(status | {"state": "running", "code": None, "step": 8}))
    capsys.readouterr()
    assert train(*command) == 0
    error = capsys.readouterr().err
    said = "run has no checkpoint yet; it begins again, and what it logged up to step 10 is dropped"
    assert error == f"relaunch: {said}\n"
    assert outcome(run.path) == outcome(relaunch_env / "whole")


@pytest.mark.slow
def test_and_so_when_it_was_killed(launch, relaunch_env, small_disk, monkeypatch):
    command = [*NET, "--log-interval", 1, "--run", "./run", "--resume", "auto"]
    monkeypatch.setenv("RELAUNCH_FAULT", "step=9,do=sleep:3;step=11,do=kill")  # what is beside it ends first
    small_disk.fill()
    killed = launch(*command)
    small_disk.free()
    assert killed.code == -9 and killed.err.count("ALARM: no checkpoint of step") == 2, killed.err
    monkeypatch.delenv("RELAUNCH_FAULT")
    again = launch(*command)
    assert again.code == 0 and "what it logged up to step 10 is dropped" in again.err, again.err


def test_the_newest_is_missed_when_it_is_gone(train, relaunch_env, capsys):
    assert train(*NET, "--run", "./run", "--stop-after", 8) == 75
    shutil.rmtree(relaunch_env / "run/checkpoints/step-000000008")
    assert train(*NET, "--run", "./run", "--resume", "auto") == 0
    error = capsys.readouterr().err
    assert (
        "checkpoint of step 8, of which run/status.json tells, is not there; falling back to step 4" in error
    )


# elsewhere, another's -------------------------------------------------------------------------------------


def swapped(run):
    one, other = run / "step-000000004", run / "step-000000008"
    assert files.exchange(one, other)


def copied(run):
    shutil.copytree(run / "step-000000004", run / "step-99")


def copied_over(run):
    shutil.rmtree(run / "step-000000008")
    shutil.copytree(run / "step-000000004", run / "step-000000008")


@pytest.mark.parametrize("move, good", [(swapped, None), (copied, 8), (copied_over, 4)])
def test_a_name_that_is_not_the_manifests(train, relaunch_env, capsys, move, good):
    assert train(*NET, "--run", "./run", "--stop-after", 8) == 75
    move(relaunch_env / "run/checkpoints")
    code = train(*NET, "--run", "./run", "--resume", "auto", "--stop-after", 9)
    out, error = capsys.readouterr()
    assert "it was renamed, or copied over another" in error
    assert (code, f"resumed from step {good}" in out) == ((75, True) if good else (65, False)), error


def test_another_runs_checkpoints(train, relaunch_env):
    """All whole, under their own names, and none of this run's."""
    assert train(*NET, "--run", "./run", "--stop-after", 8) == 75
    assert train(*NET, "--seed", 5, "--run", "./other", "--stop-after", 8) == 75
    assert files.exchange(relaunch_env / "run/checkpoints", relaunch_env / "other/checkpoints")
    for name in ("./run", "./run@best", "./run@4"):
        with pytest.raises(Failure, match="config.json says --seed 1, and .* was trained with 5") as failure:
            open_source(name)
        assert failure.value.code == 65
    assert train(*NET, "--run", "./run", "--resume", "auto") == 65


def test_a_copy_elsewhere_may_have_any_name(train, relaunch_env):
    assert train(*NET, "--run", "./run", "--stop-after", 8) == 75
    shutil.copytree(relaunch_env / "run/checkpoints/step-000000008", relaunch_env / "best model")
    assert open_source("./best model").step == 8


# odd ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(train, relaunch_env) -> RunDir:
    assert train(*NET, "--run", "./run", "--stop-after", 8) == 75
    return RunDir(relaunch_env / "run")


def changed(**values):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


ODD = {
    "no files": changed(files=None),
    "a list of files": changed(files=[]),
    "files of nothing": changed(files={name: None for name in checkpoint.FILES}),
    "other files": changed(files={"../../config.json": {"bytes": 1, "sha256": ""}}),
    "a step of words": changed(step="8"),
    "very deep": lambda path: path.write_text("[" * 200_000),
    "a huge number": lambda path: path.write_text('{"schema": ' + "9" * 5000 + "}"),
    "not UTF-8": lambda path: path.write_bytes(b'{"schema": "\xff"}'),
    "a list": lambda path: path.write_text("[1]"),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link in a circle": lambda path: (path.unlink(), path.symlink_to(path)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["MANIFEST.json", "state.json"])
@pytest.mark.parametrize("damage", ODD.values(), ids=ODD)
def test_an_odd_manifest_is_passed_over(run, capsys, damage, name):
    damage(run.checkpoint(8) / name)
    capsys.readouterr()
    assert checkpoint.newest_valid(run) == run.checkpoint(4)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "falling back to an older checkpoint" in error


def test_pruned_between_any_two_looks(run, monkeypatch):
    """A reader beside a training: it finds what came, or says that it went; a traceback it is never."""

    def training(path):
        monkeypatch.setattr(checkpoint, "verify", verify)
        os.rename(run.checkpoint(8), run.checkpoints / ".step-000000008.gone")
        if later.exists():
            later.rename(run.checkpoint(12))
        return verify(path)

    verify, later = checkpoint.verify, run.path / "later"
    shutil.copytree(run.checkpoint(8), later)
    for name in ("MANIFEST.json", "state.json"):
        changed(step=12)(later / name)
    facts = {
        n: {"bytes": (later / n).stat().st_size, "sha256": files.sha256(later / n)} for n in checkpoint.FILES
    }
    changed(files=facts)(manifest := later / "MANIFEST.json")
    changed(sha256=checkpoint.itself(json.loads(manifest.read_text())))(manifest)
    monkeypatch.setattr(checkpoint, "verify", training)
    assert checkpoint.newest_valid(run) == run.checkpoint(12)

    source = open_source(str(run.path))
    flip(run.checkpoint(12) / "model.safetensors", 3)  # half of it is gone already
    with pytest.raises(Failure, match="cannot be read any more"):
        source.weights()


def test_an_older_checkpoint_of_another_run_is_not_taken(run, train, capsys):
    assert train(*NET, "--run", "./other", "--seed", 5, "--stop-after", 8) == 75
    shutil.rmtree(run.checkpoint(4))
    shutil.copytree(RunDir(run.path.with_name("other")).checkpoint(4), run.checkpoint(4))
    with pytest.raises(Failure, match=r"config\.json says --seed 1, and .*step-000000004 was trained with 5"):
        open_source(f"{run.path}@4")
    with pytest.raises(Failure, match="step-000000004 of .* is damaged") as refused:
        checkpoints.main([str(run.path), "verify"])
    assert refused.value.fix == "a resume takes step 8"
    assert "was trained with 5" in capsys.readouterr().out


# config.json ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["", "[1]", "{", None, b"\xff\xfe"])
def test_a_config_beside_whole_checkpoints_comes_back(run, train, capsys, damage):
    """The line holds a command that can be typed as it is."""
    whole = run.config.read_bytes()
    run.config.unlink()
    if damage is not None:
        run.config.write_bytes(damage.encode() if isinstance(damage, str) else damage)
    for resume in (["--resume", "auto"], ["--resume", "auto", "--max-steps", 30]):
        capsys.readouterr()
        assert train("cifar10", "--run", "./run", *resume) == 65
    error = capsys.readouterr().err
    assert error.startswith("relaunch: 65 cannot read run/config.json (") and error.count("\n") == 1
    subprocess.run(["sh", "-c", error[error.index("python3 -c") :].strip()], check=True)
    assert json.loads(run.config.read_bytes()) == json.loads(whole)
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0
    assert records.newest(run) == 20
