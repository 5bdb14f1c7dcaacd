"""Results of the benchmarks, JSON lines as --json writes them, as a page.

    python benchmarks/table.py build/bench.jsonl docs/performance.md

Of each program the last run counts. What stands below the page's mark was written by hand, and stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import fields
from pathlib import Path

from rows import Reached, Row

MARK = "<!-- Written by hand from here on: `make bench` keeps it. -->"
BY_HAND = "## What was tried and did not help\n\nNothing is recorded yet.\n"
HEAD = """# Performance

What a training with Relaunch takes beside what people run instead: `make bench` measures all of it and writes
this page. Both sides alternate in blocks within one run, with the same number of threads, each in a process
set up as its users have it. A ratio is the median over rounds of neighbouring blocks, with its quartiles; a
bound is met when the CPU time and the wall time both keep it. What each program compares, and with what, is
said at its top, in `benchmarks/`. Figures of one kind of CPU do not hold on another.
"""


def page(records: list[dict], by_hand: str) -> str:
    """The whole page of rows and of what was skipped, in the order in which they were measured."""
    last = {record["program"]: record["run"] for record in records}
    records = [record for record in records if record["run"] == last[record["program"]]]
    skipped = [record for record in records if "skipped" in record]
    measured = [record for record in records if "skipped" not in record]
    rows = [made(Row, record) for record in measured if "goal" not in record]
    goals = [made(Reached, record) for record in measured if "goal" in record]
    parts = [HEAD, verdict(rows, goals)]
    for setting in settings([*rows, *goals]):
        parts += [f"## {setting}\n"]
        if same := [row for row in rows if said(row) == setting]:
            parts += [ratios(same), sides(same)]
        if same_goals := [row for row in goals if said(row) == setting]:
            parts += [reached(same_goals)]
    if rows or goals:
        commands = dict.fromkeys(row.setting["command"] for row in [*rows, *goals])
        parts.append("```bash\n" + "\n".join(commands) + "\n```\n")
    if skipped:
        parts.append("Not measured:\n")
        parts += [f"- {name(r['program'], r['what'])}: {r['skipped']}" for r in skipped] + [""]
    return "\n".join([*parts, MARK, "", by_hand])


def made(kind, record: dict):
    return kind(**{f.name: record[f.name] for f in fields(kind)})


def name(program: str, what: str) -> str:
    return f"{program} {what}".strip()


def verdict(rows: list[Row], goals: list[Reached]) -> str:
    """How many bounds are met, and each that is not."""
    bound = [row for row in rows if row.met is not None]
    missed = [row for row in bound if not row.met]
    late = [row for row in goals if not row.met]
    count = len(bound) + len(goals)
    lines = [f"**{count - len(missed) - len(late)} of {count} bounds are met.**"]
    for goal in late:
        found = f"{min(goal.top1):.2f} % at the least, {statistics.median(goal.cpu):.1f} s of CPU"
        lines.append(f"- Missed: {goal.program} {goal.what}: {found}.")
    for row in missed:
        worst = (min if row.least else max)(middle for _, middle, _ in row.ratios.values())
        where = f"{'at least' if row.least else 'at most'} {row.bound:g}"
        lines.append(f"- Missed: {name(row.program, row.what)} is at {worst:.3g}, and should be {where}.")
    if busy := [row for row in rows if {"CPU", "wall"} <= set(row.ratios) and disturbed(row)]:
        where = ", ".join(name(row.program, row.what) for row in busy)
        lines.append(
            f"- The machine had other work during: {where}. Their wall time is that of a busy machine."
        )
    return "\n".join(lines[:1] + [""] * bool(lines[1:]) + lines[1:]) + "\n"


def disturbed(row: Row) -> bool:
    """Whether a side had less than nine tenths of the time that it took."""
    return any(side["cpu_ms"] < 0.9 * side["wall_ms"] for side in row.sides.values())


def said(row: Row | Reached) -> str:
    """The setting of a row, which rows of one table share."""
    s = row.setting
    versions = ", ".join(f"{key} {value}" for key, value in s["versions"].items())
    threads = f"{s['threads']} thread{'s' * (s['threads'] > 1)}"
    return f"{s['date']}, {s['machine']['cpu']}, {s['machine']['cpus']} cores, {threads} a side; {versions}"


def settings(rows: list[Row | Reached]) -> list[str]:
    return list(dict.fromkeys(map(said, rows)))


def ratios(rows: list[Row]) -> str:
    lines = [["program", "work", "ratio", "rounds", "before", "must reach", "met"]]
    for row in rows:
        shown = [f"{key} **{m:.3g}** ({low:.3g}-{high:.3g})" for key, (low, m, high) in row.ratios.items()]
        bound = "" if row.bound is None else f"{'≥' if row.least else '≤'} {row.bound:g}"
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        rounds = str(row.setting["rounds"])
        lines.append([row.program, row.what, "; ".join(shown), rounds, row.before or "-", bound, met])
    return table(lines)


def reached(goals: list[Reached]) -> str:
    """Accuracy and time of each goal's runs, and the peer's time to the same."""
    lines = [["to", "seeds", "top-1", "lowest", "CPU s", "wall s", "must take", "theirs, CPU s", "met"]]
    for row in goals:
        deviation = statistics.stdev(row.top1) if len(row.top1) > 1 else 0.0
        bound = f"≤ {row.bound:g} s" if row.bound else ""
        times = [f"{statistics.median(of):.1f}" for of in (row.cpu, row.wall)]
        top1 = [f"{statistics.fmean(row.top1):.2f} ± {deviation:.2f} %", f"{min(row.top1):.2f} %"]
        theirs = f"{row.peer['cpu']:.0f}" if row.peer else ""
        lines.append(
            [row.what, str(len(row.top1)), *top1, *times, bound, theirs, "yes" if row.met else "**no**"]
        )
    return table(lines)


def sides(rows: list[Row]) -> str:
    """What each side took, and its loss."""
    head = "program,work,side,unit,wall ms,CPU ms,samples/s,minor faults,peak MB,loss".split(",")
    lines = [head]
    for row in rows:
        for side, s in row.sides.items():
            rate = f"{row.samples[side]:,.0f}" if side in row.samples else ""
            numbers = [f"{s['wall_ms']:,.4g}", f"{s['cpu_ms']:,.4g}", rate, f"{s['faults']:,.0f}"]
            loss = "" if s["loss"] is None else f"{s['loss']:.4f}"
            lines.append([row.program, row.what, side, row.unit, *numbers, f"{s['peak_mb']:,.0f}", loss])
    return table(lines)


def table(lines: list[list[str]]) -> str:
    head, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest]) + "\n"


def kept(path: Path) -> str:
    """What the page holds below its mark."""
    text = path.read_text() if path.exists() else ""
    return text.partition(MARK)[2].lstrip("\n") or BY_HAND


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    args = parser.parse_args()
    records = [json.loads(line) for line in args.results.read_text().splitlines()]
    args.page.write_text(page(records, kept(args.page)))


if __name__ == "__main__":
    main()
