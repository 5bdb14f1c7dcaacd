"""The page of a comparison, as blocks; and its files.

page.write(comparison, Path("compares/cifar10-batch_size"))    # compare.json, .csv, .html, .md
"""

from __future__ import annotations

from pathlib import Path

from relaunch.data_prep import files
from relaunch.trainers import goodput
from relaunch.trainers.bench import reading, tables
from relaunch.trainers.bench.comparison import CANNOT, MEASURED, Comparison

NAME = "compare"
MEANS = """\
Time is that of the training's steps: start-up, evaluations and checkpoints are apart, and so is the first \
log window of each run, in which a process warms up. The seconds are those of all samples at the speed of \
the rest. ± is the standard deviation of the repeats; each repeat has a seed of its own, and the repeats of \
all cells take turns.

Within the spread: no more than one repeat and another differ. More than the spread: more than the repeats \
explain (Welch's t-test, 95 %). Between the two it may be chance, and more repeats would tell."""


FILL = """\
To fill in what cannot be measured here: the command below with those values alone in --grid, on a machine \
that can; then copy what lies in its runs/ into runs/ beside this page, and type the command here again."""


def blocks(c: Comparison, title: bool = True) -> list:
    """What a page says of a comparison; `title`: with headings of its own."""
    from relaunch.trainers.pages.blocks import Code, Facts, Heading, Note, Prose, Table

    timed = c.timed()
    found: list = [Prose(line) for line in [*reading.lead(c), *than_best(c)]]
    found += [Heading("Results")] if title else []
    order = timed + [cell for cell in c.cells if cell not in timed]
    caption = f"{c.workload}: {c.rule}; {c.repeats} repeat{'s' * (c.repeats > 1)}"
    found.append(Table(tables.head(c), [tables.row(c, cell) for cell in order], caption, sortable=True))
    found += [Note(line) for line in reading.left_out(c)]
    if any(cell.state == CANNOT for cell in c.cells):
        found.append(Note(FILL))
    found += charts(c)
    said = [*reading.against_baseline(c), *reading.doubts(c)]
    found += [Heading("Reading")] if title and said else []
    found += [Prose(line) for line in said]
    found += [Heading("How it was measured")] if title else []
    found.append(Prose(MEANS))
    found += [Prose(note) for note in c.notes]
    found.append(Facts(where(c)))
    found += [Code(c.command)] if c.command else []
    return found


def charts(c: Comparison) -> list:
    """A bar for each cell, in the grid's order, of its time, speed, quality and memory."""
    from relaunch.trainers.pages import charts as draw

    if not any(cell.state == MEASURED for cell in c.cells):
        return []
    by = f" by {' · '.join(c.grid)}" if c.grid else ""
    labels = [" · ".join(cell.settings.values()) or c.workload for cell in c.cells]

    def bars(repeats, unit: str, title: str):
        means = [each.mean if each else None for each in repeats]
        spread = [each.sd or 0.0 if each else 0.0 for each in repeats]
        return draw.bars(labels, means, unit, title + by, spread)

    memory = [cell.repeats("device_memory_mb") or cell.repeats("peak_memory_mb") for cell in c.cells]
    metric = tables.metric(c)
    found = []
    if c.equal or c.target:
        until = f" to {c.target}" if c.target else ""
        found.append(bars([c.time(cell) for cell in c.cells], "seconds", f"Time{until}"))
    found.append(bars([cell.repeats("samples_per_s") for cell in c.cells], f"{c.unit}/s", "Speed"))
    if metric and not c.target:
        unit = f"{metric} (%)" if metric in reading.PERCENT else metric
        found.append(bars([cell.quality() for cell in c.cells], unit, metric))
    if any(memory):
        on = "device" if any(cell.repeats("device_memory_mb") for cell in c.cells) else "host"
        found.append(bars(memory, "MB", f"Peak memory ({on})"))
    spent = [cell.causes() for cell in c.cells]
    if any(spent):
        parts = {word: [each.get(cause, 0.0) for each in spent] for cause, word in goodput.NAMES.items()}
        parts = {word: seconds for word, seconds in parts.items() if any(seconds)}
        found.append(draw.stacked(labels, parts, "seconds", f"All of a run's time{by}"))
    return found


def than_best(c: Comparison) -> list[str]:
    """How many times faster the best is than each other, as hyperfine says it."""
    best, *others = c.timed() or [c.baseline]
    if len(others) == 1 and best is not c.baseline:  # the lead has said it
        return []
    pairs = [(c.faster(best, cell), cell) for cell in others]
    return [f"{reading.times(pair)} faster than {cell.name}" for pair, cell in pairs if pair]


def where(c: Comparison) -> list[tuple[str, str]]:
    """What the runs ran on, each fact once if it is the same for all."""
    rows = []
    for name, label in (
        ("host", "machine"),
        ("device_name", "device"),
        ("threads", "threads of each process"),
        ("world", "processes"),
    ):
        by_cell = {
            cell.name: ", ".join(sorted({str(m.facts.get(name)) for m in cell.measures}))
            for cell in c.cells
            if cell.measures
        }
        values = sorted(set(by_cell.values()))
        if len(values) == 1:
            rows.append((label, values[0]))
        else:
            rows += [(f"{label}, {cell}", value) for cell, value in by_cell.items()]
    return [("how long", c.rule), *rows]


def write(c: Comparison, folder: Path) -> None:
    """Write compare.json, compare.csv, compare.html and compare.md. OSError."""
    from relaunch.trainers.pages import page

    files.write_atomic(folder / f"{NAME}.json", files.dump_json(c.to_json()))
    files.write_atomic(folder / f"{NAME}.csv", tables.csv_text(c))
    title, shown = f"{c.workload}: {', '.join(c.grid) or 'one setting'} compared", blocks(c)
    files.write_atomic(folder / f"{NAME}.html", page.html(title, shown))
    files.write_atomic(folder / f"{NAME}.md", page.markdown(title, shown, folder / "pictures"))
