"""A Transformer language model: what it reaches, what it writes, and what each position reads."""

from __future__ import annotations

from relaunch.data_prep import files
from relaunch.launch.lab.bench import Bench, evaluated, number
from relaunch.launch.lab.steps import Lab, Step
from relaunch.launch.runs import duration
from relaunch.trainers import records
from relaunch.trainers.pages import charts
from relaunch.trainers.pages.blocks import Code, Prose

TITLE = "wiki_title"
REFERENCES = (
    "A. Vaswani et al.: Attention Is All You Need. arXiv:1706.03762, 2017.",
    "S. Merity, C. Xiong, J. Bradbury, R. Socher: Pointer Sentinel Mixture Models. arXiv:1609.07843, 2016 "
    "(WikiText-2).",
    "PyTorch examples, word_language_model: "
    "https://github.com/pytorch/examples/tree/main/word_language_model",
    "S. Bai, J. Z. Kolter, V. Koltun: An Empirical Evaluation of Generic Convolutional and Recurrent "
    "Networks for Sequence Modeling. arXiv:1803.01271, 2018.",
)
WIDTH = 3  # of the convolutions that attention is shown beside: the commonest
ROWS = 60  # of the log in the report: the first of a longer one, and its last
QUICK_DATA = "wikitext2"


def steps(lab: Lab) -> list[Step]:
    # a line each 200 steps, as the lab's log has it
    long = ("--max-steps", "60", "--log-interval", "10") if lab.quick else ("--log-interval", "200")
    run = lab.run("cpu").argument
    text = ("generate", run, "--words", "120", "--temperature", "0.8", "--seed", "1", *lab.root())
    maps = lab.path("attention.json")
    return [
        lab.prep(10),
        lab.summary("network"),
        lab.train("cpu", "--preset", "example", *long, seconds=90 if lab.quick else 13500),
        lab.train(
            "gpu", "--preset", "example", *long, config="1gpu", gpus=1, seconds=60 if lab.quick else 900
        ),
        lab.evaluate("test", "cpu", "--split", "test", seconds=60),
        Step(name="text", words=text, leaves=lab.path("text.txt"), seconds=10, after=("cpu",), answers=True),
        Step(
            name="attention",
            words=("attention", run, *lab.root(), "--out", str(maps)),
            leaves=maps,
            seconds=10,
            after=("cpu",),
        ),
    ]


# the page -----------------------------------------------------------------------------------------


def blocks(bench: Bench) -> list:
    return [
        *training(bench),
        *writing(bench),
        bench.heading("structure"),
        *bench.graph("network"),
        *bench.layers("network"),
        *context(bench),
    ]


def training(bench: Bench) -> list:
    there = {name: name for name in ("cpu", "gpu") if bench.done(name)}
    made: list = [bench.heading("log")]
    for name in there:
        records_of = bench.records(name, "train")
        rows = [row(bench, name, record) for record in records_of]
        every = records_of[0]["step"] if records_of else 0
        made.append(bench.prose("log_how", every=f"{every:,}"))
        shown = rows if len(rows) <= ROWS else [*rows[: ROWS - 1], rows[-1]]
        head = ("epoch", "batch_number", "rate", "ms_batch", "loss", "ppl")
        made.append(bench.table(head, shown, name))
        scored = [
            [f"{each['epoch']:.3g}", number(each["nll"], 4), number(each["ppl"], 2)]
            for each in bench.records(name, "val")
        ]
        caption = f"{name}: {bench.say('per_epoch')}, {duration(bench.seconds(name))}"
        made.append(bench.table(("epoch", "loss", "ppl"), scored, caption))
    made += bench.missing("cpu", "gpu")
    made += bench.curves(there, (("nll", "loss"), ("ppl", "ppl")), "val")
    made += bench.spent(there)
    if bench.done("cpu", "test", "network"):
        test = evaluated(bench.steps["test"].leaves)["metrics"]["ppl"]
        step = records.status(bench.lab.run("cpu")).get("step", 0)
        facts = dict(steps=f"{step:,}", val=number(bench.last("cpu", "val", "ppl"), 1), test=f"{test:,.1f}")
        layers = records.read(bench.steps["network"].leaves, {"layers": list})["layers"]
        made.append(bench.prose("reached_wiki", **facts, words=f"{layers[-1]['output'][-1]:,}"))
    return [*made, *bench.missing("test")]


def row(bench: Bench, name: str, record: dict) -> list[str]:
    """A line of the log, as word_language_model prints it."""
    whole = records.plan(bench.lab.run(name)).get("steps_per_epoch") or 1
    words = record["samples"] / record["step"]  # a step
    speed = record.get("samples_per_s")
    return [
        f"{(record['step'] - 1) // whole + 1}",
        f"{(record['step'] - 1) % whole + 1:,}/{whole:,}",
        f"{record['lr']:g}",
        number(1000 * words / speed if speed else None, 1),
        number(record.get("nll"), 3),
        number(record.get("ppl"), 2),
    ]


def writing(bench: Bench) -> list:
    made: list = [bench.heading("writes")]
    if not bench.done("text"):
        return [*made, *bench.missing("text")]
    return [*made, Code(files.read_small(bench.steps["text"].leaves).decode(errors="replace"))]


# what position t sees -----------------------------------------------------------------------------


def context(bench: Bench) -> list:
    made: list = [bench.heading("context")]
    if not bench.done("attention"):
        return [*made, *bench.missing("attention")]
    found = records.read(bench.steps["attention"].leaves, {"layers": list, "words": list, "bptt": int})
    layers, words = found["layers"], [shown(word) for word in found["words"]]
    deep, reach = len(layers), len(layers) * (WIDTH - 1) + 1
    made.append(bench.prose("context_how", n=deep, width=WIDTH))
    names = [f"{i} {word}" for i, word in enumerate(words)]
    for i, layer in enumerate(layers, 1):
        for j, matrix in enumerate(layer["maps"], 1):
            made.append(charts.heat(matrix, names, names, bench.say("head", layer=i, head=j)))
    title = bench.say("convolution", n=deep, width=WIDTH)
    made.append(charts.heat(receptive(len(words), deep, WIDTH), names, names, title))
    curves = {
        f"layer {i} head {j}": [(d, w) for d, w in enumerate(weights)]
        for i, layer in enumerate(layers, 1)
        for j, weights in enumerate(layer["distance"], 1)
    }
    paths = receptive(found["bptt"], deep, WIDTH)[-1][::-1]
    curves["convolutions"] = list(enumerate(paths))
    title = bench.say("distance", bptt=found["bptt"], windows=found["windows"])
    made.append(charts.lines(curves, bench.say("distance_x"), bench.say("weight"), title))
    told = []
    for i, layer in enumerate(layers, 1):
        for j, weights in enumerate(layer["distance"], 1):
            facts = dict(layer=i, head=j, reach=reach, **distances(weights, reach))
            told.append(bench.say("beyond", **facts))
    told.append(bench.say("discussion", width=WIDTH, reach=reach))
    return [*made, *map(Prose, told)]


def shown(word: str) -> str:
    return word if len(word) <= 8 else f"{word[:7]}…"


def distances(weights: list[float], reach: int) -> dict[str, str]:
    """How far back a head reads, and how far equal weights would."""
    n = len(weights)
    even = max(0, n - reach) / n
    return {
        "mean": f"{sum(d * w for d, w in enumerate(weights)):.1f}",
        "share": f"{100 * sum(weights[reach:]):.0f}",
        "even_mean": f"{(n - 1) / 2:.1f}",
        "even": f"{100 * even:.0f}",
    }


def receptive(length: int, layers: int, width: int) -> list[list[float]]:
    """[length, length]: the share of the ways from input to output position through causal convolutions."""
    ways = [1.0]
    for _ in range(layers):
        wider = [0.0] * (len(ways) + width - 1)
        for i, n in enumerate(ways):
            for k in range(width):
                wider[i + k] += n
        ways = wider
    total = sum(ways)
    return [
        [ways[t - s] / total if 0 <= t - s < len(ways) else 0.0 for s in range(length)] for t in range(length)
    ]
