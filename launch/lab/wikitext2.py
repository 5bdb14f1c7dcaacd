"""A Transformer language model: what it reaches, what it writes, and what each position reads."""

from __future__ import annotations

from relaunch.launch.lab.steps import Lab, Step

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
        lab.train("gpu", "--preset", "example", *long, config="1gpu", gpus=1, seconds=60 if lab.quick else 900),
        lab.evaluate("test", "cpu", "--split", "test", seconds=60),
        Step(
            name="text", words=text, leaves=lab.path("text.txt"), seconds=10, after=("cpu",), answers=True
        ),
        Step(
            name="attention",
            words=("attention", run, *lab.root(), "--out", str(maps)),
            leaves=maps,
            seconds=10,
            after=("cpu",),
        ),
    ]
