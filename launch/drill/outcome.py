"""What a drill found: whether both trainings ended the same, what the kills cost, and the page that says so.

found = outcome.Outcome(drill)
found.unlike        # [], or what differs, the first first
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.names import command, table
from relaunch.launch.drill.moments import AIMED
from relaunch.launch.drill.training import Drill, Kill, lost
from relaunch.trainers import goodput, records
from relaunch.trainers.bench.measure import TIMES
from relaunch.trainers.pages import about, page, report
from relaunch.trainers.pages.blocks import Code, Facts, Heading, Prose, Table
from relaunch.trainers.pages.told import several
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint

STATE = ("model.safetensors", "optimizer.safetensors")
DAY = 86400.0  # s
MEANS = """\
Both trainings have the same settings. One was left alone. The other was killed with SIGKILL, which no \
program can notice or delay, and each time started again with --resume auto, until it was done. Where the \
launcher is killed, the kernel tells the processes that train: they save and leave. Where one of these is \
killed, what was done since the last checkpoint is done again.

The step of a kill is reckoned from the log and the pace of the undisturbed training. Seconds lost are those \
of repeated steps and of restarts: from the kill to the first step of the next start, with the wait in a \
queue if there is one. A drill shows what killed processes cost. It does not show a node without power, or a \
disk that loses what it has confirmed."""


@dataclass(frozen=True)
class Row:
    """A kill, with what came of it."""

    kill: Kill
    resumed: int
    lost: float  # s

    @property
    def repeated(self) -> int:
        return max(0, self.kill.step - self.resumed)


class Outcome:
    """Of a drill whose trainings are done."""

    def __init__(self, drill: Drill):
        self.drill, self.calm, self.run = drill, drill.calm, drill.run
        self.spent = [records.time_spent(run) for run in (self.calm, self.run)]
        self.config, self.plan = records.config(self.run), records.plan(self.run)
        self.last = [last_of(run) for run in (self.calm, self.run)]
        self.hashes = {name: [files.sha256(path / name) for path in self.last] for name in STATE}

    @cached_property
    def rows(self) -> list[Row]:
        starts, kills = records.starts(self.run), self.drill.kills
        until = [kill.lost for kill in kills[1:]] + [lost(self.run)]
        return [
            Row(
                kill,
                starts[kill.starts]["step"] if kill.starts < len(starts) else kill.step,
                after - kill.lost,
            )
            for kill, after in zip(kills, until)
        ]

    @cached_property
    def unlike(self) -> list[str]:
        """What is not equal, in words; empty: nothing."""
        steps = [records.step_of(path) for path in self.last]
        found = [f"it ended at step {steps[1]:,} and not at {steps[0]:,}"] if steps[0] != steps[1] else []
        found += [f"{name} differs" for name, (one, other) in self.hashes.items() if one != other]
        return found + rows_unlike(self.calm, self.run)

    # in words -------------------------------------------------------------------------------------

    def times(self) -> str:
        kills = len(self.drill.kills)
        return f"killed {kills} time{'s' * (kills > 1)}"

    def verdict(self) -> str:
        what = f"{self.config.get('workload')} on {self.config.get('data')}, {self.times()}"
        if self.unlike:
            return f"{what} and resumed, did not end as the undisturbed training: {self.unlike[0]}."
        rows = len(records.metrics(self.calm))
        return (
            f"{what} and resumed, ended with the weights, the optimizer's state and all {rows:,} rows of "
            "metrics of an undisturbed training, to the bit."
        )

    def facts(self) -> list[tuple[str, str]]:
        repeated, total = sum(row.repeated for row in self.rows), records.step_of(self.last[1])
        kills, asked, all_lost = len(self.rows), len(self.drill.moments), lost(self.run)
        late = f" of {asked}: the training ended before the others" if kills < asked else ""
        if (stops := len(records.starts(self.run)) - 1 - kills) > 0:
            times = f"{stops:,} time{'s' * (stops > 1)}"
            late += f"; it was also stopped and gone on with {times}, which counts as time lost"
        each, causes = all_lost / kills, self.spent[1]["causes"]
        calm, told = (dict(goodput.rows(spent)) for spent in self.spent)
        walls = [goodput.amount(spent["wall"]) for spent in self.spent]
        return [
            ("kills survived", f"{kills}{late}"),
            ("steps repeated", f"{repeated:,}, {100 * repeated / total:.1f} % of {total:,}"),
            (
                "time lost",
                f"{goodput.amount(all_lost)}: restarts {goodput.amount(causes['restarts'])}, "
                f"repeated steps {goodput.amount(causes['repeated'])}",
            ),
            (
                "lost for each kill",
                f"{goodput.amount(each)}: with one failure in 24 hours, {100 * each / DAY:.2g} % of the time",
            ),
            ("wall time", f"{walls[1]}; undisturbed {walls[0]}"),
            ("goodput", f"{told['goodput']}; undisturbed {calm['goodput'].partition(':')[0]}"),
            ("badput", told["badput"]),
        ]

    def kills(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of the table of kills."""
        head = ["kill", "at", "killed", "at step", "found on the disk", "resumed at", "repeated", "lost"]
        return head, [
            [
                str(number),
                time.strftime("%H:%M:%S", time.localtime(row.kill.at)),
                row.kill.victim,
                f"{row.kill.step:,}",
                row.kill.found,
                f"{row.resumed:,}",
                f"{row.repeated:,}",
                goodput.amount(row.lost),
            ]
            for number, row in enumerate(self.rows, 1)
        ]

    def text(self) -> str:
        """The short form, for a terminal."""
        head, rows = self.kills()
        return "\n".join(
            [self.verdict(), "", *table([head, *rows], left=5), "", *table(self.facts(), left=2)]
        )

    # the page -------------------------------------------------------------------------------------

    def blocks(self, drawn_from: str) -> list:
        head, rows = self.kills()
        told = several([self.calm, self.run])
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(records.times(self.calm).get("first", 0)))
        where = f"Begun {begun} on {self.plan.get('host', '?')}."
        typed = command(["relaunch", "drill", *self.drill.typed])
        sums = [command(["sha256sum", *(str(path / name) for path in self.last)]) for name in STATE]
        again = (
            f"The moments and what is killed are drawn from the words “{drawn_from}”: in a folder without "
            f"that drill, the first command draws the same again. One kill in {AIMED} is aimed at a save."
        )
        return [
            Prose(f"{self.verdict()}\n\n{where}"),
            Facts(self.facts()),
            Heading("The kills"),
            Table(head, rows),
            Prose(MEANS),
            Heading("What was compared"),
            Table(["", "undisturbed", "killed", "equal"], self.compared()),
            *(Prose(f"{each}.") for each in self.unlike),
            Heading("Where the time went"),
            *report.time(told),
            Heading("Hardware and software"),
            *about.machine(told),
            Heading("Settings"),
            *about.settings(told),
            Heading("To repeat it"),
            Prose(again),
            Code("\n".join([typed, *sums])),
        ]

    def compared(self) -> list[list[str]]:
        made = [
            [f"SHA-256 of {name}", *(h[:16] for h in hashes), "yes" if hashes[0] == hashes[1] else "no"]
            for name, hashes in self.hashes.items()
        ]
        counts = [f"{len(records.metrics(run)):,}" for run in (self.calm, self.run)]
        same = "no" if rows_unlike(self.calm, self.run) else "yes"
        return [*made, ["rows of metrics.jsonl, without times", *counts, same]]

    def write(self, drawn_from: str) -> Path:
        """page.html and page.md; returns the former's path."""
        title = f"A drill of {self.config.get('workload')}: {self.times()}"
        blocks, target = self.blocks(drawn_from), self.drill.folder / "page.html"
        with files.storage(target, "--run"):
            files.write_atomic(target, page.html(title, blocks))
            files.write_atomic(
                target.with_suffix(".md"), page.markdown(title, blocks, target.with_suffix(""))
            )
        return target


def last_of(run: RunDir) -> Path:
    """A done training's last checkpoint, every byte of it verified. Failure 65."""
    if (path := checkpoint.newest_valid(run)) is None:
        raise Failure(DATA, f"{run.path} has no checkpoint", "choose another --run")
    return path


def rows_unlike(one: RunDir, other: RunDir) -> list[str]:
    """The first row of the metrics that differs in more than times, or is one too few; empty: none."""
    both = [
        [{key: value for key, value in row.items() if key not in TIMES} for row in records.metrics(run)]
        for run in (one, other)
    ]
    for number, (a, b) in enumerate(zip(*both), 1):
        for key in {**a, **b}:
            if a.get(key) != b.get(key):
                where = f"row {number} of metrics.jsonl, {a['split']} at step {a['step']:,}"
                return [f"{where}: {key} is {b.get(key)} and not {a.get(key)}"]
    counts = [len(rows) for rows in both]
    return [f"metrics.jsonl has {counts[1]:,} rows and not {counts[0]:,}"] if counts[0] != counts[1] else []
