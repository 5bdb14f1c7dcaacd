"""Scoring a split, as `relaunch evaluate` and the end of an epoch do, against the model's forward pass alone.

    python benchmarks/evaluate.py [--rounds 9] [--threads 1]

Ours is score_split with the workload's own --eval-batch-size, of a part of its split: rows with prediction,
confidence and loss of each sample, from packed data. The forward pass gets float tensors (words) that are
ready, 100 images or 10 windows at a time, and drops what comes out. Both are in one process, as ranks are set
up, and take turns. The figure is our time as a multiple of the forward pass's: before 0.9 to 1.6, must reach
1.05 for all four.
"""

from __future__ import annotations

import ours
from relaunch.data_prep.errors import Failure
from side_by_side import Bench, Child, program

BOUND = 1.05
PARTS = {"mnist": 2000, "cifar10": 4000, "tiny_imagenet": 500, "wikitext2": 7001}  # samples, words
AT_ONCE = {"images": 100, "text": 10}


def sides(turns, workload: str, root, threads: int) -> None:
    """`score` and `forward`: a unit is the whole part."""

    def what():
        import numpy as np
        import torch

        from relaunch.data_prep.packed import Packed, open_packed
        from relaunch.trainers import workloads
        from relaunch.trainers.build import make_model
        from relaunch.trainers.config import parse
        from relaunch.trainers.evaluate import score_split
        from relaunch.trainers.group.runtime import Runtime

        class Part(Packed):
            """The first samples of a set's splits."""

            def __init__(self, whole: Packed, count: int):
                super().__init__(whole.path, whole.meta)
                self.splits = {split: min(n, count) for split, n in whole.splits.items()}

            def _array(self, split: str, filename: str) -> np.ndarray:
                return super()._array(split, filename)[: self.splits[split]]

        config = parse(f"{workload} --threads {threads}".split()).config
        runtime = Runtime(config.threads, config.deterministic)
        packed = Part(open_packed(config.data, root), PARTS[workload])
        split, task = packed.eval_split, workloads.load(workload).task
        model, scorer = make_model(config, packed.sizes), task.scorer(config, packed, split, runtime.device)
        if packed.kind == "text":
            bptt = config.options.bptt
            words = torch.from_numpy(packed.tokens(split).astype(np.int64))
            whole = words[: len(words) // bptt * bptt].view(-1, bptt)
            batches = [part.t().contiguous() for part in whole.split(AT_ONCE["text"])]
        else:
            ready = scorer.data.normalise(scorer.data.inputs)  # pooling's time depends on the numbers
            batches = list(ready.split(AT_ONCE["images"]))

        def score(n: int) -> float:
            for _ in range(n):
                rows = score_split(runtime, scorer, model)
            return task.summarise(rows)[task.facts.loss if packed.kind == "text" else "loss"]

        def forward(n: int) -> None:
            model.eval()
            with torch.no_grad():
                for _ in range(n):
                    for x in batches:
                        model(x)

        turns(score=score, forward=forward)
        runtime.close()

    ours.in_a_rank(what)


def measure(bench: Bench) -> None:
    for workload, count in PARTS.items():
        try:
            packed = bench.packed(workload)
        except Failure as failure:
            bench.skip(workload, failure.what)
            continue
        samples = min(count, packed.splits[packed.eval_split])
        with Child(sides, workload, bench.root, bench.threads) as child:
            found = {"score": child.side("score"), "forward": child.side("forward")}
            bench.compare(workload, found, samples, unit="pass", bound=BOUND, before="0.9-1.6")


if __name__ == "__main__":
    program(measure, __doc__)
