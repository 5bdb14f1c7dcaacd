"""Rows of metrics.jsonl that are not those that were logged: a resume says so, and `relaunch runs` does."""

import json

import pytest

from relaunch.data_prep import files
from relaunch.launch import runs
from relaunch.trainers import logged
from relaunch.trainers.rundir import RunDir
from rigs.runs import outcome

NET = "cifar10 --arch net --batch-size 8 --max-steps 16 --save-every 4 --log-interval 2".split()


@pytest.fixture
def run(train, relaunch_env) -> RunDir:
    assert train(*NET, "--run", "run", "--stop-after", 12) == 75
    return RunDir(relaunch_env / "runs/run")


def rewrite(run: RunDir, line: int, new: bytes | None) -> bytes:
    """Replace a line, counted from 1, or drop it; returns what was there."""
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    old = lines[line - 1]
    lines[line - 1 : line] = [new] if new is not None else []
    run.metrics.write_bytes(b"".join(lines))
    return old


def digit(line: bytes) -> bytes:
    """The same row, with another digit: still a number."""
    at = line.index(b'"loss": ') + 10
    return line[:at] + (b"1" if line[at : at + 1] != b"1" else b"2") + line[at + 1 :]


def test_nothing_is_said_of_what_is_sound(run, train, capsys):
    assert logged.changed(run) == ""
    assert train(*NET, "--run", "run", "--resume", "auto") == 0
    assert logged.changed(run) == ""
    assert runs.main_runs([]) == 0
    out, error = capsys.readouterr()
    assert "as logged" not in error


def test_a_digit_is_noticed_and_nothing_lost(run, train, capsys):
    rewrite(run, 5, digit(run.metrics.read_bytes().splitlines(keepends=True)[4]))
    before = run.metrics.read_bytes()
    capsys.readouterr()
    assert runs.main_runs([]) == runs.main_runs(["show", "run"]) == 0
    out, error = capsys.readouterr()
    # line 4 is of step 8, lines 6 and 7 of step 12: between two checkpoints
    assert error == "relaunch: runs/run: lines 5 to 7 of metrics.jsonl are not as logged up to step 12\n"
    assert "changed     lines 5 to 7 of metrics.jsonl are" in out
    assert train(*NET, "--run", "run", "--resume", "auto") == 0
    error = capsys.readouterr().err
    assert error.count("lines 5 to 7 of metrics.jsonl are not as logged up to step 12") == 1
    assert "; training goes on with them as they are" in error
    assert run.metrics.read_bytes().startswith(before)
    assert logged.changed(run) == "", "the next checkpoint seals what is there"


@pytest.mark.parametrize(
    "line, new, said",
    [
        (6, None, "metrics.jsonl lacks rows of line 5 on that were logged up to step 12"),
        (1, b"{}\n", "metrics.jsonl lacks rows of line 1 on that were logged up to step 12"),
    ],
)
def test_rows_that_are_gone(run, line, new, said):
    rewrite(run, line, new)
    assert logged.changed(run) == said


def test_a_file_that_is_gone(run):
    run.metrics.unlink()
    assert logged.changed(run) == "metrics.jsonl lacks rows of line 1 on that were logged up to step 12"


@pytest.mark.parametrize("seal", [None, [], {"bytes": "3"}, {"bytes": True, "sha256": "x"}, "absent"])
def test_a_manifest_without_a_seal_tells_nothing(run, seal):
    """As older versions wrote it, or damaged."""
    for step in (4, 8, 12):
        path = run.checkpoint(step) / "MANIFEST.json"
        manifest = json.loads(path.read_bytes()) | {"metrics": seal}
        if seal == "absent":
            del manifest["metrics"]
        path.write_text(json.dumps(manifest))
    rewrite(run, 1, b"")
    assert logged.changed(run) == ""


def test_a_run_that_fell_back_is_sealed_anew(run, train, relaunch_env, capsys):
    """The rows beyond are cut, and what they were is no complaint."""
    (run.checkpoint(12) / "model.safetensors").write_bytes(b"")
    capsys.readouterr()
    assert train(*NET, "--run", "run", "--resume", "auto", "--stop-after", 11) == 75
    assert "as logged" not in capsys.readouterr().err and logged.changed(run) == ""
    assert train(*NET, "--run", "run", "--resume", "auto") == 0
    assert train(*NET, "--run", "whole") == 0
    assert outcome(run.path)["metrics"] == outcome(relaunch_env / "runs/whole")["metrics"]


def test_a_fork_is_not_asked_for_its_parents_rows(run, train, capsys):
    assert train("cifar10", "--fork", "run@8", "--run", "fork", "--max-steps", 16, "--lr", 0.01) == 0
    assert logged.changed(RunDir(run.path.with_name("fork"))) == ""


def test_a_seal_is_of_what_is_in_the_file(tmp_path):
    """Whoever else wrote to it, and whatever did not fit."""
    path = tmp_path / "rows"
    path.write_bytes(b"first\n")
    file = files.Appended(path)
    for row in (b"second\n", b"third\n"):
        file.keep(row)
    assert file.sealed()["bytes"] == 6
    file.flush()
    assert file.sealed() == {"bytes": 19, "sha256": files.sha256(path)}
    path.write_bytes(b"")  # somebody empties it
    file.keep(b"fourth\n")
    file.flush()
    assert path.read_bytes() == b"fourth\n"
    assert file.sealed() == {"bytes": 7, "sha256": files.sha256(path)}
