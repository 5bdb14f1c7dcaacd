"""What our loop costs over a bare PyTorch loop: same model, batch, optimizer, threads, samples and process.

    python benchmarks/overhead.py [--rounds 15] [--threads 1]

The bare loop indexes normalised float tensors in RAM in a fixed order and does nothing else: no seeds, no
metrics, no logging, no signals. Ours is trainers.loop as users run it, on packed bytes. They alternate in
blocks of equal work, in one process, so that memory is kept alike; the rounds are spread over three starts
of it. A third takes turns with ours: the same with a clock that stands, to see what it costs to know where
the time went, of which `switch` alone is timed as well.

| batch | before | must reach |
|---|---|---|
| 4 / 64 | 1.12 / 1.02 | 1.10 / 1.02 |
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

import ours
from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.writer import Writer
from relaunch.trainers.spent import Spent
from rows import Block
from side_by_side import Bench, Child, alternate, program

SAMPLES = 20_000
STARTS = 3  # of the process: where its code and memory come to lie makes 3 % of a small step
SWITCHES = 6  # of the clock in a step
BOUNDS = {4: ("1.12", 1.10), 64: ("1.02", 1.02)}  # by batch


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


def sides(turns, root, batch: int, threads: int) -> None:
    """`ours`, `bare` and `still`, step by step."""

    def what():
        from relaunch.trainers.config import parse
        from relaunch.trainers.group.runtime import Runtime

        argv = f"cifar10 --preset tutorial --batch-size {batch} --threads {threads}".split()
        config, packed = parse([*argv, *ours.ENDLESS]).config, open_packed("random", root)
        runtime = Runtime(config.threads, config.deterministic)

        def loop(spent: Spent):
            training = ours.make_training(config, packed, runtime, Path(root), spent)

            def steps(n: int) -> None:
                for _ in range(n):
                    training.iterate()

            return steps

        turns(ours=loop(Spent()), still=loop(Still()), bare=bare(config, packed))
        runtime.close()

    ours.in_a_rank(what)


def bare(config, packed):
    """A function that does n steps."""
    import torch
    from torch.nn import functional as F

    from relaunch.trainers.build import make_model, make_optimizer

    model = make_model(config, packed.sizes)
    optimizer = make_optimizer(config, model)
    pixels = torch.from_numpy(packed.images("train")).permute(0, 3, 1, 2)
    x = pixels.float().div(255).sub(0.5).div(0.25).contiguous()  # [N,C,H,W]
    labels, order = torch.from_numpy(packed.labels("train")), torch.randperm(SAMPLES)
    at, batch = 0, config.batch_size

    def steps(n: int) -> None:
        nonlocal at
        for _ in range(n):
            rows = order[at : at + batch]
            at = (at + batch) % (SAMPLES - batch)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[rows]), labels[rows])
            loss.backward()
            optimizer.step()

    return steps


def clock_us() -> float:
    """Of the clock alone, in a step."""
    spent, n = Spent(), 100_000
    start = time.perf_counter()
    for _ in range(n):
        spent.switch("compute")
    return (time.perf_counter() - start) / n * SWITCHES * 1e6


def measure(bench: Bench) -> None:
    print(f"the clock alone: {clock_us():.1f} us a step")
    with tempfile.TemporaryDirectory() as folder:
        pack(Path(folder) / "random")
        for batch, (before, bound) in BOUNDS.items():
            pairs: dict[str, dict[str, list[Block]]] = {o: {"ours": [], o: []} for o in ("bare", "still")}
            for start in range(STARTS):
                rounds = len(range(start, bench.args.rounds, STARTS))
                with Child(sides, folder, batch, bench.threads) as child:
                    for pair in pairs.values():
                        found = alternate(
                            {name: child.side(name) for name in pair}, rounds, bench.args.seconds
                        )
                        for name, blocks in found.items():
                            pair[name] += blocks
            bench.record(f"batch {batch}", pairs["bare"], samples=batch, bound=bound, before=before)
            bench.record(f"batch {batch} without its clock", pairs["still"], samples=batch)


if __name__ == "__main__":
    program(measure, __doc__)
