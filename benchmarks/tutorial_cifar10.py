"""`relaunch train cifar10 --preset tutorial` against the script of PyTorch's "Training a Classifier".

    python benchmarks/tutorial_cifar10.py [--rounds 9] [--threads 1]

Theirs is restated from the tutorial's published settings: a data set that makes a PIL image of each sample,
as torchvision's CIFAR10 does, ToTensor and Normalize(0.5, 0.5) on each, a DataLoader that shuffles and has no
workers, their Net, SGD 0.001 with momentum 0.9, and the loss read after each step. Both train on the packed
set's images, which theirs has in memory. The figure is our time as a multiple of theirs.

| batch | before | must reach |
|---|---|---|
| 4 / 16 / 64 / 256 | 0.74 / 0.65 / 0.64 / 0.63 | 0.62 / 0.55 / 0.55 / 0.58 |
"""

from __future__ import annotations

import ours
from side_by_side import Bench, Child, program

BOUNDS = {4: ("0.74", 0.62), 16: ("0.65", 0.55), 64: ("0.64", 0.55), 256: ("0.63", 0.58)}


def theirs(turns, root, batch: int, threads: int) -> None:
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    from relaunch.data_prep.packed import open_packed
    from relaunch.models import vision

    vision.ready()
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    packed = open_packed("cifar10", root)

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, transform):
            self.data = np.load(packed.path / "train" / "images.npy")  # not mapped: as theirs has it
            self.targets = packed.labels("train").tolist()
            self.transform = transform

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            return self.transform(Image.fromarray(self.data[index])), self.targets[index]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
            self.pool = nn.MaxPool2d(2, 2)
            self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

        def forward(self, x):
            x = self.pool(F.relu(self.conv1(x)))
            x = self.pool(F.relu(self.conv2(x)))
            x = F.relu(self.fc1(torch.flatten(x, 1)))
            return self.fc3(F.relu(self.fc2(x)))

    normalise = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    data = Pictures(transforms.Compose([transforms.ToTensor(), normalise]))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, num_workers=0)
    net, criterion = Net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)

    def epochs():
        while True:
            yield from loader

    batches = epochs()

    def steps(n: int) -> float:
        total = 0.0
        for _ in range(n):
            inputs, labels = next(batches)
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / n

    turns(steps=steps)


def pair(bench: Bench, batch: int) -> tuple[Child, Child]:
    argv = f"cifar10 --preset tutorial --batch-size {batch}"
    return (
        Child(ours.train, argv, bench.root, bench.threads),
        Child(theirs, bench.root, batch, bench.threads),
    )


def measure(bench: Bench) -> None:
    bench.packed("cifar10")
    for batch, (before, bound) in BOUNDS.items():
        mine, script = pair(bench, batch)
        with mine, script:
            sides = {"ours": mine.side(), "theirs": script.side()}
            bench.compare(f"batch {batch}", sides, samples=batch, bound=bound, before=before)


if __name__ == "__main__":
    program(measure, __doc__)
