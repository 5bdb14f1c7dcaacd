"""`relaunch train tiny_imagenet` against a bare step of the same ResNet-18 on a fixed tensor, 64 px, float32.

    python benchmarks/resnet18_64.py [--rounds 9] [--threads 1]

Ours is the whole step as users have it: images shifted, mirrored and normalised, batch 128, both stems, in
float32 and, where there is such a config, in bfloat16 on the CPU. The bare step is a loop of five lines in a
process of its own: gradients to nothing, forward, cross-entropy, backward, SGD with momentum, always on one
batch of random numbers. It loads nothing, so that its time is a floor for a script in plain PyTorch. The
figure is our time as a multiple of it.

| stem | ours in | before | must reach |
|---|---|---|---|
| imagenet / small | float32 | 1.03 | 0.90 |
| imagenet / small | bfloat16 | - | 0.60 / 0.40 |
"""

from __future__ import annotations

import ours
from side_by_side import BF16, Bench, Child, program

BATCH = 128
BOUNDS = {
    ("imagenet", "no"): 0.90,
    ("small", "no"): 0.90,
    ("imagenet", "bf16"): 0.60,
    ("small", "bf16"): 0.40,
}


def bare(turns, stem: str, classes: int, threads: int) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from relaunch.models.resnet import resnet18

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = resnet18(classes, stem=stem)
    model._forward_pre_hooks.clear()  # torchvision's: the layout that images have in plain PyTorch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    x, target = torch.randn(BATCH, 3, 64, 64), torch.randint(0, classes, (BATCH,))

    def steps(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            cross_entropy(model(x), target).backward()
            optimizer.step()

    turns(steps=steps)


def measure(bench: Bench) -> None:
    classes = bench.packed("tiny_imagenet").sizes.outputs
    for (stem, precision), bound in BOUNDS.items():
        what = f"{stem} stem, {'fp32' if precision == 'no' else precision}"
        if precision == "bf16" and not BF16.exists():
            bench.skip(what, f"there is no config {BF16.name}")
            continue
        argv = f"tiny_imagenet --stem {stem} --batch-size {BATCH}"
        with (
            Child(ours.train, argv, bench.root, bench.threads, precision) as mine,
            Child(bare, stem, classes, bench.threads) as floor,
        ):
            sides = {"ours": mine.side(), "bare": floor.side()}
            before = "1.03" if precision == "no" else ""
            bench.compare(what, sides, BATCH, bound=bound, before=before)


if __name__ == "__main__":
    program(measure, __doc__)
