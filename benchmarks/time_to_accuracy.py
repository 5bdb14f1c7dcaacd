"""CPU seconds from the command to its end, for a preset that ends above an accuracy: over several seeds.

    python benchmarks/time_to_accuracy.py [--seeds 5] [--threads 1] [--only mnist]

Each is the whole command as a user types it, `relaunch train … --preset …`: the launcher, imports, training,
the evaluation of the whole test split and the checkpoint are in its time, of all its processes together. The
accuracy is top-1 of one view; to 90 % of six, as airbench counts them, by `relaunch evaluate` once more, in
the time, too. A goal counts as reached when every seed ends above it.

Beside them, once each: the tutorial's script for CIFAR-10's ten epochs, which end near 62 %, and
pytorch/examples' mnist until it is above 99 % on the test split after an epoch (see tutorial_cifar10 and
mnist_example, whose sides these are). They pay no start and, of CIFAR-10, no evaluation. The best public
figures on CPUs that we know are of 2017 (16 virtual CPUs: 51.9 hours to 90 %).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import mnist_example
import tutorial_cifar10

from rows import Reached, told_reached
from side_by_side import BF16, Bench, Child, program

HERE = Path(__file__).resolve().parent.parent
BF = ["--config", str(BF16)]
# what, the flags beside the preset's, the accuracy to reach, the most CPU seconds it should take, views
GOALS = [
    ("mnist", "mnist to 99 %", [], 99.0, None, 1),
    ("cifar10", "cifar10 to 62 %", ["--crop", "0", "--max-steps", "70"], 62.0, 15.0, 1),
    ("cifar10", "cifar10 to 62 %, bf16", ["--crop", "0", "--max-steps", "70", *BF], 62.0, 15.0, 1),
]
AIRBENCH = ["--preset", "airbench", "--eval-every", "8", *BF]
LONG = [("cifar10", "cifar10 to 90 % of six views, bf16", AIRBENCH, 90.0, None, 6)]
EPOCHS = 10  # of the tutorial's script


def trained(
    bench: Bench, workload: str, flags: list[str], views: int, seed: int
) -> tuple[float, float, float]:
    """(top-1 of so many views, CPU seconds, wall seconds) of a training and what scores it."""
    with tempfile.TemporaryDirectory() as folder:
        run, threads = f"{folder}/run", ["--threads", str(bench.threads)]
        seeded = ["--seed", str(seed), *threads, "--run", run]
        took = [command(bench, "train", workload, "--preset", "fast", *flags, *seeded)]
        rows = map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
        top1 = [row["top1"] for row in rows if row["split"] != "train"][-1]
        if views > 1:
            precision = flags[flags.index("--config") :][:2]
            took += [command(bench, "evaluate", run, "--eval-views", str(views), *precision, *threads)]
            (scored,) = Path(run, "predictions").glob("*.json")
            top1 = json.loads(scored.read_text())["metrics"]["top1"]
    cpu, wall = map(sum, zip(*took))
    return top1, cpu, wall


def command(bench: Bench, *words: str) -> tuple[float, float]:
    """CPU and wall seconds of a command as a user types it."""
    typed = [sys.executable, "-m", "launch", *words]
    environment = os.environ | {"RELAUNCH_DATA": str(bench.root), "PYTHONPATH": str(HERE)}
    start = time.perf_counter()
    process = subprocess.Popen(typed, cwd=HERE, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(typed)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, wall


def theirs(bench: Bench, workload: str) -> dict[str, float]:
    """What the peer takes to the same accuracy."""
    if workload == "mnist":
        with Child(mnist_example.theirs, bench.root, bench.threads) as child:
            block = child.side("until_99")(1)
    else:
        steps = EPOCHS * bench.packed(workload).splits["train"] // 4
        with Child(tutorial_cifar10.theirs, bench.root, 4, bench.threads) as child:
            block = child.side()(steps)
    return {"cpu": block.cpu, "wall": block.wall}


def measure(bench: Bench) -> None:
    peers: dict[str, dict[str, float]] = {}
    for workload, what, flags, goal, bound, views in [*GOALS, *(LONG if bench.args.long else ())]:
        if bench.args.only not in (None, workload):
            continue
        bench.packed(workload)
        if workload not in peers and bench.args.peers:
            peers[workload] = theirs(bench, workload)
        found = [trained(bench, workload, flags, views, seed) for seed in range(1, bench.args.seeds + 1)]
        top1, cpu, wall = (list(column) for column in zip(*found))
        peer = peers.get(workload) if goal in (62.0, 99.0) else None
        row = Reached(bench.program, what, goal, bound, top1, cpu, wall, peer, bench.setting())
        bench.keep(asdict(row))
        print(told_reached(row), flush=True)


FLAGS = {
    "--seeds": dict(type=int, default=5, help="runs of each, with seeds 1, 2, … [5]"),
    "--only": dict(choices=("mnist", "cifar10"), help="this workload alone"),
    "--long": dict(action="store_true", help="to 90 % on CIFAR-10, too: half an hour for each seed"),
    "--peers": dict(action="store_true", help="the scripts of others, too: ten minutes"),
}

if __name__ == "__main__":
    program(measure, __doc__, FLAGS)
