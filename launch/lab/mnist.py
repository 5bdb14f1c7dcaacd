"""The first lab: a small CNN on handwritten digits, its curves and operators at three batch sizes."""

from __future__ import annotations

from relaunch.launch.lab.steps import Lab, Step

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
