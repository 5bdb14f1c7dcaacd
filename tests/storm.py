"""The long versions of the tests of what a run survives, and their figures as a table.

    python tests/storm.py                        all parts, one after the other (make storm)
    python tests/storm.py damage --cases 1 --seed 1234
    python tests/storm.py cuts --seed 7

Parts: kills (kill -9 at random), damage (each file of a run damaged, and read by everything), resumes (of all
workloads, ranks and precisions), fuzz (what is read changed at random), hostile (archives and pickles that
mean harm), cuts (power cuts at each call).
What is wrong is said with what repeats it; the exit code is 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")
import trainers  # noqa: E402, F401, TID251  binds `relaunch` to this tree

Found = Iterator[tuple[str, int, list[str]]]  # what was done, how many cases, what is wrong


def damage(folder: Path, cases: int | None, seed: int) -> Found:
    from storms import damage

    return damage.storm(folder, cases or 2000, seed)


def cuts(folder: Path, cases: int | None, seed: int) -> Found:
    from storms import crashes

    return crashes.storm(folder, cases or 64, seed=seed)


def fuzz(folder: Path, cases: int | None, seed: int) -> Found:
    from storms import fuzz

    return fuzz.storm(folder, cases or 10_000, seed)


def hostile(folder: Path, cases: int | None, seed: int) -> Found:
    from storms import hostile

    return hostile.storm(folder, cases or 600, seed)


def kills(folder: Path, cases: int | None, seed: int) -> Found:
    from storms import kills

    return kills.storm(folder, cases or 200, seed)


def resumes(folder: Path, cases: int | None, seed: int) -> Found:
    from storms import resumes

    return resumes.storm(folder, cases or 50, seed)


Part = Callable[[Path, int | None, int], Found]
PARTS: dict[str, Part] = {"damage": damage, "kills": kills, "resumes": resumes, "fuzz": fuzz}
PARTS |= {"hostile": hostile, "cuts": cuts}


def prepared(folder: Path) -> None:
    """Its own working folder, with the tiny sets that trainings need."""
    from relaunch.trainers import workloads
    from rigs.sets import SHAPES, pack_images, pack_text

    for work in map(workloads.load, workloads.names()):
        if work.task.kind == "text":
            pack_text(folder / "data" / work.data)
        else:
            pack_images(folder / "data" / work.data, SHAPES.get(work.data, (32, 32, 3)))
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "RELAUNCH_"))]:
        del os.environ[name]
    os.environ["RELAUNCH_DATA"] = str(folder / "data")
    (folder / "work").mkdir()
    os.chdir(folder / "work")


def one(name: str, cases: int | None, seed: int, rows: Path) -> None:
    """One part, in this process; its figures become lines of `rows`."""
    with tempfile.TemporaryDirectory(prefix="relaunch-storm-") as folder:
        prepared(Path(folder))
        began = time.monotonic()
        for what, count, wrong in PARTS[name](Path(folder, "work"), cases, seed):
            took, began = time.monotonic() - began, time.monotonic()
            print(*wrong, sep="\n", end="\n" if wrong else "", flush=True)
            with open(rows, "a") as f:
                f.write(json.dumps([what, count, len(wrong), took]) + "\n")
            print(row(what, count, len(wrong), took), flush=True)
        os.chdir("/")


def row(what: str, count: int, wrong: int, took: float) -> str:
    return f"{what:64} {count:7,} {wrong:6,} {took:7,.0f} s"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)} [all]")
    parser.add_argument("--cases", type=int, help="of each kind; each part has its own number")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--jobs", type=int, default=1, help="parts at the same time")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    if args.rows:
        one(args.parts[0], args.cases, args.seed, args.rows)
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="relaunch-rows-") as folder,
        ThreadPoolExecutor(args.jobs) as pool,
    ):
        rows = Path(folder, "rows")
        rows.touch()
        cases = ["--cases", str(args.cases)] if args.cases else []
        command = [sys.executable, __file__, "--seed", str(args.seed), "--rows", str(rows), *cases]
        codes = list(pool.map(lambda part: subprocess.call([*command, part]), args.parts or PARTS))
        found = [json.loads(line) for line in rows.read_text().splitlines()]
    print("", f"{'what':64} {'cases':>7} {'wrong':>6} {'time':>9}", *(row(*each) for each in found), sep="\n")
    return any(codes) or any(wrong for _, _, wrong, _ in found)


if __name__ == "__main__":
    sys.exit(main())
