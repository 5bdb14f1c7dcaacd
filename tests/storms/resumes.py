"""Runs that stop and go on: every workload, at every kind of step, on one to four ranks, in two precisions.

All pairs of these in fifty runs, ten of them of a workload of one's own, and one run that goes on twenty
times: each ends as one that never stopped.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from rigs import own
from rigs.forked import Ranks
from rigs.runs import outcome, status

# 24 samples (columns) a step divide by one to four ranks and two micro-batches; an epoch has four steps
COMMON = "--batch-size 24 --grad-accum-steps 2 --max-steps 10 --save-every 3 --log-interval 2".split()
OWN = "./flowers.py"
SMALL = {
    "mnist": [],
    "cifar10": ["--arch", "net_bn"],
    "tiny_imagenet": [],
    OWN: [],
    "wikitext2": ["--emsize", "16", "--nhid", "16", "--bptt", "21"],
}
STOPS = {"start": 1, "mid-epoch": 6, "epoch end": 4, "between two saves": 5, "last step": 9}
RANKS, PRECISIONS = (1, 2, 3, 4), ("no", "bf16")


def pairwise() -> list[tuple]:
    """Fifty of (workload, stop, ranks, precision), in which each two values of two of them meet."""
    found = []
    for turn in range(2):
        for (w, work), (s, stop) in itertools.product(enumerate(SMALL), enumerate(STOPS)):
            found.append((work, stop, RANKS[(w + s + 2 * turn) % 4], PRECISIONS[(w // 2 + s + turn) % 2]))
    return found


def trained(folder: Path, run: Path, work: str, ranks: int, precision: str, *flags: str) -> list[int]:
    command = [work, *SMALL[work], *COMMON, "--run", str(run), *flags]
    with patch.dict(os.environ, {"ACCELERATE_MIXED_PRECISION": precision}):
        return Ranks(ranks, command, folder).end(300)


def storm(folder: Path, cases: int = 50, seed: int = 0) -> Iterator[tuple[str, int, list[str]]]:
    """(what was done, runs, what is wrong)."""
    own.write(folder)
    wrong, chosen = [], pairwise()[seed : seed + cases]
    for work, ranks, precision in dict.fromkeys((w, r, p) for w, _, r, p in chosen):
        whole, run = folder / "whole", folder / "run"
        codes = trained(folder, whole, work, ranks, precision)
        assert not any(codes), (work, ranks, precision, codes)
        for stop in [s for w, s, r, p in chosen if (w, r, p) == (work, ranks, precision)]:
            codes += trained(folder, run, work, ranks, precision, "--stop-after", str(STOPS[stop]))
            codes += trained(folder, run, work, ranks, precision, "--resume", "auto")
            if outcome(run) != outcome(whole):
                wrong.append(f"{work}, {stop}, {ranks} ranks, {precision}: it ends otherwise: {codes}")
            shutil.rmtree(run)
        shutil.rmtree(whole)
    yield "resumes of workloads x stops x ranks x precisions, pairwise", len(chosen), wrong
    yield "one run that goes on twenty times", 20, list(often(folder))


def often(folder: Path, times: int = 20) -> Iterator[str]:
    whole, run = folder / "whole", folder / "run"
    long = ["--max-steps", "22", "--keep", "1"]
    trained(folder, whole, "cifar10", 1, "no", *long)
    for step in range(1, times + 1):
        trained(folder, run, "cifar10", 1, "no", *long, "--resume", "auto", "--stop-after", str(step))
        if status(run)["step"] != step:
            yield f"it stopped at {status(run)['step']}, and not at {step}"
    trained(folder, run, "cifar10", 1, "no", *long, "--resume", "auto")
    if outcome(run) != outcome(whole):
        yield "it ends otherwise"
