"""CIFAR-10: one change at a time to the tutorial's training, each with the spread of its repeats."""

from __future__ import annotations

import csv
import io

from relaunch.data_prep import files
from relaunch.launch.lab import engine
from relaunch.launch.lab.bench import DASH, Bench, evaluated, folded, number
from relaunch.launch.lab.steps import Lab, Step
from relaunch.launch.lab.words import Say
from relaunch.launch.runs import duration
from relaunch.trainers import records
from relaunch.trainers.bench import spread
from relaunch.trainers.pages import charts
from relaunch.trainers.pages.blocks import Code, Note, Prose

TITLE = "cifar_title"
REFERENCES = (
    "PyTorch tutorials, Training a Classifier: "
    "https://docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html",
    "A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images. 2009 (CIFAR-10).",
    "P. Goyal et al.: Accurate, Large Minibatch SGD. arXiv:1706.02677, 2017.",
    "S. Ioffe, C. Szegedy: Batch Normalization. arXiv:1502.03167, 2015.",
)
HEADER = ("Optimization Technique", "Training Time (seconds)", "Accuracy (%)", "Memory Usage (MB)", "Epochs")
QUICK_DATA = "cifar10"
NETWORKS, LAYERS = ("net", "simple_cnn"), "-layers"  # LAYERS: of a summary's name
# one section per change: its grid, whose first value is what the others are compared with; epochs; seconds of
# one repeat. Raw images are read one by one: two epochs show what workers are worth
BOTH = "config=cpu,1gpu"
CHANGES: dict[str, tuple[tuple[str, ...], int, float]] = {
    "device": ((BOTH,), 10, 180),
    "batch": (("batch_size=4,16,32", BOTH), 10, 280),
    "rate": (("lr=0.001,0.002,0.008", "batch_size=32"), 10, 120),
    "precision": (("precision=no,bf16", "batch_size=32", BOTH), 10, 120),
    "workers": (("workers=0,2,4", "batch_size=4,32"), 2, 300),
    "network": (("arch=net,net_bn,simple_cnn", "batch_size=32"), 10, 220),
}


def steps(lab: Lab) -> list[Step]:
    made = [lab.prep(30), *(lab.summary(name + LAYERS, "--arch", name) for name in NETWORKS)]
    long = ("--max-steps", "400", "--log-interval", "50") if lab.quick else ("--epochs", "10")
    for name in NETWORKS:
        flags = ("--preset", "tutorial", "--arch", name, *long)
        made.append(lab.train(name, *flags, seconds=15 if lab.quick else 250))
        made.append(lab.evaluate(f"{name}-test", name, seconds=8))
    for name, (grid, epochs, seconds) in CHANGES.items():
        few = ("--samples", "1024", "--repeats", "2")
        much = few if lab.quick else ("--epochs", str(epochs), "--repeats", "3")
        flags = ("--preset", "tutorial", "--grid", *grid, *much)
        if name == "workers":
            raw = ("--raw", lab.source) if lab.source else ()  # else where prep has kept its download
            flags = ("--input", "raw", *raw, *flags)
        flags = flags if BOTH in grid else ("--config", "cpu", *flags)
        made.append(lab.compare(f"compare-{name}", *flags, seconds=40 if lab.quick else 3 * seconds))
    return made


# the page -----------------------------------------------------------------------------------------


def blocks(bench: Bench) -> list:
    return [
        bench.heading("models"),
        bench.prose("models_how"),
        *(part for name in NETWORKS for part in network(bench, name)),
        *trained(bench),
        *(part for name in CHANGES for part in change(bench, name)),
        *together(bench),
    ]


def network(bench: Bench, name: str) -> list:
    return [bench.under("network_of", name=name), *bench.layers(name + LAYERS)]


def trained(bench: Bench) -> list:
    there = {name: name for name in NETWORKS if bench.done(name)}
    made: list = [bench.heading("trained")]
    made += bench.curves(there, (("loss", "loss"), ("top1", "accuracy")), "test")
    rows = []
    for name in there:
        found = evaluated(bench.steps[f"{name}-test"].leaves).get("metrics", {})
        steps = records.status(bench.lab.run(name)).get("step") or 0
        values = (number(found.get("loss"), 4), number(found.get("top1"), 2, " %"))
        rows.append([name, f"{steps:,}", *values, duration(bench.seconds(name)), bench.load(name)])
    if rows:
        made.append(bench.table(("run", "steps", "loss", "accuracy", "time", "busy"), rows))
    return [*made, *bench.missing("net", "simple_cnn", "net-test", "simple_cnn-test")]


def cells(bench: Bench, change: str) -> list[dict]:
    step = f"compare-{change}"
    if not bench.done(step):
        return []
    return records.comparison(bench.steps[step].leaves.parent).get("cells", [])


def change(bench: Bench, name: str) -> list:
    """One section: table, three bar charts, and what the spread lets one say."""
    made: list = [bench.heading(f"change_{name}")]
    step = bench.steps[f"compare-{name}"]
    if not bench.done(step.name):
        return [*made, *bench.missing(step.name)]
    found = cells(bench, name)
    count = max((len(c.get("runs") or []) for c in found), default=0)
    made.append(bench.prose("repeats", n=count))
    rows = [row(bench.say, cell) for cell in found]
    made.append(bench.table(("technique", "seconds", "quality", "rss", "speed"), rows))
    made += bars(bench, [cell for cell in found if cell.get("state") == "measured"])
    made += [Prose(text) for text in differences(bench.say, found)]
    if any(cell.get("state") == "cannot" for cell in found):
        again = engine.again(bench.lab)
        made += [Note(bench.say("gpu_cells", command=again, again=again)), Code(folded(step.typed))]
    return made


def row(say: Say, cell: dict) -> list[str]:
    if cell.get("state") != "measured":
        return [cell["name"], say("cell_cannot", reason=cell.get("reason", "")), *[DASH] * 3]
    return [
        cell["name"],
        repeated(cell.get("seconds"), 1),
        repeated(cell.get("quality"), 2),
        number(mean(cell, "peak_memory_mb"), 0),
        number(mean(cell, "samples_per_s"), 0),
    ]


def mean(cell: dict, field: str) -> float | None:
    value = cell.get(field)
    return value.get("mean") if isinstance(value, dict) else None


def repeated(value: dict | None, digits: int) -> str:
    if not value or value.get("mean") is None:
        return DASH
    sd = value.get("sd")
    return f"{value['mean']:,.{digits}f}" + (f" ± {sd:,.{digits}f}" if sd is not None else "")


BARS = (("seconds", "seconds"), ("quality", "quality"), ("peak_memory_mb", "rss"))


def bars(bench: Bench, measured: list[dict]) -> list:
    names, made = [cell["name"] for cell in measured], []
    for field, key in BARS if len(names) > 1 else ():
        sds = [(cell.get(field) or {}).get("sd") or 0.0 for cell in measured]
        title = bench.say(key)
        made.append(charts.bars(names, [mean(cell, field) for cell in measured], title, title, sds))
    return made


def differences(say: Say, found: list[dict]) -> list[str]:
    """A sentence for each cell against the first that was measured: does it differ by more than chance?"""
    measured = [cell for cell in found if cell.get("state") == "measured"]
    told = []
    for cell in measured[1:]:
        first = measured[0]
        ratio = mean(cell, "seconds") / mean(first, "seconds")
        facts = dict(name=cell["name"], baseline=first["name"], ratio=f"{ratio:.2f}")
        text = [say(f"time_{verdict(cell, first, 'seconds')}", **facts)]
        if mean(cell, "quality") is not None and mean(first, "quality") is not None:
            by = mean(cell, "quality") - mean(first, "quality")
            way = say("higher" if by > 0 else "lower")
            key = f"quality_{verdict(cell, first, 'quality')}"
            text.append(say(key, by=f"{abs(by):.2f}", direction=way))
        told.append(" ".join(text))
    return told


def verdict(one: dict, other: dict, field: str) -> str:
    """What compare itself says of two cells: beyond, within, open or unknown."""
    values = [(each.get(field) or {}).get("values") or [] for each in (one, other)]
    return spread.differ(*(spread.of(v) for v in values))


def together(bench: Bench) -> list:
    """All cells in one table, one set of bar charts, and the CSV that such reports hand in."""
    every: dict[str, dict] = {}
    for name in CHANGES:
        for cell in cells(bench, name):
            if cell.get("state") == "measured":
                every.setdefault(f"{name}: {cell['name']}", cell)
    made: list = [bench.heading("all_changes")]
    if not every:
        return made
    path = bench.lab.path("cifar10.csv")
    with files.storage(path, "--out FOLDER"):
        files.write_atomic(path, table_csv(every))
    rows = [[name, *row(bench.say, cell)[1:]] for name, cell in every.items()]
    made.append(bench.table(("technique", "seconds", "quality", "rss", "speed"), rows))
    made += bars(bench, [cell | {"name": name} for name, cell in every.items()])
    return [*made, bench.prose("csv_is", path=path)]


def table_csv(every: dict[str, dict]) -> str:
    """The header and rows of the CSV of such reports."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(HEADER)
    for name, cell in every.items():
        values = [mean(cell, field) for field, _ in BARS]
        epochs = (cell.get("epochs") or [""])[0]
        out.writerow([name, *("" if v is None else f"{v:.2f}" for v in values), epochs])
    return text.getvalue()
