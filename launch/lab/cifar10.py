"""CIFAR-10: one change at a time to the tutorial's training, each with the spread of its repeats."""

from __future__ import annotations

from relaunch.launch.lab.steps import Lab, Step

QUICK_DATA = "cifar10"
# one section per change; the first value is what the others are compared with. Seconds: of one repeat, 10 epochs
CHANGES: dict[str, tuple[tuple[str, ...], float]] = {
    "device": (("config=cpu,1gpu",), 180),
    "batch": (("batch_size=4,16,32",), 300),
    "rate": (("lr=0.001,0.002,0.008", "batch_size=32"), 150),
    "precision": (("precision=no,bf16", "batch_size=32"), 150),
    "workers": (("workers=0,2,4", "batch_size=4,32"), 1500),
    "network": (("arch=net,net_bn,simple_cnn", "batch_size=32"), 300),
}


def steps(lab: Lab) -> list[Step]:
    made = [lab.prep(30), lab.summary("net", "--arch", "net"), lab.summary("simple_cnn", "--arch", "simple_cnn")]
    long = ("--max-steps", "400", "--log-interval", "50") if lab.quick else ("--epochs", "10")
    for name in ("net", "simple_cnn"):
        flags = ("--preset", "tutorial", "--arch", name, *long)
        made.append(lab.train(name, *flags, seconds=15 if lab.quick else 250))
        made.append(lab.evaluate(f"{name}-test", name, seconds=8))
    much = ("--samples", "1024", "--repeats", "2") if lab.quick else ("--epochs", "10", "--repeats", "3")
    for name, (grid, seconds) in CHANGES.items():
        flags = ("--preset", "tutorial", "--grid", *grid, *much)
        if name == "workers":
            flags = ("--input", "raw", *flags)
        made.append(lab.compare(f"compare-{name}", *flags, seconds=40 if lab.quick else 3 * seconds))
    return made
