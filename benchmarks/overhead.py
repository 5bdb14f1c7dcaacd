"""What our loop costs over a bare PyTorch loop: same model, batch, optimizer, threads, samples and process.

    python benchmarks/overhead.py [--rounds 15] [--threads 1]

The bare loop indexes normalised float tensors in RAM in a fixed order and does nothing else: no seeds, no
metrics, no logging, no signals. Ours is trainers.loop as users run it, on packed bytes. They alternate in
blocks of equal work; the figure is the median over blocks of the ratio of neighbours. Bounds: 1.25 at
batch 4, 1.05 at batch 64. A third takes turns with them: ours with a clock that stands, to see what it costs
to know where the time went (bound: 1 % of a step), of which `switch` alone is timed as well.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.writer import Writer
from relaunch.trainers.build import make_batches, make_model, make_optimizer
from relaunch.trainers.config import parse
from relaunch.trainers.group.runtime import Runtime
from relaunch.trainers.loop import Training
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.spent import Spent

SAMPLES = 20_000
SWITCHES = 6  # of the clock in a step


class Still(Spent):
    """A clock that stands."""

    def switch(self, cause: str) -> None:
        pass


def pack(folder: Path) -> None:
    """A set of random 32x32 RGB images: their content does not change the time."""
    folder.mkdir()
    writer, random = Writer(folder), np.random.default_rng(0)
    writer.classes = [str(i) for i in range(10)]
    for split, count in (("train", SAMPLES), ("test", 100)):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        writer.images(split, random.integers(0, 10, count), (32, 32, 3), [(range(count), images)])
    writer.finish("random", "folder", {}, {})


def ours(config, packed, runtime, folder: Path, spent: Spent) -> Training:
    batches = make_batches(config, packed, runtime.device)
    model = make_model(config, packed.sizes)
    optimizer = make_optimizer(config, model)
    training = Training(
        config, {}, runtime, packed, batches, model, optimizer, RunDir(folder), None, spent=spent
    )
    training.save = lambda: None  # an epoch's end saves: that is the checkpoint's time, not the loop's
    return training


def bare(config, packed):
    """A function that does n steps."""
    model = make_model(config, packed.sizes)
    optimizer = make_optimizer(config, model)
    pixels = torch.from_numpy(packed.images("train")).permute(0, 3, 1, 2)
    x = pixels.float().div(255).sub(0.5).div(0.25).contiguous()  # [N,C,H,W]
    labels, order = torch.from_numpy(packed.labels("train")), torch.randperm(SAMPLES)
    at, batch = 0, config.batch_size

    def steps(n: int):
        nonlocal at
        for _ in range(n):
            rows = order[at : at + batch]
            at = (at + batch) % (SAMPLES - batch)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[rows]), labels[rows])
            loss.backward()
            optimizer.step()

    return steps


def compare(batch: int, block: int, rounds: int, packed, runtime, folder: Path) -> tuple[float, ...]:
    """(median ratio, our us a step, bare us a step, median ratio to ours with a clock that stands)"""
    endless = "--epochs 1000000 --max-steps 1000000000 --save-every 1000000000 --eval-every 1000000"
    config = parse(f"cifar10 --preset tutorial --batch-size {batch} {endless}".split()).config
    training, unclocked = (ours(config, packed, runtime, folder, clock) for clock in (Spent(), Still()))
    steps = bare(config, packed)

    def turns(n: int):
        for _ in range(n):
            training.iterate()

    def still(n: int):
        for _ in range(n):
            unclocked.iterate()

    times = {turns: [], steps: [], still: []}
    for i in range(rounds + 1):
        for run in (steps, turns, still) if i % 2 else (still, turns, steps):
            start = time.perf_counter()
            run(block)
            times[run].append((time.perf_counter() - start) / block * 1e6)
    a, b, c = times[turns][1:], times[steps][1:], times[still][1:]  # the first block warms up
    ratio, clock = (statistics.median(x / y for x, y in zip(a, other)) for other in (b, c))
    return ratio, statistics.median(a), statistics.median(b), clock


def clock_us() -> float:
    """Of the clock alone, in a step."""
    spent, n = Spent(), 100_000
    start = time.perf_counter()
    for _ in range(n):
        spent.switch("compute")
    return (time.perf_counter() - start) / n * SWITCHES * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    runtime = Runtime(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        pack(Path(folder) / "random")
        packed = open_packed("random", folder)
        setting = f"tutorial net, {args.threads} thread(s), torch {torch.__version__}"
        print(f"{setting}, median of {args.rounds} pairs of blocks")
        alone = clock_us()
        for batch, block, bound in ((4, 1000, 1.25), (64, 150, 1.05)):
            ratio, mine, floor, clock = compare(batch, block, args.rounds, packed, runtime, Path(folder))
            times = f"ours {mine:7.0f} us a step, bare {floor:7.0f} us"
            print(f"batch {batch:3}: {times}, ratio {ratio:.3f} (bound {bound})", flush=True)
            share = f"alone {alone:.1f} us, {100 * alone / mine:.2f} % of a step (bound 1 %)"
            print(f"           to ours with a clock that stands {clock:.3f}; {share}", flush=True)


if __name__ == "__main__":
    main()
