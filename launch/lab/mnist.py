"""The first lab: a small CNN on handwritten digits, its curves and operators at three batch sizes."""

from __future__ import annotations

import statistics

from relaunch.launch.lab.bench import DASH, Bench, device_name, evaluated, number
from relaunch.launch.lab.steps import Lab, Step
from relaunch.launch.lab.words import Say
from relaunch.launch.runs import duration
from relaunch.trainers import records
from relaunch.trainers.pages import charts
from relaunch.trainers.pages.blocks import Prose, Table

TITLE = "mnist_title"
REFERENCES = (
    "PyTorch examples, mnist: https://github.com/pytorch/examples/tree/main/mnist",
    "Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits.",
    "M. D. Zeiler: ADADELTA: An Adaptive Learning Rate Method. arXiv:1212.5701, 2012.",
    "PyTorch profiler: https://docs.pytorch.org/docs/stable/profiler.html",
)
QUICK_DATA = "digits"  # comes along: no download
SIZES = (64, 16, 1)  # of a batch, as the lab was set
# epochs: pytorch/examples' 14 at 64. A smaller batch takes as long for fewer, and its curve is told in epochs
EPOCHS = {False: {64: 14, 16: 3, 1: 1}, True: {64: 5, 16: 2, 1: 1}}
SECONDS = {False: {64: 900, 16: 420, 1: 420}, True: {64: 12, 16: 10, 1: 14}}


def steps(lab: Lab) -> list[Step]:
    epochs, seconds = EPOCHS[lab.quick], SECONDS[lab.quick]
    preset = ("--preset", "example")
    rows = {64: 20, 16: 80, 1: 250} if lab.quick else {64: 100, 16: 400, 1: 4000}  # steps between log lines

    def train(size: int, name: str, **how) -> Step:
        flags = ("-b", str(size), "--epochs", str(epochs[size]), "--log-interval", str(rows[size]))
        return lab.train(name, *preset, *flags, **how)

    return [
        lab.prep(10),
        lab.summary("network"),
        *(train(size, f"batch{size}", seconds=seconds[size]) for size in SIZES),
        lab.evaluate("final", "batch64", seconds=8),
        lab.profile("profile-cpu", "1,16,64", "cpu", 20),
        train(64, "gpu", seconds=120, gpus=1, config="1gpu"),
        lab.profile("profile-gpu", "1,16,64", "1gpu", 30, gpus=1),
    ]


# the page -----------------------------------------------------------------------------------------


def blocks(bench: Bench) -> list:
    runs = {f"batch{size}": f"batch {size}" for size in SIZES}
    return [
        bench.heading("network"),
        *bench.graph("network"),
        *bench.layers("network"),
        *training(bench, runs),
        *operators(bench),
        *devices(bench),
        *reading(bench),
    ]


def training(bench: Bench, runs: dict[str, str]) -> list:
    there = {name: label for name, label in runs.items() if bench.done(name)}
    made = [bench.heading("curves"), bench.prose("by_batch_why")]
    made += bench.curves(there, (("loss", "loss"), ("top1", "accuracy")), "test")
    rows = []
    for name, label in there.items():
        run, seconds = bench.lab.run(name), bench.seconds(name)
        steps, rate = records.status(run).get("step") or 0, speed(bench, name)
        rows.append(
            [
                label.removeprefix("batch "),
                str(EPOCHS[bench.lab.quick][int(label.removeprefix("batch "))]),
                f"{steps:,}",
                number(bench.last(name, "val", "loss"), 4),
                number(bench.last(name, "val", "top1"), 2, " %"),
                number(first_epoch(bench, name), 2, " %"),
                duration(seconds),
                number(rate, 0),
                bench.load(name),
            ]
        )
    head = ("batch", "epochs", "steps", "loss", "accuracy", "first_epoch", "time", "speed", "busy")
    if rows:
        made.append(bench.table(head, rows, bench.say("by_batch")))
    return [*made, *bench.missing(*runs), *bench.spent(there)]


def first_epoch(bench: Bench, name: str) -> float | None:
    """Test accuracy after one epoch, %."""
    return next((r["top1"] for r in bench.records(name, "val") if "top1" in r), None)


def speed(bench: Bench, name: str) -> float | None:
    """Samples a second while training, the median of the log lines."""
    found = [r["samples_per_s"] for r in bench.records(name, "train") if r.get("samples_per_s")]
    return statistics.median(found) if found else None


def operators(bench: Bench) -> list:
    made: list = [bench.heading("operators")]
    for device in ("cpu", "gpu"):
        name = f"profile-{device}"
        if not bench.done(name):
            made += bench.missing(name)
            continue
        settings = profiled(bench, name)
        made.append(bench.under("device_is", device=device.upper()))
        for each in settings:
            made.append(top_ten(bench, each, device))
        parts = {op.removeprefix("aten::"): [share(s, op) for s in settings] for op in busiest(settings)}
        parts["others"] = [max(0.0, 100 - sum(values)) for values in zip(*parts.values())]
        labels = [f"batch {s['batch_size']}" for s in settings]
        rows = [
            [str(s["batch_size"]), number(s["step_ms"]), number(s["sample_us"], 0)]
            + [number(s["phases"].get(part, 0.0)) for part in PHASES]
            for s in settings
        ]
        head = [bench.say(key) for key in ("batch", "per_step", "per_sample")]
        made.append(Table([*head, *PHASES], rows, bench.say("phases")))
        made.append(charts.stacked(labels, parts, "% of the time", bench.say("shares_move")))
        phases = {part: [s["phases"].get(part, 0.0) for s in settings] for part in PHASES}
        made.append(charts.stacked(labels, phases, "ms a step", bench.say("phases")))
    return made


PHASES = ("input", "forward", "backward", "optimizer")


def profiled(bench: Bench, name: str) -> list[dict]:
    """A profile's settings, the smallest batch first."""
    found = records.profile(bench.steps[name].leaves.parent).get("settings", [])
    return sorted(found, key=lambda s: s["batch_size"])


def cost(device: str) -> str:
    return "device_ms" if device == "gpu" else "self_ms"


def top_ten(bench: Bench, each: dict, device: str) -> Table:
    rows = [
        [
            op["name"],
            number(op.get(cost(device)), 3),
            number(100 * op["share"], 1, " %"),
            f"{op['calls']:,.0f}" if op["calls"] else DASH,
        ]
        for op in [*named(each)[:10], *outside(each)]
    ]
    name = each.get("device_name") or device.upper()
    size, step = each["batch_size"], f"{each['step_ms']:.2f}"
    caption = bench.say("operators_at", size=size, device=name, step=step)
    return bench.table(("operator", "self", "share", "calls_step"), rows, caption)


def named(setting: dict) -> list[dict]:
    """The operators, the busiest first, without the time between them."""
    return [op for op in setting["operators"] if op["calls"]]


def outside(setting: dict) -> list[dict]:
    """The time that no operator took: Python's own."""
    return [op for op in setting["operators"] if not op["calls"]]


def share(setting: dict, operator: str) -> float:
    """Of the time, %."""
    return next((100 * op["share"] for op in setting["operators"] if op["name"] == operator), 0.0)


def busiest(settings: list[dict]) -> list[str]:
    """The three busiest operators of each setting."""
    names = dict.fromkeys(op["name"] for s in settings for op in named(s)[:3])
    return list(names)[:6]


def devices(bench: Bench) -> list:
    rows = []
    for name, label in (("batch64", "CPU"), ("gpu", "GPU")):
        if bench.done(name):
            plan = records.plan(bench.lab.run(name))
            rows.append(
                [
                    f"{label} ({device_name(plan)})",
                    bench.load(name),
                    number(bench.last(name, "val", "top1"), 2, " %"),
                    number(bench.last(name, "val", "loss"), 4),
                    duration(bench.seconds(name)),
                ]
            )
    made: list = [bench.heading("with_gpu")]
    if rows:
        made.append(bench.table(("device", "busy", "accuracy", "loss", "time"), rows))
    return [*made, *bench.missing("gpu")]


# what the figures say -----------------------------------------------------------------------------


def reading(bench: Bench) -> list:
    """Sentences, each of measurements that are there."""
    say, told = bench.say, []
    if bench.done("final", "batch64"):
        found = evaluated(bench.steps["final"].leaves)
        n, top1 = found["n"], found["metrics"]["top1"]
        facts = dict(right=f"{round(n * top1 / 100):,}", n=f"{n:,}", top1=f"{top1:.2f}")
        facts |= dict(epochs=EPOCHS[bench.lab.quick][64], loss=f"{found['metrics']['loss']:.4f}")
        told.append(say("reached", **facts))
    for device in ("cpu", "gpu"):
        if bench.done(f"profile-{device}"):
            told += of_profile(say, profiled(bench, f"profile-{device}"), device)
    both = [name for name in ("batch64", "batch16", "batch1") if bench.done(name)]
    values = [(name.removeprefix("batch"), first_epoch(bench, name)) for name in both]
    if len(values) > 1:
        listed = ", ".join(f"{top1:.2f} % ({name})" for name, top1 in values if top1 is not None)
        n = bench.records(both[0], "val")[0].get("samples", 0)
        told.append(say("batch_quality", n=f"{n:,}", values=listed))
    if bench.done("batch64", "gpu"):
        one, other = bench.seconds("batch64"), bench.seconds("gpu")
        facts = dict(cpu=duration(one), gpu=duration(other), times=f"{one / max(other, 1e-9):.1f}")
        told.append(say("gpu_faster", **facts))
    return [bench.heading("reading"), *map(Prose, told)]


def of_profile(say: Say, settings: list[dict], device: str) -> list[str]:
    """Which operators dominate, how the time moves with the batch, and what of a step is the same at any."""
    small, large = settings[0], settings[-1]
    name, told = device.upper(), []
    for each in (small, large):
        first = named(each)[:3]
        facts = dict(device=name, size=each["batch_size"], first=first[0]["name"])
        facts |= dict(share=f"{100 * first[0]['share']:.0f}", three=", ".join(op["name"] for op in first))
        told.append(say("dominates", **facts, three_share=f"{100 * sum(op['share'] for op in first):.0f}"))
    facts = dict(small=small["batch_size"], large=large["batch_size"], device=name)
    facts |= dict(ms_small=f"{small['step_ms']:.2f}", ms_large=f"{large['step_ms']:.2f}")
    facts |= dict(us_small=f"{small['sample_us']:,.0f}", us_large=f"{large['sample_us']:,.0f}")
    facts |= dict(images=f"{large['batch_size'] / small['batch_size']:g}")
    told.append(say("moves", **facts, steps=f"{large['step_ms'] / small['step_ms']:.1f}"))
    fixed, each_ms = line([(s["batch_size"], s["step_ms"]) for s in settings])
    if fixed > 0 and small["batch_size"] == 1:
        part = min(100.0, 100 * fixed / small["step_ms"])
        facts = dict(fixed=f"{fixed:.2f}", each=f"{1000 * each_ms:,.0f}", share=f"{part:.0f}")
        told.append(say("fixed", **facts))
        facts = dict(ms=f"{small['phases']['optimizer']:.2f}", step=f"{small['step_ms']:.2f}")
        facts |= dict(ms_large=f"{large['phases']['optimizer']:.2f}", step_large=f"{large['step_ms']:.2f}")
        told.append(say("optimizer_share", **facts, large=large["batch_size"]))
    return told


def line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(y at 0, slope) of the straight line with the least relative squares: each point counts alike."""
    weights = [1 / max(y, 1e-12) ** 2 for _, y in points]
    total = sum(weights)
    mx = sum(w * x for w, (x, _) in zip(weights, points)) / total
    my = sum(w * y for w, (_, y) in zip(weights, points)) / total
    spread = sum(w * (x - mx) ** 2 for w, (x, _) in zip(weights, points))
    slope = sum(w * (x - mx) * (y - my) for w, (x, y) in zip(weights, points)) / spread if spread else 0.0
    return my - slope * mx, slope
