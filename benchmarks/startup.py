"""Seconds from the command to the end of the first training step, by the way it is started.

    python benchmarks/startup.py [--rounds 9]

The same training (mnist on the embedded digits, one process on the CPU) started by `relaunch train`, by
plain `python -m trainers.train` and by `accelerate launch`; and, as the floor, a bare PyTorch script that
takes one step of the same model. Each takes turns with `python`, and the figure is its wall time as a
multiple of that one's: `relaunch train` before 1.10, must stay at 1.10.
Also the CPU seconds of `relaunch --help` (bound 0.3).
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import Block
from side_by_side import KB, Bench, program

HERE = Path(__file__).resolve().parent.parent
BARE = """
import torch
from relaunch.models.cnn import MnistNet
model = MnistNet()
optimizer = torch.optim.Adadelta(model.parameters())
loss = torch.nn.functional.cross_entropy(model(torch.randn(64, 1, 28, 28)), torch.randint(0, 10, (64,)))
loss.backward()
optimizer.step()
print("step 1/", flush=True)
"""
TRAIN = "mnist --data digits --max-steps 1 --log-interval 1 --threads 1".split()
WAYS = {
    "relaunch train": [sys.executable, "-m", "launch", "train", *TRAIN, "--config", "cpu"],
    "python": [sys.executable, "-m", "trainers.train", *TRAIN],
    "accelerate launch": [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(HERE / "accelerate_configs" / "cpu.yaml"),
        "-m",
        "trainers.train",
        *TRAIN,
    ],
    "bare script": [sys.executable, "-c", BARE],
}


def first_step(command: list[str], folder: str) -> Block:
    """Wall time to the line of the first step; the process is then left to end, and the rest is all of it."""
    environment = os.environ | {"RELAUNCH_DATA": f"{folder}/data", "PYTHONPATH": str(HERE)}
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        seconds = next(
            (time.perf_counter() - start for line in process.stdout if line.startswith("step 1/")), None
        )
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if seconds is None or process.returncode:
        raise SystemExit(f"{' '.join(command[:5])} … ended with {process.returncode} before its first step")
    cpu = usage.ru_utime + usage.ru_stime
    return Block(1, seconds, cpu, usage.ru_minflt, usage.ru_maxrss / KB, None)


def help_seconds() -> float:
    """CPU seconds of `relaunch --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "launch", "--help"], cwd=HERE, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall(one: Block, python: Block) -> dict[str, float]:
    return {"wall": one.wall / python.wall}


def measure(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # a unit is a start: however many fill the seconds, one is enough
        sides = {way: lambda _, command=command: first_step(command, folder) for way, command in WAYS.items()}
        for way in WAYS:
            if way != "python":
                bound = dict(bound=1.10, before="1.10") if way == "relaunch train" else {}
                found = {way: sides[way], "python": sides["python"]}
                bench.compare(way, found, units=1, unit="start", figure=wall, **bound)
    seconds = statistics.median(help_seconds() for _ in range(bench.args.rounds))
    print(f"relaunch --help: {seconds:.2f} s of CPU (bound 0.3)")


if __name__ == "__main__":
    program(measure, __doc__)
