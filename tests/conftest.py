"""Shared by the tests of training: tiny packed sets, trainings in this process, and real processes."""

import gc
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

import trainers  # noqa: F401, TID251  makes `relaunch` this checkout, whatever else is installed
from relaunch.trainers import workloads
from relaunch.trainers.workloads import own
from rigs import REPOSITORY
from rigs.processes import Process
from rigs.sets import SHAPES, pack_images, pack_text

pytest_plugins = ["rigs.tiers"]
os.environ["OMP_NUM_THREADS"] = (
    "1"  # with more threads than cores, several tests at once take three times as long
)
# ignored in what a shell starts with `&`, or nohup, and then in every process below: a handler ends with exec
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, lambda *_: None)
ENGINES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "CUDA_VISIBLE_DEVICES",
)


def pytest_addoption(parser):
    parser.addoption("--snapshot-update", action="store_true", help="write tests/snapshots anew")


def pytest_configure(config):
    """`relaunch` is this checkout in programs that tests start, too, whatever else is installed."""
    folder = tempfile.TemporaryDirectory(prefix="relaunch-tests-")
    config.add_cleanup(folder.cleanup)
    Path(folder.name, "relaunch").symlink_to(REPOSITORY)
    os.environ["PYTHONPATH"] = f"{folder.name}{os.pathsep}{REPOSITORY}"


@pytest.fixture(autouse=True)
def no_workload_is_left():
    """A process of its own would end here: no workload of somebody's own is registered, or on sys.path."""
    yield
    if workloads._own:
        own.forget()
        workloads._own.clear()
        sys.dont_write_bytecode = False
    for name in [name for name in sys.modules if name.startswith("relaunch_own_")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def sets(tmp_path_factory) -> Path:
    """A data root that holds a tiny set for every workload, under the name of the workload's own."""
    root = tmp_path_factory.mktemp("data")
    for work in map(workloads.load, workloads.names()):
        if work.task.kind == "text":
            pack_text(root / work.data)
        else:
            pack_images(root / work.data, SHAPES.get(work.data, (32, 32, 3)))
    return root


# trainings ----------------------------------------------------------------------------------------


@pytest.fixture
def relaunch_env(sets, tmp_path, monkeypatch) -> Path:
    """An empty working folder, the tiny sets as the data root, none of accelerate's variables; the folder."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n in ENGINES or n.startswith(("ACCELERATE_", "RELAUNCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RELAUNCH_DATA", str(sets))
    return tmp_path


@pytest.fixture
def signals():
    """Stop signals ask to stop, as in a worker; afterwards nobody was asked, and handlers are as before."""
    from relaunch.trainers.group import process

    before = {s: signal.getsignal(s) for s in process.SIGNALS}
    for s in process.SIGNALS:
        signal.signal(s, process._on_signal)
    yield
    process._asked, process._interrupted_at = None, 0.0
    for s, handler in before.items():
        signal.signal(s, handler)


@pytest.fixture
def train(relaunch_env, signals):
    """train("mnist", "--epochs", 1): trains in this process, on one thread; returns the code it ends with.

    A Failure's line is on stderr, as users see it.
    """
    import torch

    from relaunch.data_prep.errors import Failure
    from relaunch.trainers import train as trainer
    from relaunch.trainers.group import process

    threads, raised = torch.get_num_threads(), False

    def run(*argv) -> int:
        nonlocal raised
        process._asked, process._interrupted_at = None, 0.0
        if raised:  # a process's end lets go of the run's lock; here the traceback would hold it
            gc.collect()
        raised = True
        try:
            code = trainer.run([*map(str, argv), "--threads", "1"])[0]
        except Failure as failure:
            print(failure.line(), file=sys.stderr)
            code = failure.code
        if code not in (0, 75):
            gc.collect()
        raised = False
        return code

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def fault():
    """fault("step=7,do=term"): arms this RELAUNCH_FAULT here, in place of what was armed; "" disarms."""
    from relaunch.trainers.group import faults

    yield faults.arm
    faults.arm("")


@pytest.fixture
def at(monkeypatch):
    """at(step, action): does `action(training)` after that optimizer step, where a fault would happen.

    For what needs the training itself; `fault` is for signals, deaths and errors.
    """
    from relaunch.trainers.loop import Training

    actions, advance = {}, Training.advance

    def stepped(training):
        advance(training)
        if training.step in actions:
            actions.pop(training.step)(training)

    monkeypatch.setattr(Training, "advance", stepped)
    return actions.__setitem__


# processes ----------------------------------------------------------------------------------------


@pytest.fixture
def start(relaunch_env):
    """start("mnist", …, processes=2, accelerate="accelerate"): starts a real training (or `module`).

    One thread per process.
    """
    started = []

    def run(*argv, processes: int = 1, accelerate: str = "python", module: str = "trainers.train") -> Process:
        program = ["-m", module, *map(str, argv), "--threads", "1"]
        if accelerate == "accelerate":
            config = REPOSITORY / "accelerate_configs" / ("cpu.yaml" if processes == 1 else "cpu2.yaml")
            count = [] if processes == 1 else ["--num_processes", str(processes), "--main_process_port", "0"]
            program = ["-m", "accelerate.commands.launch", "--config_file", str(config), *count, *program]
        started.append(Process([sys.executable, *program]))
        return started[-1]

    yield run
    for process in started:
        process.kill()


@pytest.fixture
def launch(start):
    """launch("mnist", …, processes=2, accelerate="accelerate"): the same to its end; has code, out, err."""
    return lambda *argv, **how: start(*argv, **how).end()
