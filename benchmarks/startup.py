"""Seconds from the command to the end of the first training step, by the way it is started.

    python benchmarks/startup.py [--rounds 7]

The same training (mnist on the embedded digits, one process on the CPU) started by `relaunch train`, by
plain `python -m trainers.train` and by `accelerate launch`; and, as the floor, a bare PyTorch script that
takes one step of the same model. They alternate; the figures are medians, and of ratios of neighbours.
Bound: relaunch at most 1.15 x python.
Also the CPU seconds of `relaunch --help` (bound 0.3).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def first_step(command: list[str], folder: str) -> float:
    """Seconds until the line of the first step; the process is then left to end."""
    environment = os.environ | {"RELAUNCH_DATA": f"{folder}/data", "PYTHONPATH": str(HERE)}
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        seconds = next(
            (time.perf_counter() - start for line in process.stdout if line.startswith("step 1/")), None
        )
        process.stdout.read()
    if seconds is None or process.returncode:
        raise SystemExit(f"{' '.join(command[:5])} … ended with {process.returncode} before its first step")
    return seconds


def help_seconds() -> float:
    """CPU seconds of `relaunch --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "launch", "--help"], cwd=HERE, stdout=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            for way, command in WAYS.items():
                times[way].append(first_step(command, folder))
    python = times["python"][1:]  # the first round packs the data and warms the files
    for way, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[1:], python))
        print(f"{way:18} {statistics.median(seconds[1:]):6.2f} s to the first step, {ratio:.2f} x python")
    print(f"relaunch --help    {statistics.median(help_seconds() for _ in range(rounds)):6.2f} s of CPU")


if __name__ == "__main__":
    main()
