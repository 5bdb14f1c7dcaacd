"""Real processes and signals: a worker, and two under accelerate, which honour the contract and no more."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relaunch.launch import accelerate_config, processes
from relaunch.trainers import PROGRAM

# A training without tensors: says where it is in files of its own, takes 50 ms for a step, 0.5 s to save.
WORKER = """
import os, sys, time
folder = sys.argv[1]
rank = os.environ.get("RANK", "0")
def mark(what):
    with open(f"{folder}/{what}-{rank}", "w") as f: f.write(str(os.getpid()))
mark("born")
time.sleep(float(os.environ.get("IMPORTS", 0)))
from relaunch.trainers.group import process
def run(argv):
    from relaunch.data_prep.errors import Failure
    for step in range(int(os.environ.get("STEPS", 10000))):
        if step == 3:
            mark("steps")
            end = os.environ.get("END")
            if end == "fails": raise Failure(65, "the data is bad", "prepare it again")
            if end == "raises": raise RuntimeError("a bug")
            if end == "dies" and rank == "0": os.kill(os.getpid(), 9)
        if process.asked_to_stop():
            mark("saving")
            time.sleep(0.5)
            mark("saved-" + process.asked_to_stop().name)
            return 75, "runs/x"
        time.sleep(0.05)
    return 0, "runs/x"
sys.exit(process.main(run))
"""

LAUNCHER = """
import os, sys
from relaunch.launch import supervise
from relaunch.data_prep.errors import Failure
with supervise.Asked() as asked:
    end = supervise.run(sys.argv[2:], dict(os.environ), sys.argv[1] == "1", asked)
if end.what: print(Failure(end.code, end.what, end.fix).line(), file=sys.stderr)
sys.exit(end.code)
"""


class Group:
    """A launcher with its workers, started for real."""

    def __init__(self, folder: Path, world: int, **environment: str):
        self.folder, self.world = folder, world
        script = folder / "worker.py"
        script.write_text(WORKER)
        command = [sys.executable, str(script), str(folder)]
        if world > 1:
            command = [
                sys.executable,
                "-m",
                "accelerate.commands.launch",
                "--config_file",
                str(accelerate_config.FOLDER / "cpu2.yaml"),
                "--num_processes",
                str(world),
                "--main_process_port",
                "0",
                *command[1:],
            ]
        self.errors = open(folder / "stderr", "w+")
        self.launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, "1" if world == 1 else "0", *command],
            stderr=self.errors,
            env=os.environ | environment,
        )

    def reach(self, what: str) -> list[int]:
        """Wait until every rank has marked `what`; returns their process ids."""
        return [int(wait_for(lambda: read(self.folder / f"{what}-{rank}"))) for rank in range(self.world)]

    def end(self) -> tuple[int, str]:
        """The launcher's code and what it and the others wrote to stderr; asserts that nobody is left."""
        code = self.launcher.wait(timeout=60)
        self.nobody_left()
        self.errors.seek(0)
        return code, self.errors.read()

    def nobody_left(self):
        wait_for(lambda: not living(str(self.folder)))

    def saved(self, by: signal.Signals = signal.SIGTERM) -> bool:
        return all((self.folder / f"saved-{by.name}-{rank}").exists() for rank in range(self.world))


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_for(what, seconds: float = 40):
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def living(word: str) -> list[int]:
    """Processes with this word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


@pytest.fixture
def group(tmp_path):
    made = []

    def make(world: int, **environment):
        made.append(Group(tmp_path, world, **environment))
        return made[-1]

    yield make
    for g in made:
        for pid in [g.launcher.pid, *living(str(g.folder))]:
            processes.tell(pid, signal.SIGKILL)
        g.launcher.wait()
        g.errors.close()


WORLDS = pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])


@WORLDS
@pytest.mark.parametrize("end, code", [("", 0), ("fails", 65)])
def test_the_workers_code_is_ours(group, world, end, code):
    got, errors = group(world, END=end, STEPS="5").end()
    assert got == code and "Traceback" not in errors
    assert errors.count("relaunch: 65 the data is bad; prepare it again") == (code == 65)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP]
)
def test_every_stop_signal_saves(group, number):
    g = group(1)
    g.reach("steps")
    g.launcher.send_signal(number)
    again = "; Ctrl-C again after 2 s to leave now" if number == signal.SIGINT else ""
    assert g.end() == (75, f"relaunch: {number.name}: stopping{again}\n")
    assert g.saved(number), "the worker was told of another signal"


def test_a_stop_reaches_every_worker_and_accelerate_does_not_complain(group):
    g = group(2)
    g.reach("steps")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):  # repeated and mixed: still one
        g.launcher.send_signal(number)
    assert g.end() == (75, "relaunch: SIGUSR1: stopping\n") and g.saved(signal.SIGUSR1)


def test_a_scheduler_that_signals_everybody(group):
    """SLURM sends USR1 to every process of a job, accelerate in between too."""
    g = group(2)
    pids = g.reach("steps")
    parent = processes.children(g.launcher.pid)
    for pid in [g.launcher.pid, *parent, *pids]:
        os.kill(pid, signal.SIGUSR1)
    code, errors = g.end()
    assert code == 75 and "Traceback" not in errors


@WORLDS
def test_a_stop_during_the_imports_waits_for_them(group, world):
    g = group(world, IMPORTS="1")
    g.reach("born")
    g.launcher.send_signal(signal.SIGTERM)
    code, errors = g.end()
    assert code == 75 and g.saved() and "Traceback" not in errors


def test_a_stop_before_accelerate_has_started_anybody(group):
    g = group(2)
    wait_for(lambda: processes.children(g.launcher.pid))
    time.sleep(0.5)
    g.launcher.send_signal(signal.SIGINT)
    code, errors = g.end()
    at_once, last = errors.splitlines()
    assert code == 75 and at_once == "relaunch: SIGINT: stopping; Ctrl-C again after 2 s to leave now"
    assert last.startswith("relaunch: 75 stopped by SIGINT before the first step")


def test_a_second_ctrl_c_leaves_at_once(group):
    g = group(1, IMPORTS="30")
    g.reach("born")
    g.launcher.send_signal(signal.SIGINT)
    g.launcher.send_signal(signal.SIGINT)  # a terminal that repeats
    time.sleep(2.2)
    assert g.launcher.poll() is None
    g.launcher.send_signal(signal.SIGINT)
    before = time.monotonic()
    code, errors = g.end()
    assert code == 130 and time.monotonic() - before < 2 and "left at once" in errors


@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_launcher_leaves_nobody_and_the_workers_save(group, world):
    g = group(world)
    g.reach("steps")
    g.launcher.kill()
    g.nobody_left()
    assert g.saved()


def test_a_killed_accelerate_lets_the_workers_save(group):
    g = group(2)
    g.reach("steps")
    os.kill(processes.children(g.launcher.pid)[0], signal.SIGKILL)
    code, _ = g.end()
    assert code == 75 and g.saved()


@pytest.mark.parametrize(
    "world, end", [(1, "raises"), (1, "dies"), (2, "dies"), pytest.param(2, "raises", marks=pytest.mark.slow)]
)
def test_a_crash_is_one_line_of_ours(group, world, end):
    code, errors = group(world, END=end).end()
    ours = [line for line in errors.splitlines() if line.startswith("relaunch: ")]
    assert len(ours) == 1 and ("crashed" in ours[0] or "SIGKILL" in ours[0])
    assert code == (137 if (end, world) == ("dies", 1) else 1)
    if end == "raises":
        assert "RuntimeError: a bug" in errors


def test_plain_verbs_hand_the_process_over(tmp_path):
    """`relaunch diff` has code and signals of `python -m trainers.diff`: it is the same process."""
    (tmp_path / "trainers").mkdir()
    code = (
        "import sys, launch.__main__ as m; sys.argv = ['relaunch', 'diff', 'a', '--b']\n"
        "import os; os.execv = lambda program, words: print(words) or sys.exit(9)\nm.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        done.returncode == 9
        and json.dumps([PROGRAM, "diff", "a", "--b"])[1:-1].replace('"', "'") in done.stdout
    )
