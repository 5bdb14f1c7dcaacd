"""The peak resident size of each workload's training, against the script of its peer.

    python benchmarks/memory.py [--rounds 3] [--threads 1] [--archive tiny-imagenet-200.zip]

Both sides are those of tutorial_cifar10 (batch 4), mnist_example and wikitext2_example; of Tiny-ImageNet the
peer is a ResNet-18 that trains on torchvision's ImageFolder over the original files, batch 128, as
pytorch/examples' imagenet does. In each of at most 3 rounds both start anew. Ours maps its packed set, and
pages that were read count: the steps are as many as touch nearly all of them. The figure is our peak as a
multiple of theirs: must reach 1.0; before, 1.2 for the word model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import image_input
import mnist_example
import tutorial_cifar10
import wikitext2_example

import ours
from relaunch.data_prep.errors import Failure
from rows import Block
from side_by_side import Bench, Child, program

BOUND = 1.0
STEPS = {"mnist": 200, "cifar10": 4000, "tiny_imagenet": 30, "wikitext2": 20}


def image_folder(turns, folder, classes: int, threads: int) -> None:
    batches = image_input.loaded(folder, threads)
    import torch
    from torchvision.models import resnet18

    torch.set_num_threads(threads)
    model, criterion = resnet18(num_classes=classes), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def steps(n: int) -> float:
        total = 0.0
        for _ in range(n):
            images, target = next(batches)
            loss = criterion(model(images), target)
            total += loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return total / n

    turns(steps=steps)


@contextmanager
def tiny_imagenet(bench: Bench) -> Iterator[Callable[[], tuple[Child, Child]]]:
    classes = bench.packed("tiny_imagenet").sizes.outputs
    argv = f"tiny_imagenet --batch-size {image_input.BATCH}"
    with image_input.originals(bench) as folder:
        yield lambda: (
            Child(ours.train, argv, bench.root, bench.threads),
            Child(image_folder, folder, classes, bench.threads),
        )


def of_packed(name: str, pair: Callable[[Bench], tuple[Child, Child]]):
    @contextmanager
    def sides(bench: Bench) -> Iterator[Callable[[], tuple[Child, Child]]]:
        bench.packed(name)
        yield lambda: pair(bench)

    return sides


SIDES = {
    "mnist": of_packed("mnist", mnist_example.pair),
    "cifar10": of_packed("cifar10", lambda bench: tutorial_cifar10.pair(bench, 4)),
    "tiny_imagenet": tiny_imagenet,
    "wikitext2": of_packed("wikitext2", wikitext2_example.pair),
}


def peak(mine: Block, theirs: Block) -> dict[str, float]:
    return {"peak": mine.peak_mb / theirs.peak_mb}


def measure(bench: Bench) -> None:
    bench.args.rounds = min(bench.args.rounds, 3)  # peaks differ little, and each round starts anew
    for workload, sides in SIDES.items():
        blocks: dict[str, list[Block]] = {"ours": [], "theirs": []}
        try:
            with sides(bench) as start:
                for _ in range(bench.args.rounds):
                    for name, child in zip(blocks, start()):
                        with child:
                            child.side()(1)
                            blocks[name].append(child.side()(STEPS[workload]))
        except Failure as failure:
            bench.skip(workload, failure.what)
            continue
        before = "1.2" if workload == "wikitext2" else ""
        bench.record(workload, blocks, bound=BOUND, before=before, figure=peak)


if __name__ == "__main__":
    program(measure, __doc__, image_input.ARGUMENT)
