"""A report on runs: everything that their folders tell, in the order in which one reads it.

blocks = run_blocks([RunDir("runs/first"), RunDir("runs/second")])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaunch.data_prep.names import printable
from relaunch.trainers import goodput
from relaunch.trainers.compare import changes, words
from relaunch.trainers.pages import about, charts, numbers
from relaunch.trainers.pages.blocks import Code, Facts, Heading, Note, Prose, Table
from relaunch.trainers.pages.curves import curves
from relaunch.trainers.pages.differ import changes_blocks
from relaunch.trainers.pages.judged import Judged, judgement, newest
from relaunch.trainers.pages.told import Told, several, shown

if TYPE_CHECKING:
    from relaunch.trainers.rundir import RunDir

IN_FULL = 3  # runs whose judgements are shown whole; of more, the best one's
SMALL = 0.005  # share of the wall time below which a cause is among the others
IMAGES = 72  # of mistakes, of all runs together


def title_of(runs: list[RunDir]) -> str:
    told = several(runs)
    if len(told) > 3:
        return f"{len(told)} runs of {', '.join(dict.fromkeys(run.workload for run in told))}"
    return ", ".join(run.name for run in told)


def run_blocks(runs: list[RunDir], root: str | None = None) -> list:
    """The blocks of a report on one run or several. `root`: the data root, for images.

    Reads, and executes nothing of the runs: what a run did not record is said to be missing. Needs no torch.
    """
    told = several(runs)
    blocks: list = [*opening(told), *about.results(told), *about.missing(told)]

    def section(name: str, found: list) -> None:
        blocks.extend([Heading(name), *found] if found else [])

    section("Curves", curves(told))
    section("Where the time went", time(told))
    section("Predictions", judgements(told, root))
    if len(told) == 2:
        section("What changed between the two", between(told, root))
    section("Generated text", generated(told))
    section("Model", about.models(told, root))
    section("Hardware and software", about.machine(told))
    section("Settings", about.settings(told))
    section("Commands", about.commands(told))
    return blocks


def opening(runs: list[Told]) -> list:
    """One sentence on what was trained on what."""
    parts = []
    for run in runs[:1] if len({(r.workload, r.config.get("data")) for r in runs}) == 1 else runs[:3]:
        arch, data = run.config.get("arch", "?"), run.config.get("data", "?")
        device, world = run.plan.get("device", "?"), run.plan.get("world", "?")
        name = run.plan.get("cpu" if device == "cpu" else "device_name") or device
        where = f"{world} × {name}"
        parts.append(f"{run.workload} ({arch}) on {data}, {where}")
    more = len(runs) - len(parts)
    text = "; ".join(parts)
    if more and len(parts) == 1:
        text = f"{len(runs)} runs: {text}"
    return [Prose(printable(text) + ".")]


# time -----------------------------------------------------------------------------------------------


def time(runs: list[Told]) -> list:
    """Causes of the wall time, and what is said of them."""
    told = [run for run in runs if run.spent]
    without = [run.name for run in runs if not run.spent]
    notes = [Note(f"Not recorded by {', '.join(without)}: of an earlier version, or just begun.")]
    if not told:
        return notes
    causes = [
        cause
        for cause in goodput.CAUSES
        if cause == "other" or any(r.spent["causes"][cause] >= SMALL * r.spent["wall"] for r in told)
    ]
    parts = {goodput.NAMES[cause]: [run.spent["causes"][cause] for run in told] for cause in causes}
    parts["other"] = [
        run.spent["wall"] - sum(run.spent["causes"][c] for c in causes if c != "other") for run in told
    ]
    walls = [run.spent["wall"] for run in told]
    if len(told) == 1:
        rows = [
            [name, goodput.amount(seconds), numbers.percent(seconds, walls[0])]
            for name, [seconds] in sorted(parts.items(), key=lambda part: -part[1][0])
        ]
        rows.append(["wall time", goodput.amount(walls[0]), numbers.percent(walls[0], walls[0])])
        seconds = [found[0] for found in parts.values()]
        blocks: list = [
            charts.bars([*parts], seconds, "s", "Wall time by cause"),
            Table(["cause", "time", "share"], rows),
        ]
    else:
        rows = [
            [run.name, goodput.amount(wall), *(numbers.percent(found[i], wall) for found in parts.values())]
            for i, (run, wall) in enumerate(zip(told, walls))
        ]
        blocks = [
            charts.stacked([run.name for run in told], parts, "s", "Wall time by cause"),
            Table(["run", "wall time", *parts], rows, sortable=True),
        ]
    for run in told[:IN_FULL]:
        blocks += [Heading(run.name, 3)] * (len(told) > 1)
        blocks.append(Facts(goodput.rows(run.spent)))
    return blocks + notes * bool(without)


# predictions ----------------------------------------------------------------------------------------


def judgements(runs: list[Told], root: str | None) -> list:
    """What the newest predictions say; of more than IN_FULL runs, a table of all and the best in full."""
    found = [newest(run, root) for run in runs]
    notes: list = [each for each in found if isinstance(each, Note)]
    judged = [each for each in found if isinstance(each, Judged)]
    blocks: list = []
    if len(judged) > 1:
        blocks += together(judged)
    full = judged
    if len(judged) > IN_FULL:
        full = [max(judged, key=good)]
        name = full[0].run.name
        blocks.append(Prose(f"In full for the best of them, {name}; of another: relaunch report RUN."))
    for each in full:
        step = "" if each.p.facts["step"] is None else f" at step {each.p.facts['step']:,}"
        where = f"{each.p.facts['data']}/{each.split}, {len(each.p):,} {each.p.roles.rows}"
        where = f"{each.run.name}{step} · {where}"
        blocks.append(Heading(where, 3))
        blocks += judgement(each, IMAGES // len(full))
    return blocks + notes


def good(judged: Judged) -> float:
    """Larger is better."""
    name, better = judged.p.roles.best
    value = changes.quality(judged.p).get(name)
    sign = 1 if better == "max" else -1
    return -float("inf") if value is None else sign * value


def together(judged: list[Judged]) -> list:
    """The metrics of all, and of few classes their accuracies beside each other."""
    names = list(dict.fromkeys(name for each in judged for name in changes.quality(each.p)))
    head = ["run", "step", "split", *(numbers.NAMES.get(n, (n, ""))[0] for n in names)]
    rows = [
        [
            each.run.name,
            "–" if each.p.facts["step"] is None else f"{each.p.facts['step']:,}",
            f"{each.p.facts['data']}/{each.split}",
            *(numbers.metric(name, changes.quality(each.p).get(name)) for name in names),
        ]
        for each in judged
    ]
    return [Table(head, rows, "Evaluated on every sample of the split", sortable=True)]


def between(runs: list[Told], root: str | None) -> list:
    """The prediction diff of two runs, where both have predictions of one split of one data set."""
    a, b = (newest(run, root) for run in runs)
    if isinstance(a, Judged) and isinstance(b, Judged) and a.split != b.split:
        b = newest(runs[1], root, a.split)
    if isinstance(a, Note) or isinstance(b, Note):
        missing = [each for each in (a, b) if isinstance(each, Note)]
        return [Note("A comparison needs the predictions of both."), *missing]
    if a.p.facts["data_hash"] != b.p.facts["data_hash"]:
        return [Note("They were trained on two different data sets: there is no sample to compare.")]
    if a.p.roles != b.p.roles:
        return [Note("They do not predict the same thing.")]
    names = a.names if len(a.names) >= len(b.names) else b.names
    result, changed = changes.compare(a.p, b.p, names)
    if a.p.roles.classes:
        result |= words.of_classes(a.p, b.p, None)
    for letter, each in (("a", a), ("b", b)):
        result[letter] = {"name": each.run.name, **each.p.facts}
    return changes_blocks(result, a.p, b.p, changed, a.packed or b.packed, names)


def generated(runs: list[Told]) -> list:
    """What language models wrote at their last evaluation."""
    blocks: list = []
    for run in runs:
        told = shown(run.run)
        for text in (found for found in told.values() if isinstance(found.get("text"), str)):
            step = text.get("step")
            where = f"at step {step:,}" if isinstance(step, int) else ""
            blocks += [Prose(f"{run.name} {where}"), Code(text["text"])]
        if not told and any("ppl" in record for record in run.metrics):
            command = f"relaunch generate {run.run.argument}"
            blocks.append(Note(f"{run.name} kept no text that it wrote: {command} writes one."))
    return blocks
