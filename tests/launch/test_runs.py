"""`relaunch runs`, `stop`, and starting again after a crash: on invented folders, and on real trainings."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch import accelerate_config, plan, processes, restart, runs, supervise
from relaunch.launch.facts import Facts
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

ROOT = str(accelerate_config.FOLDER.parent)


def invent(
    folder, name: str, state: str, step: int, top1: float | None = None, host: str = "elsewhere"
) -> RunDir:
    run = RunDir(folder / "runs" / name)
    (run.checkpoints / f"step-{step:09d}").mkdir(parents=True)
    (run.checkpoints / f"step-{step:09d}" / "MANIFEST.json").write_text("{}")
    run.config.write_text('{"workload": "mnist", "data": "digits"}')
    run.plan.write_text(
        json.dumps(
            {
                "command": ["trainers.train", "mnist", "-b", "8"],
                "config": "cpu",
                "world": 1,
                "device": "cpu",
                "total_steps": 50,
                "host": host,
                "precision": "no",
            }
        )
    )
    run.status.write_text(json.dumps({"state": state, "step": step, "code": None, "reason": ""}))
    rows = [{"step": step, "split": "train", "loss": 1.0}] + (
        [{"step": step, "split": "val", "top1": top1}] if top1 else []
    )
    run.metrics.write_text(
        "".join(json.dumps(r) + "\n" for r in rows) + '{"step": 99, "spl'
    )  # a line being written
    return run


def test_runs_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert runs.main_runs([]) == 0 and "no runs" in capsys.readouterr().out
    invent(tmp_path, "a", "done", 50, 98.5)
    invent(tmp_path, "b", "running", 1200)
    assert runs.main_runs([]) == 0
    head, a, b = capsys.readouterr().out.splitlines()
    assert head.split() == "run state step metric batch samples/s time config".split()
    assert "done" in a and "50/50" in a and "top1 98.50 %" in a and "running" in b and "1,200/50" in b
    assert runs.main_runs(["show", "a"]) == 0
    text = capsys.readouterr().out
    assert "mnist -b 8" in text and "50 (0.0 MB)" in text and "1 x cpu" in text and "go on" not in text


def test_batch_and_speed_are_listed_and_what_came_to_nothing_can_be_hidden(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, state, step in (("good", "done", 50), ("bad", "failed", 9), ("empty", "preempted", 0)):
        run = invent(tmp_path, name, state, step)
        run.config.write_text('{"workload": "mnist", "data": "digits", "batch_size": 1024}')
        run.metrics.write_text('{"step": 9, "split": "train", "samples_per_s": 2345.6}\n')
    rows = '{"step": 9, "split": "train", "epoch_loss": 1.0}\n{"step": 9, "split": "val", "top1": 50.0}\n'
    with open(tmp_path / "runs/good/metrics.jsonl", "a") as metrics:
        metrics.write(rows)
    (tmp_path / "runs/empty/metrics.jsonl").write_text("")
    runs.main_runs([])
    listed = capsys.readouterr().out
    assert listed.count("1,024") == 3 and listed.count("2,346") == 2 and "bad" in listed
    runs.main_runs(["--hide-failed"])
    told = capsys.readouterr()
    assert "good" in told.out and "bad" not in told.out and "empty" not in told.out
    assert told.err == "2 of 3 runs are hidden: they failed, or have no step\n"


def test_a_run_that_nobody_trains_has_crashed(tmp_path, monkeypatch, capsys):
    import socket

    monkeypatch.chdir(tmp_path)
    run = invent(tmp_path, "a", "running", 7, host=socket.gethostname())
    assert runs.summarise(run).state == "crashed"
    run.lock()
    assert runs.summarise(run).state == "running"
    runs.main_stop(["a"])
    assert run.stop.exists()
    run._lock.close()
    runs.main_runs(["show", "a"])
    assert "--run runs/a --resume auto" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [b"[]", b"[1]", b"\xff\xfe", b'{"step": "x", "total_steps": [], "state": 1}']
)
def test_a_run_with_odd_files_hides_no_other(tmp_path, monkeypatch, capsys, content):
    monkeypatch.chdir(tmp_path)
    run = invent(tmp_path, "odd", "done", 50, 98.5)
    invent(tmp_path, "whole", "done", 50, 98.5)
    for path in (run.status, run.plan, run.config):
        path.write_bytes(content)
    run.metrics.write_bytes(content + b"\n[]\n" + run.metrics.read_bytes())
    assert runs.main_runs([]) == 0
    listed = capsys.readouterr().out
    assert "unknown" in listed and listed.count("top1 98.50 %") == 2 and "whole" in listed
    assert runs.main_runs(["show", "odd"]) == 0
    shown = capsys.readouterr().out
    assert ("config.json, plan.json, status.json, " in shown) == (b"{" not in content)
    assert " of metrics.jsonl cannot be read" in shown
    with pytest.raises(Failure):
        runs.main_stop(["odd"])
    assert restart.crash("w", run) == restart.Crash("w", None, 50)
    restart.note(run, supervise.End(76, what="w"))


def test_the_time_goes_on_at_a_resume(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = invent(tmp_path, "a", "done", 50)
    run.status.write_text(json.dumps(records.status(run) | {"seconds": 3725.0}))
    run.config.touch()  # as a resume does
    runs.main_runs([])
    assert "1 h 02 min" in capsys.readouterr().out


@pytest.mark.parametrize("name, code", [("a", 64), ("nope", 65), ("data", 65)])
def test_stopping_nothing_is_one_line(tmp_path, monkeypatch, name, code):
    monkeypatch.chdir(tmp_path)
    invent(tmp_path, "a", "done", 50)
    (tmp_path / "data").mkdir()
    with pytest.raises(Failure) as caught:
        runs.main_stop([name])
    assert caught.value.code == code and not list(tmp_path.glob("**/STOP"))


# A worker that commits a checkpoint and dies, as often as it is told; then it ends well.
DYING = """
import json, os, sys
from pathlib import Path
run, deaths, progress = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "progress"
n = len(list(run.glob("start-*")))
(run / f"start-{n}").write_text(" ".join(sys.argv[4:]))
(run / "config.json").write_text("{}")
step = run / "checkpoints" / f"step-{n if progress else 0:09d}"
step.mkdir(parents=True, exist_ok=True)
(step / "MANIFEST.json").write_text("{}")
if n < deaths: os.kill(os.getpid(), 11)
Path(os.environ["RELAUNCH_OUTCOME"]).write_text(json.dumps({"code": 0, "run": str(run)}))
"""


@pytest.mark.parametrize(
    "deaths, progress, code, starts",
    [(0, "none", 0, 1), (2, "none", 0, 3), (9, "none", 139, 3), (4, "progress", 0, 5)],
)
def test_a_crashed_group_is_started_again(tmp_path, deaths, progress, code, starts):
    """Twice without a new checkpoint, here; as often as needed with one."""
    cpu = accelerate_config.read("cpu")
    todo = plan.make("train", [], cpu, cpu, Facts(), place=plan.Place(run=str(tmp_path)))
    code_ = (
        f"import dataclasses, sys; sys.path.insert(0, {ROOT!r})\n"
        "from relaunch.launch import restart, plan, accelerate_config\n"
        "from relaunch.launch.facts import Facts; from relaunch.trainers.rundir import RunDir\n"
        "cpu = accelerate_config.read('cpu'); todo = plan.make('train', [], cpu, cpu, Facts())\n"
        f"command = (sys.executable, '-c', {DYING!r}, {str(tmp_path)!r}, '{deaths}', '{progress}')\n"
        "todo = dataclasses.replace(todo, command=command)\n"
        f"end = restart.run_with_restarts(todo, RunDir({str(tmp_path)!r}), 2)\n"
        "print(end.what, end.fix); sys.exit(end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code_], capture_output=True, text=True)
    assert (done.returncode, len(list(tmp_path.glob("start-*")))) == (code, starts), done.stderr
    assert (tmp_path / "start-0").read_text() == ""
    if starts > 1:
        assert (tmp_path / f"start-{starts - 1}").read_text() == "--resume auto"
        assert f"killed by SIGSEGV; starting again from step 0 of {tmp_path} (1 of 2)" in done.stderr
    if code:
        assert "2 restarts brought no new checkpoint" in done.stdout and "--resume auto" in done.stdout
    assert todo.place.run == str(tmp_path)


# real trainings -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    assert finish(relaunch(folder, "prep", "digits"))[0] == 0  # what is refused may be refused for its size
    return folder


def relaunch(here, *argv: str, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch", *argv],
        cwd=here,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | kwargs,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    text, _ = process.communicate(timeout=200)
    return process.returncode, text


def wait_for(what, seconds=120):
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def test_one_real_training_is_killed_restarted_and_stopped(here):
    """SIGKILL of the worker: started again from its checkpoint. Then `relaunch stop`: saved, 78."""
    run = RunDir(here / "runs" / "first")
    training = relaunch(
        here,
        "train",
        "mnist",
        "--data",
        "digits",
        "--config",
        "cpu",
        "--epochs",
        "500",
        "--run",
        "first",
        "--save-every",
        "4",
        "--threads",
        "1",
    )
    wait_for(lambda: (records.newest(run) or 0) >= 4)
    first = json.loads(run.status.read_text())["pid"]
    assert first in processes.children(training.pid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: json.loads(run.status.read_text())["pid"] != first)
    kept = records.newest(run)
    wait_for(lambda: records.newest(run) > kept)
    assert finish(relaunch(here, "stop", "first"))[0] == 0
    code, text = finish(training)
    assert code == 78, text
    assert "relaunch: killed by SIGKILL" in text and "(1 of 3)" in text and "resumed from step" in text
    assert json.loads(run.status.read_text())["state"] == "stopped" and not run.stop.exists()
    listed = finish(relaunch(here, "runs"))[1]
    assert "first" in listed and "stopped" in listed
    dry = finish(
        relaunch(here, "train", "mnist", "--config", "cpu", "--run", "first", "--resume", "auto", "--dry-run")
    )
    assert (
        dry[0] == 0
        and f"goes on from its checkpoint of step {records.newest(run):,}" in dry[1]
        and "1,437 train" in dry[1]
    )


def test_a_refused_start_leaves_no_folder(here):
    before = sorted(p.name for p in (here / "runs").glob("*"))
    for argv, code in (
        (["--config", "8gpu"], 69),
        (["-b", "2000", "--data", "digits"], 64),
        (["--data", "nowhere"], 65),
    ):
        got, text = finish(relaunch(here, "train", "mnist", "--config", "cpu", *argv))
        assert got == code and text.count("\n") == 1, text
    assert sorted(p.name for p in (here / "runs").glob("*")) == before


@pytest.mark.slow
def test_eight_gpus_on_a_laptop(here):
    code, text = finish(
        relaunch(
            here,
            "train",
            "mnist",
            "--data",
            "digits",
            "--config",
            "8gpu",
            "--emulate",
            "--max-steps",
            "3",
            "--run",
            "e8",
        )
    )
    plan_ = json.loads((here / "runs/e8/plan.json").read_text())
    assert code == 0 and (plan_["world"], plan_["device"], plan_["config"]) == (8, "cpu", "8gpu"), text
    assert "64 = 8 processes x 8" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv, code, says",
    [
        (["--config", "cpu"], 0, "1 x cpu in fp32 met, took 2 steps, saved and loaded"),
        (["mnist", "--data", "digits", "--config", "cpu2"], 0, "2 x cpu in fp32 met"),
        (["--config", "8gpu"], 69, "8gpu needs 8 GPUs"),
        (["--config", "8gpu", "--emulate", "--num-processes", "3"], 0, "3 x cpu in fp32 met"),
        (["mnist", "--data", "nowhere", "--config", "cpu"], 65, "no packed data set 'nowhere'"),
    ],
)
def test_the_doctor_rehearses(here, argv, code, says):
    got, text = finish(relaunch(here, "doctor", *argv))
    assert got == code and says in text, text
    assert not list(here.glob("**/.rehearsal-*"))
