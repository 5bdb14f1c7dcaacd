"""ResNet-18 on Tiny-ImageNet: a CPU, a GPU, eight GPUs; and two checkpoints judged image by image."""

from __future__ import annotations

from relaunch.launch.lab.steps import Lab, Step

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
