"""ResNet-18 on Tiny-ImageNet: a CPU, a GPU, eight GPUs; and two checkpoints judged image by image."""

from __future__ import annotations

from relaunch.data_prep import files
from relaunch.launch.lab.bench import DASH, Bench, evaluated, number
from relaunch.launch.lab.steps import Lab, Step
from relaunch.launch.runs import duration
from relaunch.trainers import records
from relaunch.trainers.pages.blocks import Picture, Prose

TITLE = "tiny_title"
REFERENCES = (
    "K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition. arXiv:1512.03385, 2015.",
    "Tiny ImageNet, Stanford CS231n: http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "PyTorch examples, imagenet: https://github.com/pytorch/examples/tree/main/imagenet",
    "Q. McNemar: Note on the sampling error of the difference between correlated proportions. 1947.",
)
QUICK_DATA = "tiny_imagenet"
DEVICES = {"cpu": (0, "cpu", 14400), "1gpu": (1, "1gpu", 900), "8gpu": (8, "8gpu", 300)}  # GPUs, config, s


def steps(lab: Lab) -> list[Step]:
    # quick: long enough for a curve, far too short to learn; every tenth step a checkpoint, the first is kept
    few = ("--max-steps", "20", "--log-interval", "2", "--save-every", "10")
    whole = ("--epochs", "15", "--log-interval", "100", "--save-every", "100000")
    flags = (*(few if lab.quick else whole), "--keep", "15")

    def train(name: str) -> Step:
        gpus, config, seconds = DEVICES[name]
        return lab.train(name, *flags, config=config, gpus=gpus, seconds=60 if lab.quick else seconds)

    made = "cpu"  # the run whose checkpoints are scored: the one that any machine has
    return [
        lab.prep(60),
        lab.summary("network"),
        *map(train, DEVICES),
        lab.evaluate("first", made, "--outputs", at="@first", seconds=20),
        lab.evaluate("best", made, "--outputs", at="@best", seconds=20),
        lab.diff("changed", made, "@first", "@best", seconds=30),
        lab.export(made, at="@best"),
    ]


# the page -----------------------------------------------------------------------------------------


def blocks(bench: Bench) -> list:
    return [
        bench.heading("arranged"),
        bench.prose("arranged_how", command=f"relaunch prep {bench.lab.data} --as-folders"),
        bench.heading("network"),
        *bench.layers("network"),
        *bench.graph("network"),
        *devices(bench),
        *judged(bench),
        *sizes(bench),
        bench.heading("reading"),
        *reading(bench),
    ]


def devices(bench: Bench) -> list:
    """Four curves for each device, and a table of what each took."""
    there = {name: name for name in DEVICES if bench.done(name)}
    made: list = [bench.heading("curves")]
    made += bench.curves(there, (("loss", "loss"), ("top1", "accuracy"), ("top5", "top5")), "val")
    rates = {name: rate(bench, name) for name in there}
    rows = []
    for name in there:
        gpus, one = DEVICES[name][0], rates.get("1gpu")
        scaled = f"{100 * rates[name] / (gpus * one):.0f} %" if gpus and one and rates[name] else DASH
        rows.append(
            [
                name,
                f"{records.status(bench.lab.run(name)).get('step', 0):,}",
                duration(bench.seconds(name)),
                number(rates[name], 0),
                scaled,
                number(bench.last(name, "val", "top1"), 2, " %"),
                number(bench.last(name, "val", "top5"), 2, " %"),
            ]
        )
    made.append(bench.heading("devices"))
    if rows:
        head = ("device", "steps", "time", "speed", "efficiency", "accuracy", "top5")
        made.append(bench.table(head, rows, bench.say("efficiency_how")))
    return [*made, *bench.missing(*DEVICES), *bench.spent(there)]


def rate(bench: Bench, name: str) -> float | None:
    """Samples a second: over the whole run if its record has that, else the last log line's."""
    told = records.time_spent(bench.lab.run(name)).get("samples_per_s")
    return told or bench.last(name, "train", "samples_per_s")


def judged(bench: Bench) -> list:
    made: list = [bench.heading("two")]
    if not bench.done("first", "best", "changed"):
        return [*made, *bench.missing("first", "best", "changed")]
    found = [evaluated(bench.steps[name].leaves) for name in ("first", "best")]
    made.append(bench.prose("two_how", run=bench.lab.run("cpu").path, n=f"{found[0]['n']:,}"))
    rows = []
    for each in found:
        values = [
            number(each["metrics"].get(key), 4 * (key == "loss") or 2) for key in ("loss", "top1", "top5")
        ]
        rows.append([f"step {each['step']:,}", values[0], f"{values[1]} %", f"{values[2]} %"])
    made.append(bench.table(("checkpoint", "loss", "accuracy", "top5"), rows))
    folder = bench.steps["changed"].leaves.parent
    diff = records.read(folder / "diff.json", {})
    n, agree, p = diff["n"], diff["agree"], diff.get("mcnemar_p")
    facts = dict(agree=f"{agree:,}", n=f"{n:,}", percent=f"{100 * agree / n:.1f}")
    facts |= dict(to_right=f"{diff['wrong_to_right']:,}", to_wrong=f"{diff['right_to_wrong']:,}")
    made.append(bench.prose("agree", **facts, p=DASH if p is None else f"{p:.3g}"))
    try:
        png = files.read_small(folder / "changed.png")
    except OSError:
        return made
    caption = bench.say("changed", path=folder)
    return [*made, Picture(png, caption, caption)]


def sizes(bench: Bench) -> list:
    made: list = [bench.heading("sizes")]
    if not bench.done("export"):
        return [*made, *bench.missing("export")]
    run, out = bench.lab.run("cpu"), bench.steps["export"].leaves
    whole = sum(f.stat().st_size for f in records.committed(run)[-1].iterdir())
    rows = [[bench.say("whole"), megabytes(whole)]]
    rows += [[name, megabytes((out / name).stat().st_size)] for name in records.names(out)]
    return [*made, bench.prose("sizes_how"), bench.table(("file", "size"), rows)]


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"


def reading(bench: Bench) -> list:
    told = []
    for name in DEVICES:
        if not bench.done(name):
            continue
        curves = bench.curve(name, "loss")
        scored = curves["val"]
        if len(scored) > 1:  # of one evaluation there is no lowest
            best, least = min(scored, key=lambda point: point[1])
            facts = dict(best=f"{best:.3g}", least=f"{least:.3f}", last=f"{scored[-1][1]:.3f}", name=name)
            facts |= {split: number(bench.last(name, split, "top1")) for split in ("train", "val")}
            after = [loss for epoch, loss in curves["train"] if epoch >= best]
            rose = scored[-1][1] > 1.02 * least and bool(after) and after[-1] < after[0]
            told += [bench.say("gap", **facts), bench.say("overfit" if rose else "no_overfit")]
        spent = records.time_spent(bench.lab.run(name))
        if spent:
            cause = max(spent["causes"], key=spent["causes"].__getitem__)
            facts = dict(name=name, bound=bench.say(f"cause_{cause}"), advice=spent["advice"])
            facts |= dict(share=f"{100 * spent['causes'][cause] / (spent['wall'] or 1):.0f}")
            told.append(bench.say("bound_is", **facts))
    return [*map(Prose, told), *bench.missing("cpu")]
