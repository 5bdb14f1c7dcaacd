"""Two ways of doing the same work, measured in turns within one run.

Each side is a function `side(turns, *settings)` in a process of its own, started anew. It gets ready, and
hands `turns` its work by name: functions that do so many units (steps, batches) and return their mean loss,
or None. From then on it does a block of units whenever it is told to, and nothing in between:

    def theirs(turns, size):
        import torch                        # here: what a side imports counts in its memory
        turns(multiply=lambda units: ...)

    with Child(theirs, 256) as a, Child(ours, 256) as b:
        blocks = alternate({"ours": b.side("multiply"), "theirs": a.side("multiply")}, rounds=9, seconds=1)

Processes of their own, because how a process keeps memory (mallopt) is its own affair: a peer's script runs
as its users have it, and ours as `relaunch` sets up its processes. Figures are medians over rounds, of the
ratios of neighbouring blocks: what slows the machine down for a while slows both.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import Packed, data_root, open_packed
from relaunch.trainers import hardware
from rows import Block, Row, faster, row_of, times, told

Work = Callable[[int], float | None]
BF16 = Path(__file__).resolve().parent.parent / "accelerate_configs" / "cpu_bf16.yaml"  # if there is one
KB = 1e6 if sys.platform == "darwin" else 1e3 / 1.024  # of ru_maxrss, in a MB: bytes there, KiB elsewhere


def measured(work: Work, units: int) -> Block:
    """Do a block in this process."""
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    cpu, wall = time.process_time(), time.perf_counter()
    loss = work(units)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Block(units, wall, cpu, usage.ru_minflt - faults, usage.ru_maxrss / KB, loss)


class Turns:
    """A child's end: waits to be told, works, and answers with the block."""

    def __init__(self, pipe):
        self.pipe = pipe

    def __call__(self, **works: Work) -> None:
        while True:
            try:
                name, units = self.pipe.recv()
                self.pipe.send(measured(works[name], units))
            except (EOFError, ConnectionError):  # nobody wants more
                return


def begin(side: Callable, pipe, settings: tuple) -> None:
    side(Turns(pipe), *settings)


class Child:
    """A side in a process of its own. This one stays small: a child's peak begins at its parent's size."""

    def __init__(self, side: Callable, *settings):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=begin, args=(side, theirs, settings), daemon=True)
        self.process.start()
        theirs.close()  # so that its death is an end of file here

    def tell(self, work: str, units: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # `answer` says so
            self.pipe.send((work, units))

    def answer(self) -> Block:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise SystemExit(f"a side ended with {self.process.exitcode} before its work") from None

    def side(self, work: str = "steps") -> Callable[[int], Block]:
        """A function that lets it do a block of that work, and waits."""

        def block(units: int) -> Block:
            self.tell(work, units)
            return self.answer()

        return block

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_) -> None:
        self.pipe.close()
        self.process.join(60)
        self.process.kill()


def alternate(
    sides: dict[str, Callable[[int], Block]], rounds: int, seconds: float, units: int = 0
) -> dict[str, list[Block]]:
    """`rounds` blocks of each, of equally many units: by default as many as take the slowest side `seconds`.

    The order turns round each time, so that no side always comes after the other. Two blocks before that
    warm up: in the first memory and kernels are set up, the second says how long a unit takes.
    """
    few = 1 if max(side(1).wall for side in sides.values()) > seconds else 3
    unit = max(block.wall / block.units for block in (side(few) for side in sides.values()))
    units, names = units or max(1, round(seconds / unit)), list(sides)
    blocks: dict[str, list[Block]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names if i % 2 else reversed(names):
            blocks[name].append(sides[name](units))
    return blocks


class Bench:
    """One program's run: its arguments, and where its rows go, each with the time when the run began."""

    def __init__(self, program: str, args: argparse.Namespace):
        self.program, self.args, self.threads = program, args, args.threads
        self.root, self.run = data_root(args.data_root), time.time()

    def packed(self, name: str) -> Packed:
        """Failure 65 where it is not packed."""
        return open_packed(name, self.root)

    def compare(
        self, what: str, sides: dict[str, Callable[[int], Block]], samples: int = 0, units: int = 0, **row
    ) -> Row:
        """Measure the first of two sides against the second, in blocks of `units`; say and keep the row."""
        blocks = alternate(sides, self.args.rounds, self.args.seconds, units)
        return self.record(what, blocks, samples, **row)

    def record(
        self,
        what: str,
        blocks: dict[str, list[Block]],
        samples: int = 0,
        unit: str = "step",
        bound: float | None = None,
        least: bool = False,
        before: str = "",
        figure: Callable[[Block, Block], dict[str, float]] | None = None,
    ) -> Row:
        """Say and keep the row of two sides' blocks; `samples` are those of a unit.

        `figure` makes a round's ratios of its two blocks: by default CPU and wall time, and where the bound
        is the `least`, how many times as fast.
        """
        about = dict(program=self.program, what=what, bound=bound, least=least, before=before, unit=unit)
        figure = figure or (faster if least else times)
        row = row_of(blocks, figure, samples, setting=self.setting(), **about)
        self.keep(asdict(row))
        print(told(row), flush=True)
        return row

    def skip(self, what: str, why: str) -> None:
        why = why.replace(str(self.root), "the data folder")  # the page is read elsewhere
        self.keep({"program": self.program, "what": what, "skipped": why})
        print(f"{' '.join(filter(None, (self.program, what)))}: skipped, {why}", flush=True)

    def keep(self, record: dict) -> None:
        if self.args.json:
            with open(self.args.json, "a") as file:
                file.write(json.dumps({"run": self.run} | record) + "\n")

    def setting(self) -> dict:
        a = self.args
        versions = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "accelerate")}
        options = f"--rounds {a.rounds} --seconds {a.seconds:g} --threads {a.threads}"
        options += "".join(f" --{name}" for name, value in vars(a).items() if value is True)
        return {
            "date": time.strftime("%Y-%m-%d"),
            "machine": {name: hardware.here().get(name) for name in ("cpu", "cpus")},
            "versions": {"python": platform.python_version()} | versions,
            "threads": a.threads,
            "rounds": a.rounds,
            "command": f"python benchmarks/{self.program}.py {options}",
        }


def program(measure: Callable[[Bench], None], doc: str | None, flags: dict[str, dict] | None = None) -> None:
    """Run a program of this folder: `measure(bench)`. What lacks its data is skipped with a line.

    `flags` are its own, as argparse takes them.
    """
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=9, help="blocks of each side [9]")
    add("--seconds", type=float, default=1.0, help="of a block, of the slower side [1]")
    add("--threads", type=int, default=1, help="of each side [1]")
    add("--data-root", help="where packed data is kept (default: $RELAUNCH_DATA, else data)")
    add("--json", metavar="FILE", help="append the results to this file, a JSON object a line")
    for flag, how in (flags or {}).items():
        add(flag, **how)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of numpy's, and of torch's before it is told
    bench = Bench(name, args)
    try:
        measure(bench)
    except Failure as failure:
        bench.skip("", failure.what)
