"""The outcome of a group reaches its launcher, and status.json, whatever disk is full and whoever dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from relaunch.launch import processes, restart, supervise
from relaunch.launch.supervise import End
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir
from rigs import REPOSITORY
from rigs.disks import TinyDisk
from rigs.runs import status

# A training without tensors, which ends in every way that there is.
WORKER = """
import os, sys, time
from pathlib import Path
from relaunch.data_prep.errors import Failure
from relaunch.trainers.group import process
from relaunch.trainers.group.process import Lost
from relaunch.trainers.rundir import RunDir
def run(argv):
    run, end = RunDir("run"), os.environ["END"]
    run.path.mkdir(exist_ok=True)
    with open(run.path / "starts", "a") as f: f.write("x")
    run.lock()
    run.write_status("running", step=3)
    if end == "75":
        run.write_status("preempted", 75, 4, "stopped by SIGTERM, and saved")
        return 75, "run"
    if end == "0":
        run.write_status("done", 0, 4, "trained to the end")
        return 0, "run"
    if end == "65":
        raise Failure(65, "the data is bad")  # and nobody has noted it
    if end == "waits":
        open("steps", "x").close()
        time.sleep(60)
    if end == "76":
        raise Lost(76, "rank 0 is missing", "", True)
    if end == "done, killed":
        run.write_status("done", 0, 4, "trained to the end")
        os.kill(os.getpid(), 9)
    os.kill(os.getpid(), int(end))
sys.exit(process.main(run))
"""
LAUNCHER = """
import dataclasses, os, sys
if os.environ.get("WITHOUT_MEMORY"): del os.memfd_create
from relaunch.data_prep.errors import Failure
from relaunch.data_prep.talk import hold, settle, tell
from relaunch.launch import accelerate_config, plan, restart
from relaunch.launch.facts import Facts
from relaunch.trainers import PROGRAM
from relaunch.trainers.rundir import RunDir
cpu = accelerate_config.read(os.environ["CONFIG"])
hold()
todo = plan.make("train", ["mnist", "--resume", "auto"], cpu, cpu, Facts())
todo = dataclasses.replace(todo, variables=todo.variables | {"RELAUNCH_FLAGS": "--config cpu"})
todo = dataclasses.replace(todo, command=(*todo.command[:todo.command.index(PROGRAM)], "worker.py"))
end = restart.run_with_restarts(todo, RunDir("run"), 2)
if end.what: tell(Failure(end.code, end.what, end.fix).line(), sys.stderr)
settle()
sys.exit(end.code)
"""


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "temporary").mkdir()

    def launch(end, config="cpu", **environment):
        return subprocess.run(
            [sys.executable, "-c", LAUNCHER],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ
            | {"END": str(end), "CONFIG": config, "TMPDIR": str(tmp_path / "temporary")}
            | environment,
            timeout=100,
        )

    return launch


@pytest.fixture(params=["full", "missing"])
def temporary(request, tmp_path, launch):
    """A temporary folder in which nothing can be written, or none."""
    if request.param == "missing":
        (tmp_path / "temporary").rmdir()
        yield
        return
    try:
        disk = TinyDisk(tmp_path / "temporary")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    disk.fill()
    yield
    disk.end()


ENDS = [("75", 75), ("0", 0), ("65", 65), ("76", 76), ("done, killed", 0)]


@pytest.mark.parametrize("end, code", ENDS)
def test_no_temporary_folder_is_needed(launch, tmp_path, temporary, end, code):
    done = launch(end)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "run/starts").read_text() == "x", "it was started again"
    assert status(tmp_path / "run")["code"] == code


@pytest.mark.parametrize("end, code", [("75", 75), ("0", 0), ("65", 65)])
def test_without_memory_either_the_status_tells(launch, tmp_path, end, code):
    """Not Linux, and a temporary folder that fills up after the start."""
    full = {"WITHOUT_MEMORY": "1", "TMPDIR": "/dev/null/nowhere"}
    done = launch(end, **full)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "run/starts").read_text() == "x"


@pytest.mark.slow
@pytest.mark.parametrize("end, code", [("75", 75), ("0", 0), ("65", 65)])
def test_two_processes_under_accelerate(launch, tmp_path, temporary, end, code):
    done = launch(end, "cpu2")
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("number, code", [(7, 135), (9, 137), (11, 139)])
def test_a_crash_is_noted_by_whoever_is_left(launch, tmp_path, number, code):
    """SIGBUS, SIGKILL, SIGSEGV: nobody said anything, and `running` is not what it is."""
    done = launch(number)
    assert done.returncode == code and "before the first checkpoint" in done.stderr
    told = status(tmp_path / "run")
    assert (told["state"], told["code"], told["step"]) == ("failed", code, 3)
    assert told["reason"].startswith(f"killed by {signal.Signals(number).name}")


def test_what_a_stop_leads_to_depends_on_how_far_it_is(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    starting = "stopping before the next step: it is still starting"
    assert supervise.stopping(None, "b-0") == "stopping" and supervise.stopping(run, "b-0") == starting
    monkeypatch.setenv("RELAUNCH_START", "a-0")
    run.write_status("running", step=4)
    assert supervise.stopping(run, "b-0") == starting, "that was an earlier start"
    assert supervise.stopping(run, "a-0") == "stopping after this step"


def test_ctrl_c_is_acknowledged_and_the_last_line_goes_on(launch, tmp_path):
    """At once; and who insists is told what to type, and finds the run stopped and not failed."""

    others = set(processes.children(os.getpid()))  # of tests before

    def press_twice():
        while not (tmp_path / "steps").exists():
            time.sleep(0.02)
        (launcher,) = {*processes.children(os.getpid())} - others
        os.kill(launcher, signal.SIGINT)
        time.sleep(supervise.INSISTS + 0.2)
        os.kill(launcher, signal.SIGINT)

    pressing = threading.Thread(target=press_twice)
    pressing.start()
    done = launch("waits")
    pressing.join()
    first, last = done.stderr.splitlines()
    assert first == "relaunch: SIGINT: stopping after this step; Ctrl-C again after 2 s to leave now"
    assert last.endswith("; to go on: relaunch train mnist --config cpu --run ./run --resume auto")
    told = status(tmp_path / "run")
    assert (done.returncode, told["state"], told["code"]) == (130, "preempted", 130)


def test_nothing_is_left_in_the_temporary_folder(launch, tmp_path):
    launch("75")
    launch("75", WITHOUT_MEMORY="1")
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_accelerate_leaves_nothing_there_either(launch, tmp_path):
    assert launch("75", "cpu2").returncode == 75
    assert not list((tmp_path / "temporary").iterdir())


def test_an_outcome_of_another_start_is_none(tmp_path):
    """An old status of `done` does not hide a crash."""
    run = RunDir(tmp_path)
    run.write_status("done", 0, 4, "trained to the end")
    crash = [sys.executable, "-c", "raise SystemExit(1)"]
    with supervise.Asked() as asked:
        end = supervise.run(crash, dict(os.environ), True, asked, run=run)
    assert end.code == 1 and end.crashed


@pytest.mark.parametrize(
    "lines, code",
    [
        ([{"rank": 0, "code": 0, "run": "a"}], 0),
        (
            [{"rank": 1, "code": 76, "what": "w", "fix": ""}, {"rank": 2, "code": 1, "what": "v", "fix": ""}],
            76,
        ),
        ([{"rank": 1, "code": 1, "what": "w", "fix": ""}, {"rank": 0, "code": 65}], 65),
        ([{"rank": 0, "code": 1, "what": "w", "fix": ""}, {"rank": 1, "code": 75}], 1),
        (["", "{", "[1]", '{"code": "x"}', {"rank": 0, "code": 75}], 75),
    ],
)
def test_rank_0_speaks_for_all_unless_it_only_noticed(lines, code):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    assert supervise.judge(1, text, signal.SIGTERM, False).code == code


def test_a_dying_process_holds_its_lock_for_a_while(tmp_path):
    """Of another launcher's start: the status is written once the lock is free."""
    run = RunDir(tmp_path)
    run.write_status("running", step=7)
    hold = "import sys, time; from relaunch.trainers.rundir import RunDir; run = RunDir(sys.argv[1])"
    hold += "; run.lock(); print(1, flush=True); time.sleep(2)"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    with holder.stdout:
        holder.stdout.readline()
        began = time.monotonic()
        restart.note(run, End(76, what="rank 0 is missing"))
        assert time.monotonic() - began > 1 and status(tmp_path)["code"] == 76
        holder.wait()


def test_another_owner_is_left_alone(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    monkeypatch.setenv("RELAUNCH_START", "theirs-0")
    run.write_status("running", step=7)
    before = run.status.read_bytes()
    restart.note(run, End(135, what="killed by SIGBUS", crashed=True), "ours")
    assert run.status.read_bytes() == before
    restart.note(run, End(135, what="killed by SIGBUS", crashed=True), "theirs")
    assert records.status(run)["code"] == 135
