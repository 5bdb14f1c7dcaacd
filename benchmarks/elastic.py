"""What --elastic-exact costs: steps with it as a multiple of those without, on one process and on two.

    python benchmarks/elastic.py [--rounds 9] [--threads 1]

Two cores are needed, with nothing else to do. Without it one process takes the batch of 128 at once, and two
take 64 each, in DDP; with it each takes its shards of 16 one after the other. `net_bn` is small, and shards
cost it most; ResNet-18 has 11 million gradients to exchange.
"""

from __future__ import annotations

import contextlib

from ddp_cpu import environment, free_port, together

import ours
from side_by_side import Bench, Child, alternate, program

BATCH, FLAG = 128, " --elastic-exact"


def measure(bench: Bench) -> None:
    for workload, model in (("cifar10", "net_bn"), ("tiny_imagenet", "resnet18")):
        bench.packed(workload)
        argv, settings = f"{workload} --arch {model} --batch-size {BATCH}", (bench.root, bench.threads, "no")
        for world in (1, 2):
            with contextlib.ExitStack() as open_:
                sides, groups = {}, []
                for name, typed in (("elastic", argv + FLAG), ("plain", argv)):
                    port = free_port()
                    where = [environment(rank, port) if world > 1 else None for rank in range(world)]
                    ranks = [Child(ours.train, typed, *settings, told) for told in where]
                    groups.append([open_.enter_context(rank) for rank in ranks])
                    sides[name] = together(ranks)
                blocks = alternate(sides, bench.args.rounds, bench.args.seconds)
                bench.record(f"{model}, {world} process{'es' * (world > 1)}", blocks, BATCH)
                for rank in sum(groups, []):
                    rank.pipe.close()  # they leave together


if __name__ == "__main__":
    program(measure, __doc__)
