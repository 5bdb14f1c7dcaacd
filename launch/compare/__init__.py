"""`relaunch compare`: one workload under several settings, each cell of a grid a real run, measured and read.

relaunch compare cifar10 --grid batch_size=4,16,32 precision=no,bf16 --samples 2000
relaunch compare --runs first second
"""

from __future__ import annotations

import argparse
from pathlib import Path

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.talk import give, tell
from relaunch.trainers.flags import Parser

REPEATS = 3  # the fewest of which a spread says something
ROOT = Path("compares")
ABOUT = """\
Train a workload under several settings, and say which is the fastest and by how much.

Every cell of the grid is a real run, started as `relaunch train` starts it. All are trained equally long,
take turns, and are repeated with other seeds; start-up, evaluations and checkpoints are apart. Cells that
this machine cannot measure say why. The same command goes on where it was stopped, and repeats nothing.

  relaunch compare mnist --data digits --grid batch_size=16,64,256 --epochs 2
  relaunch compare cifar10 --grid batch_size=4,16,32 precision=no,bf16 --samples 2000
  relaunch compare cifar10 --grid config=cpu,1gpu lr=0.01,0.1 --until top1=50 --epochs 20
  relaunch compare --runs first second          of runs that are there: what differs is the grid
"""
MORE = """\
All flags of `relaunch train WORKLOAD` may follow, and hold for all cells. Keys of --grid are these flags,
with hyphens or underscores, and config, precision, processes. The first value of each key is the baseline.
"""


def at_least(least: int):
    def whole(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} up")
        return int(text)

    return whole


def parser() -> Parser:
    p = Parser(prog="relaunch compare", usage="relaunch compare WORKLOAD --grid KEY=A,B,C … [flags]")
    p.description, p.epilog = ABOUT, MORE
    p.add_argument(
        "--grid",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=A,B,C",
        help="all combinations of these",
    )
    p.add_argument(
        "--samples", type=at_least(1), metavar="N", help="train each on so many samples (text: words)"
    )
    p.add_argument(
        "--until",
        metavar="METRIC=VALUE",
        help="train each until its evaluation reaches this, at most --epochs; time to it is compared",
    )
    p.add_argument(
        "--repeats",
        type=at_least(1),
        default=REPEATS,
        metavar="N",
        help=f"runs of each cell, each with a seed of its own [{REPEATS}]",
    )
    p.add_argument(
        "--warmup",
        type=at_least(0),
        default=1,
        metavar="N",
        help="starts that are not measured, before the first [1]",
    )
    p.add_argument("--runs", nargs="+", metavar="RUN", help="compare these runs in place of starting any")
    p.add_argument(
        "--out", metavar="FOLDER", help=f"where runs and pages go [{ROOT}/WORKLOAD-KEYS of the grid]"
    )
    return p


def main(argv: list[str]) -> int:
    """Returns 0 when all that can be measured here is; 75 when it was stopped."""
    own = parser()
    if not argv or argv[0] in ("-h", "--help"):
        give(own.format_help(), end="")
        return 0 if argv else USAGE
    given, words = own.parse_known_args(argv)
    if given.runs is not None:
        return of_runs(given, words)
    from relaunch.launch import command
    from relaunch.launch.compare import cells
    from relaunch.launch.compare.run import Bench

    if not words or words[0].startswith("-") and not {"-h", "--help"} & set(words):
        fix = "type: relaunch compare WORKLOAD --grid batch_size=16,64, for example"
        raise Failure(USAGE, "the workload is missing", fix)
    if not given.grid and words and not {"-h", "--help"} & set(words):
        raise Failure(USAGE, "there is nothing to compare", "add --grid batch_size=16,64, for example")
    try:
        plan = cells.plan(given, words, own)
    except SystemExit as end:  # help was asked for
        return int(end.code or 0)
    folder = Path(given.out) if given.out else ROOT / "-".join([plan.workload, *plan.grid])
    bench = Bench(plan, folder, argv)
    if command.split(words)[0].get("dry_run"):
        give(listed(plan, bench))
        return 0
    if all(cell.reason for cell in plan.cells) and not any(cell.measures for cell in bench.found().cells):
        raise Failure(plan.cells[0].code, f"no cell can be measured here: {plan.cells[0].reason}")
    code = bench.measure(given.warmup)
    show(bench.found(), folder)
    return code


def of_runs(given: argparse.Namespace, words: list[str]) -> int:
    from relaunch.data_prep import files
    from relaunch.launch.compare import gather
    from relaunch.trainers.bench import page

    if words or given.grid or given.samples or given.until:
        wrong = words[0] if words else "--grid" if given.grid else "--samples" if given.samples else "--until"
        raise Failure(
            USAGE, f"{wrong} does not go with --runs", "with --runs nothing is trained: leave it out"
        )
    found = gather.compare(given.runs)
    folder = Path(given.out) if given.out else ROOT / "-".join([found.workload, "runs"])
    with files.storage(folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        page.write(found, folder)
    show(found, folder)
    return 0


def show(found, folder: Path) -> None:
    """The answer: the reading, the table, and where the page is."""
    from relaunch.trainers.bench import page, reading, tables

    lines = reading.reading(found)
    best = [f"  {line}" for line in page.than_best(found)]
    give("\n".join([*lines[:1], *best, "", tables.text(found), "", *lines[1:]]).strip())
    tell(f"{folder / 'compare.html'}; beside it compare.md, compare.csv, compare.json")


def listed(plan, bench) -> str:
    """--dry-run: the cells, and what of them is there or cannot be."""
    from relaunch.data_prep.names import table

    rows = [("cell", "samples", "runs there", "what would be started")]
    for cell, found in zip(plan.cells, bench.found().cells):
        start = f"not here: {cell.reason}" if cell.reason else f"relaunch train {' '.join(cell.words)}"
        there = f"{len(found.measures)} of {len(plan.seeds)}"
        rows.append((cell.point.name, f"{cell.samples:,}" if cell.samples else "", there, start))
    return "\n".join([f"{plan.workload}: {plan.rule}", *table(rows, left=len(rows[0]))])
