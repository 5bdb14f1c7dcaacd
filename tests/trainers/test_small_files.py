"""A damaged small file, a link, a late STOP: whoever reads runs passes it by, with one line."""

import json
import os
import socket

import pytest

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.launch import rehearse, runs
from relaunch.trainers import records, rundir
from relaunch.trainers.rundir import RunDir
from rigs.runs import outcome, status

NET = "cifar10 --arch net --batch-size 8 --max-steps 16 --save-every 4 --log-interval 3".split()
ODD = [b"", b"[]", b"[1]", b"null", b"{", b"\xff\xfe", b"[" * 200_000, b'{"seconds": 1e999, "step": true}']
ODD += [b'{"step": ' + b"9" * 400 + b', "total_steps": -1e400, "state": ["x"]}']


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two runs, which do not run."""
    monkeypatch.chdir(tmp_path)
    for name in ("odd", "whole"):
        run = RunDir(tmp_path / "runs" / name)
        run.path.mkdir(parents=True)
        run.config.write_text('{"workload": "mnist"}')
        run.write_status("done", 0, 7)
        run.metrics.write_text('{"step": 7, "split": "val", "top1": 98.5}\n')
    return RunDir(tmp_path / "runs/odd")


KINDS = {
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "circle": lambda path: (path.unlink(), path.symlink_to(path)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", [*ODD, *KINDS])
@pytest.mark.parametrize("name", ["status", "plan", "metrics", "config"])
def test_one_file_spoils_no_table(here, capsys, name, damage):
    path = getattr(here, name)
    path.touch()
    KINDS[damage](path) if damage in KINDS else path.write_bytes(damage)
    assert runs.main_runs([]) == 0
    said = capsys.readouterr()
    assert "whole" in said.out and "top1 98.50 %" in said.out and said.err.count("\n") <= 1
    if os.path.exists(here.config):
        assert "odd" in said.out and runs.main_runs(["show", "odd"]) == 0
    with pytest.raises(Failure) as failure:
        runs.main_stop(["odd"])
    assert failure.value.code in (64, 65) and not here.stop.exists()


@pytest.mark.parametrize("content", [*ODD, None])
@pytest.mark.parametrize("name", ["status", "plan", "config"])
def test_stop_needs_no_more_than_the_folder(here, name, content):
    """Somebody trains it: that is enough, whatever the files say, or that they are gone."""
    here.lock()
    path = getattr(here, name)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    assert runs.main_stop(["odd"]) == 0 and here.stop.exists()
    here._lock.close()


def test_a_resume_passes_damaged_files_by(train, relaunch_env, capsys):
    """And loses none of the records after a broken line."""
    assert train(*NET, "--run", "./whole") == 0
    assert train(*NET, "--run", "./run", "--stop-after", 9) == 75
    run = RunDir(relaunch_env / "run")
    run.status.write_text("[]")
    run.plan.write_text("[1]")
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    run.metrics.write_bytes(lines[0] + b"\xff\xfe{\n[1]\n" + b"".join(lines[1:]) + b'{"step": 9, "sp')
    capsys.readouterr()
    assert train(*NET, "--run", "./run", "--resume", "auto") == 0
    assert "relaunch: 2 lines of run/metrics.jsonl are no records; left out" in capsys.readouterr().err
    assert outcome(run.path) == outcome(relaunch_env / "whole")


def test_an_interval_that_is_not_the_checkpoints_is_said(train, relaunch_env, capsys):
    """By a flipped bit, or by a start that was told so: nothing says which."""
    flat = [*NET, "--schedule", "constant"]
    assert train(*flat, "--run", "./run", "--stop-after", 9) == 75
    config = relaunch_env / "run/config.json"
    config.write_text(config.read_text().replace('"max_steps": 16', '"max_steps": 12'))
    capsys.readouterr()
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0
    said = capsys.readouterr().err
    assert "run/config.json says --max-steps 12, step-000000009 was saved with 16; it goes on with 12" in said
    assert train("cifar10", "--run", "./run", "--resume", "auto", "--max-steps", 14) == 0
    assert "--max-steps" not in capsys.readouterr().err


def test_a_length_that_a_schedule_depends_on_is_refused(train, relaunch_env, capsys):
    """It would train other weights in silence."""
    assert train(*NET, "--schedule", "cosine", "--run", "./run", "--stop-after", 9) == 75
    config = relaunch_env / "run/config.json"
    config.write_text(config.read_text().replace('"max_steps": 16', '"max_steps": 17'))
    capsys.readouterr()
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 65
    said = capsys.readouterr().err
    assert (
        "65 run/config.json says --max-steps 17, and run/checkpoints/step-000000009 was trained with" in said
    )


# STOP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["done", "stopped"])
def test_a_stop_that_comes_too_late_ends_nothing(here, end):
    """Before its last word: the run removes it. After it: `stop` sees that."""
    here.lock()
    here.write_status("running", step=7)
    assert runs.main_stop(["odd"]) == 0
    here.write_status(end, 0, 8)
    assert not here.stop.exists()
    here._lock.close()
    with pytest.raises(Failure):
        runs.main_stop(["odd"])
    assert not here.stop.exists()


def test_a_run_that_ends_while_it_is_being_asked(here, monkeypatch):
    here.lock()
    here.write_status("running", step=7)
    write = files.write_atomic

    def overtaken(path, content):
        monkeypatch.setattr(files, "write_atomic", write)
        here.write_status("done", 0, 8)
        here._lock.close()
        write(path, content)

    monkeypatch.setattr(files, "write_atomic", overtaken)
    with pytest.raises(Failure, match="has just ended: it is done"):
        runs.main_stop(["odd"])
    assert not here.stop.exists()


def test_a_stop_at_the_last_step(train, relaunch_env, at):
    at(16, lambda training: training.run.stop.touch())
    assert train(*NET, "--run", "./run") == 0
    assert not (relaunch_env / "run/STOP").exists() and status(relaunch_env / "run")["state"] == "done"


# links, leftovers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "status.json", "config.json", "plan.json"])
def test_no_link_in_a_runs_folder_is_written_through(train, relaunch_env, name):
    assert train(*NET, "--run", "./run", "--stop-after", 9) == 75
    path, mine = relaunch_env / "run" / name, relaunch_env / "mine"
    os.replace(path, mine)
    path.symlink_to(mine)
    before = mine.read_bytes()
    code = train(*NET, "--run", "./run", "--resume", "auto")
    assert mine.read_bytes() == before and code == (73 if name == ".lock" else 0)
    assert path.is_symlink() == (name == ".lock")


def test_a_half_written_file_of_a_process_with_our_number(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f".x.{os.getpid()}.part").symlink_to("mine")
    files.write_atomic(tmp_path / "x", "new")
    assert (tmp_path / "mine").read_text() == "precious" and (tmp_path / "x").read_text() == "new"


def test_rehearsals_that_were_killed_are_swept(tmp_path):
    mark = f".rehearsal-{socket.gethostname()}-"
    for name in (f"{mark}{2**22 + 1}-a", f"{mark}{os.getpid()}-b", ".rehearsal-elsewhere-1-c", "run"):
        (tmp_path / name).mkdir()
    assert rehearse.sweep(tmp_path) == f"{mark}{os.getpid()}-"
    assert records.names(tmp_path) == sorted([f"{mark}{os.getpid()}-b", ".rehearsal-elsewhere-1-c", "run"])


def test_a_run_that_goes_while_it_is_listed(here, monkeypatch):
    monkeypatch.setattr(RunDir, "begun", lambda run: True)
    here.config.unlink()
    assert {run.path.name for run in rundir.runs()} == {"odd", "whole"}
    assert json.loads(here.status.read_text())["state"] == "done"
