"""Measuring: the runs of all cells in turns, each through the launcher; what is there already is kept.

    Bench(plan, Path("compares/x"), argv).measure()    # the exit code

A run's folder is named for the cell's settings, its mark and its seed, so the same command goes on where it
was stopped, also after a kill, and another grid keeps what both have.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DIVERGED, PREEMPTED, STOPPED, Failure
from relaunch.data_prep.names import command
from relaunch.data_prep.talk import tell
from relaunch.launch import PROGRAM, supervise
from relaunch.launch.compare.cells import Cell, Plan
from relaunch.trainers import records
from relaunch.trainers.bench import comparison, measure, tables
from relaunch.trainers.bench.comparison import CANNOT, FAILED, MEASURED, Comparison
from relaunch.trainers.rundir import RunDir

TICK = 0.1  # s between looks at a run
QUIET = 60.0  # s after which a long run is spoken of
WARM = 3  # steps of the start that is not measured: it brings programs and data into memory


class Bench:
    """One comparison in its folder."""

    def __init__(self, plan: Plan, folder: Path, argv: list[str]):
        self.plan, self.folder, self.argv = plan, folder, argv
        self.failed: dict[str, str] = {}  # by mark, of this call; what has diverged is known from its run
        self.took: dict[str, list[float]] = {}  # wall seconds of whole runs, by cell
        self.child: subprocess.Popen | None = None

    def run_of(self, cell: Cell, seed: int) -> RunDir:
        """The folder of a repeat: the one that is there, whatever its grid called it, or a new one."""
        runs = self.folder / "runs"
        ending = f"-{cell.mark}-seed{seed}"
        there = [name for name in records.names(runs) if name.endswith(ending)]
        return RunDir(runs / (there[0] if there else cell.named(seed)))

    def diverged(self, cell: Cell) -> str:
        """Why training it again would end in the same way; empty if there is no such reason."""
        for seed in self.plan.seeds if cell.mark else ():
            status = records.status(self.run_of(cell, seed))
            if status.get("state") == "failed" and status.get("code") == DIVERGED:
                return f"{DIVERGED} {status.get('reason', '')} (seed {seed})"
        return ""

    def found(self) -> Comparison:
        """The comparison as its runs' folders tell it now."""
        made = []
        for cell in self.plan.cells:
            runs = [self.run_of(cell, seed) for seed in self.plan.seeds] if cell.mark else []
            measures = [m for run in runs if (m := measure.of(run, self.plan.target))]
            state, reason = comparison.WAITING, f"{len(measures)} of {len(self.plan.seeds)} repeats"
            if len(measures) == len(self.plan.seeds) or measures and cell.reason:
                state, reason = MEASURED, ""
            elif why := self.diverged(cell) or self.failed.get(cell.mark):
                state, reason = FAILED, why
            elif cell.reason:
                state, reason = CANNOT, cell.reason
            made.append(comparison.Cell(cell.point.name, dict(cell.point.settings), state, reason, measures))
        return Comparison(
            workload=self.plan.workload,
            rule=self.plan.rule,
            grid=self.plan.grid,
            cells=made,
            repeats=len(self.plan.seeds),
            unit=self.plan.unit,
            target=self.plan.target,
            equal=self.plan.equal,
            notes=self.plan.notes,
            command=command(["relaunch", "compare", *self.argv]),
        )

    def waiting(self) -> list[tuple[Cell, int]]:
        """(cell, seed) of what is still to be measured: all cells in turns, every second time backwards.

        So a machine that slowly grows slower or warmer is no cell's advantage.
        """
        order = []
        for i, seed in enumerate(self.plan.seeds):
            for cell in self.plan.cells if i % 2 == 0 else reversed(self.plan.cells):
                if cell.reason or cell.mark in self.failed or self.diverged(cell):
                    continue
                if measure.of(self.run_of(cell, seed), self.plan.target) is None:
                    order.append((cell, seed))
        return order

    def measure(self, warmup: int = 1) -> int:
        """Measure what is missing, and write the pages. Failure 75 (78) when it was stopped in between."""
        with files.storage(self.folder, "--out"):
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
        todo = self.waiting()
        cells = sum(not cell.reason for cell in self.plan.cells)
        total = cells * len(self.plan.seeds)
        there = f", {total - len(todo)} of them there already" if total > len(todo) else ""
        tell(f"relaunch compare: {total} runs in {self.folder}{there}; {self.plan.rule}", sys.stderr)
        with supervise.Asked() as asked:
            if todo:
                self.warm_up(todo, warmup, asked)
            while (todo := self.waiting()) and not asked.first:
                cell, seed = todo[0]
                began = time.monotonic()
                code = self.train(cell, seed, asked)
                if asked.first:
                    break
                self.took.setdefault(cell.mark, []).append(time.monotonic() - began)
                if code in (PREEMPTED, STOPPED) and self.waits(cell, seed):
                    self.write(pages=True)
                    raise Failure(code, f"{self.run_of(cell, seed).path} was stopped", self.again())
                self.report(cell, seed, total)
                self.write()
        self.write(pages=True)
        if asked.first:
            left = len(self.waiting())
            if left:
                what = f"stopped by {asked.first.name}, and saved; {left} of {total} runs to go"
                raise Failure(PREEMPTED, what, self.again())
        return 0

    def waits(self, cell: Cell, seed: int) -> bool:
        return measure.of(self.run_of(cell, seed), self.plan.target) is None

    def again(self) -> str:
        return f"to go on: {command(['relaunch', 'compare', *self.argv])}"

    # one run --------------------------------------------------------------------------------------

    def start(self, words: list[str], log: Path) -> subprocess.Popen:
        """`relaunch train WORDS`, whose output goes into `log`. It is told to stop if we die."""
        with files.storage(log, "--out"):
            log.parent.mkdir(parents=True, exist_ok=True)
            output = open(log, "ab", opener=files.shyly)
        with output:
            return supervise.start([sys.executable, PROGRAM, "train", *words], dict(os.environ), output)

    def train(self, cell: Cell, seed: int, asked: supervise.Asked) -> int:
        """Train one repeat to its end, or to the target, or to a stop; returns its exit code."""
        run = self.run_of(cell, seed)
        log = run.path / "logs" / "train.log"
        words = [*cell.words, "--seed", str(seed), "--run", str(run.path), "--resume", "auto"]
        code = self.stay(self.start(words, log), run, asked)
        if code and code not in (PREEMPTED, STOPPED) and not asked.first:
            self.failed[cell.mark] = f"{why(log) or f'it ended with code {code}'} (seed {seed}, {log})"
        return code

    def stay(self, child: subprocess.Popen, run: RunDir | None, asked: supervise.Asked) -> int:
        told, spoke, step = False, time.monotonic(), None
        while child.poll() is None:
            time.sleep(TICK)
            if run and time.monotonic() - spoke > QUIET:
                spoke = time.monotonic()
                step = position(run, step)
            if asked.insisted:
                child.kill()
            elif asked.first and not told:
                told = True
                asked.acknowledge("stopping; the run that is trained now saves after its step")
                child.send_signal(asked.first)
            elif run and self.plan.target and not told and measure.target_step(run, self.plan.target):
                told = True
                files.write_atomic(run.stop, "the target is reached\n")
        if run and self.plan.target and run.stop.exists() and child.returncode == 0:
            run.forget_stop()
        return child.returncode

    def warm_up(self, todo: list[tuple[Cell, int]], starts: int, asked: supervise.Asked) -> None:
        """Starts that are not measured, of a few steps, for each accelerate config among what is to come."""
        firsts: dict[tuple, Cell] = {}
        for cell, _ in todo:
            shape = [cell.point.settings.get(key) for key in ("config", "processes", "precision")]
            firsts.setdefault(tuple(shape), cell)
        for cell in firsts.values():
            for _ in range(starts):
                run = RunDir(self.folder / "runs" / ".warm-up")
                shutil.rmtree(run.path, ignore_errors=True)
                words = [*cell.words, "--run", str(run.path), "--stop-after", str(WARM)]
                self.stay(self.start(words, run.path / "logs" / "train.log"), None, asked)
                shutil.rmtree(run.path, ignore_errors=True)
                if asked.first:
                    return

    # said -----------------------------------------------------------------------------------------

    def report(self, cell: Cell, seed: int, total: int) -> None:
        c = self.found()
        shown = next(other for other in c.cells if other.name == cell.point.name)
        left = len(self.waiting())
        name = shown.name or c.workload
        repeat = f", repeat {self.plan.seeds.index(seed) + 1}" if len(self.plan.seeds) > 1 else ""
        what = shown.reason if shown.state == FAILED else tables.progress(c, shown)
        more = f"; about {duration(self.time_left())} left" if left else ""
        tell(f"relaunch compare: {total - left}/{total} {name}{repeat}: {what}{more}", sys.stderr)

    def time_left(self) -> float:
        """Seconds: what a cell's runs took on average, or all runs if it has none yet."""
        every = [seconds for took in self.took.values() for seconds in took]
        mean = sum(every) / len(every)
        own = {mark: sum(took) / len(took) for mark, took in self.took.items()}
        return sum(own.get(cell.mark, mean) for cell, _ in self.waiting())

    def write(self, pages: bool = False) -> None:
        from relaunch.trainers.bench import page

        c = self.found()
        with files.storage(self.folder, "--out"):
            if pages:
                page.write(c, self.folder)
            else:
                files.write_atomic(self.folder / "compare.json", files.dump_json(c.to_json()))


def position(run: RunDir, said: int | None) -> int | None:
    """Say how far a run is and what its rest takes, unless that step was `said`; returns the step."""
    last: dict = next((r for r in reversed(records.metrics(run)) if r["split"] == "train"), {})
    step, total, speed = last.get("step"), records.plan(run).get("total_steps"), last.get("samples_per_s")
    if step and total and speed and step != said:
        left = last.get("samples", 0) / step * (total - step) / speed
        more = f"about {duration(left)} to go" if step < total else "it is scored, and saves"
        tell(f"relaunch compare: {run.path.name}: step {step:,} of {total:,}; {more}", sys.stderr)
    return step


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def why(log: Path) -> str:
    """The last line of a log that says why it ended: `relaunch: 70 the loss …` without its beginning."""
    try:
        lines = files.read_small(log).decode(errors="replace").splitlines()
    except OSError:
        return ""
    found = [m for line in lines if (m := re.match(r"relaunch: (\d+ .*)", line))]
    return found[-1][1] if found else ""
