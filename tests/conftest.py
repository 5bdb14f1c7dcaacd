"""Shared by the tests of training: tiny packed sets, trainings in this process, and real processes."""

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from trainers import workloads

# ignored in what a shell starts with `&`, or nohup, and then in every process below: a handler ends with exec
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, lambda *_: None)
REPOSITORY = Path(__file__).resolve().parent.parent
SHAPES = {"mnist": (28, 28, 1)}  # others get 32x32 RGB: Tiny-ImageNet's network takes any size, and half is faster
TRAIN, TEST, WORDS = 96, 23, 50
VOLATILE = ("samples_per_s", "data_wait_share", "peak_memory_mb")  # what two equal trainings may differ in
ENGINES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


# packed sets ------------------------------------------------------------------------------------------------------------


def pack_images(folder: Path, shape, train: int = TRAIN, seed: int = 0) -> None:
    """Noise whose brightness tells the class: easy to learn, also from shifted and mirrored images."""
    from data_prep.packed import Writer

    folder.mkdir(parents=True)
    writer, random = Writer(folder), np.random.default_rng(seed)
    writer.classes = [f"class {i}" for i in range(10)]
    for split, count in (("train", train), ("test", TEST)):
        labels = random.integers(0, 10, count)
        images = (random.integers(0, 28, (count, *shape)) + 25 * labels.reshape(-1, 1, 1, 1)).astype(np.uint8)
        writer.images(split, labels, shape, [(range(count), images)])
    writer.finish(folder.name, "folder", {}, {})


def pack_text(folder: Path, train: int = 2000, seed: int = 0) -> None:
    """A stream in which each word is followed by one of the next two: easy to learn."""
    from data_prep.packed import Writer

    folder.mkdir(parents=True)
    writer, random = Writer(folder), np.random.default_rng(seed)
    streams = {split: np.cumsum(random.integers(1, 3, n)) % WORDS for split, n in (("train", train), ("val", 301), ("test", 170))}
    writer.text(["<unk>", "<eos>", *(f"w{i}" for i in range(WORDS - 2))], streams)
    writer.finish(folder.name, "text", {}, {})


@pytest.fixture(scope="session")
def sets(tmp_path_factory) -> Path:
    """A data root that holds a tiny set for every workload, under the name of the workload's own."""
    root = tmp_path_factory.mktemp("data")
    for work in map(workloads.load, workloads.names()):
        if work.kind == "text":
            pack_text(root / work.data)
        else:
            pack_images(root / work.data, SHAPES.get(work.data, (32, 32, 3)))
    return root


# trainings --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def relaunch_env(sets, tmp_path, monkeypatch) -> Path:
    """An empty working folder, the tiny sets as the data root, and no engine's variables; returns the folder."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n in ENGINES or n.startswith(("ACCELERATE_", "RELAUNCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RELAUNCH_DATA", str(sets))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return tmp_path


@pytest.fixture
def signals():
    """Stop signals ask to stop, as in a worker; afterwards nobody was asked, and handlers are as they were."""
    from trainers import process

    before = {s: signal.getsignal(s) for s in process.SIGNALS}
    for s in process.SIGNALS:
        signal.signal(s, process._on_signal)
    yield
    process._asked, process._interrupted_at = None, 0.0
    for s, handler in before.items():
        signal.signal(s, handler)


@pytest.fixture
def train(relaunch_env, signals):
    """train("mnist", "--epochs", 1): trains in this process, on one thread; returns the code that the process would end with.

    A Failure's line is on stderr, as users see it.
    """
    import torch

    from data_prep.errors import Failure
    from trainers import process
    from trainers import train as trainer

    threads = torch.get_num_threads()

    def run(*argv) -> int:
        process._asked, process._interrupted_at = None, 0.0
        try:
            return trainer.run([*map(str, argv), "--threads", "1"])[0]
        except Failure as failure:
            print(failure.line(), file=sys.stderr)
            code = failure.code
        gc.collect()  # a process's end lets go of the run's lock; here the traceback would hold it
        return code

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def at(monkeypatch):
    """at(step, action): does `action(training)` after that optimizer step, before its boundary."""
    from trainers.loop import Training

    actions, advance = {}, Training.advance

    def stepped(training):
        advance(training)
        if training.step in actions:
            actions.pop(training.step)(training)

    monkeypatch.setattr(Training, "advance", stepped)
    return actions.__setitem__


# what a run left --------------------------------------------------------------------------------------------------------


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def steps(run: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outcome(run: Path) -> dict:
    """Everything that two equal trainings share: the newest checkpoint's bytes and state, and the metrics but for time."""
    newest = run / "checkpoints" / f"step-{steps(run)[-1]:09d}"
    return {"model": sha256(newest / "model.safetensors"), "optimizer": sha256(newest / "optimizer.safetensors"),
            "state": json.loads((newest / "state.json").read_text()),
            "metrics": [{k: v for k, v in r.items() if k not in VOLATILE} for r in records(run)]}


def tree(folder: Path) -> dict:
    """Every file below a folder and its content's hash."""
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# processes --------------------------------------------------------------------------------------------------------------


class Process:
    """A started program whose output is collected; `end` waits for it."""

    def __init__(self, command: list[str]):
        self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.out, self.err, self.changed = "", "", threading.Condition()
        self.readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("out", "err")]
        for reader in self.readers:
            reader.start()

    def _read(self, name: str):
        for line in getattr(self.popen, "std" + name):
            with self.changed:
                setattr(self, name, getattr(self, name) + line)
                self.changed.notify_all()

    def until(self, text: str) -> "Process":
        """Wait until the program has written `text`."""
        with self.changed:
            assert self.changed.wait_for(lambda: text in self.out + self.err, timeout=120), self.out + self.err
        return self

    def listening(self) -> "Process":
        """Wait until SIGTERM has a handler: signals to a program that just began have their default effect."""
        asks, pause = 1 << (signal.SIGTERM - 1), threading.Event()
        for _ in range(3000):
            caught = next(line for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
            if int(caught.split()[1], 16) & asks:
                return self
            pause.wait(0.01)
        raise AssertionError("it never listened")

    def children(self) -> list[int]:
        return [*map(int, Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split())]

    def signal(self, number: int) -> "Process":
        self.popen.send_signal(number)
        return self

    def end(self, timeout: float = 120) -> "Process":
        self.code = self.popen.wait(timeout)
        for reader in self.readers:  # ends when the last process that holds the pipe has ended: workers too
            reader.join(timeout)
            assert not reader.is_alive(), "a process was left behind"
        return self

    def kill(self):
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()


@pytest.fixture
def start(relaunch_env):
    """start("mnist", …, processes=2, engine="accelerate"): starts a real training (or `module`) on one thread per process."""
    started = []

    def run(*argv, processes: int = 1, engine: str = "python", module: str = "trainers.train") -> Process:
        program = ["-m", module, *map(str, argv), "--threads", "1"]
        if engine == "accelerate":
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
    """launch("mnist", …, processes=2, engine="accelerate"): the same, to its end; has code, out and err."""
    return lambda *argv, **how: start(*argv, **how).end()
