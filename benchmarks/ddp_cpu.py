"""Two processes of `relaunch train tiny_imagenet` that meet over gloo, against one: ResNet-18 on the CPU.

    python benchmarks/ddp_cpu.py [--rounds 9] [--threads 1]

Two cores are needed, with nothing else to do. Both train with a global batch of 128: two processes 64 each,
the one process twice 64 by --grad-accum-steps 2, so that BatchNorm sees the same and the losses are equal but
for rounding. The figure is the images a second of each of the two as a multiple of the one's: must reach
0.85. In a second row stands by how much their losses differ.
"""

from __future__ import annotations

import socket
import statistics

import ours
from rows import Block
from side_by_side import Bench, Child, alternate, program

BATCH, WORLD = 128, 2


def environment(rank: int, port: int) -> dict[str, str]:
    """What a launcher tells a rank."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in told.items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def together(ranks: list[Child]):
    """A side of several processes that work at once: the slowest one's time, and the mean of their CPU."""

    def block(units: int) -> Block:
        for rank in ranks:
            rank.tell("steps", units)
        blocks = [rank.answer() for rank in ranks]
        return Block(
            units=units,
            wall=max(b.wall for b in blocks),
            cpu=statistics.fmean(b.cpu for b in blocks),
            faults=sum(b.faults for b in blocks),
            peak_mb=max(b.peak_mb for b in blocks),
            loss=statistics.fmean(b.loss for b in blocks),
        )

    return block


def rate(two: Block, one: Block) -> dict[str, float]:
    """Of each of the two processes, to that of the one: it does twice a process's share in a step."""
    return {"wall": one.wall / WORLD / two.wall}


def difference(two: Block, one: Block) -> dict[str, float]:
    return {"loss": abs(two.loss / one.loss - 1)}


def measure(bench: Bench) -> None:
    bench.packed("tiny_imagenet")
    port, argv = free_port(), f"tiny_imagenet --batch-size {BATCH}"
    settings = (bench.root, bench.threads, "no")
    ranks = [Child(ours.train, argv, *settings, environment(rank, port)) for rank in range(WORLD)]
    with ranks[0], ranks[1], Child(ours.train, f"{argv} --grad-accum-steps {WORLD}", *settings) as one:
        sides = {"two": together(ranks), "one": one.side()}
        blocks = alternate(sides, bench.args.rounds, bench.args.seconds)
        for rank in ranks:
            rank.pipe.close()  # they leave together
        bench.record("rate of a process", blocks, BATCH, bound=0.85, least=True, figure=rate)
        bench.record("difference of the losses", blocks, BATCH, bound=1e-3, figure=difference)


if __name__ == "__main__":
    program(measure, __doc__)
