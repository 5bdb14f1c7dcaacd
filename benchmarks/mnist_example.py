"""`relaunch train mnist --preset example` against pytorch/examples' mnist.

    python benchmarks/mnist_example.py [--rounds 9] [--threads 1]

Theirs is restated from the example's published settings on a CPU: a data set that makes a PIL image of each
sample, as torchvision's MNIST does, ToTensor and Normalize(0.1307, 0.3081) on each, a DataLoader of batches
of 64 without workers or shuffling, a CNN that ends in a log-softmax, the negative log-likelihood, Adadelta at
1.0, and the loss read at each tenth step. Both train on the packed set's images, which theirs has in memory.
The figure is our time as a multiple of theirs: before 0.97, must reach 0.80.
"""

from __future__ import annotations

import ours
from side_by_side import Bench, Child, program

BATCH = 64


def theirs(turns, root, threads: int) -> None:
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
    packed = open_packed("mnist", root)

    class Digits(torch.utils.data.Dataset):
        def __init__(self, transform):
            self.data = torch.from_numpy(np.load(packed.path / "train" / "images.npy")[..., 0])
            self.targets = torch.tensor(packed.labels("train"))
            self.transform = transform

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            picture, target = Image.fromarray(self.data[index].numpy()), int(self.targets[index])
            return self.transform(picture), target

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
            self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
            self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

        def forward(self, x):
            x = F.relu(self.conv2(F.relu(self.conv1(x))))
            x = torch.flatten(self.dropout1(F.max_pool2d(x, 2)), 1)
            x = self.dropout2(F.relu(self.fc1(x)))
            return F.log_softmax(self.fc2(x), dim=1)

    normalise = transforms.Normalize((0.1307,), (0.3081,))
    data = Digits(transforms.Compose([transforms.ToTensor(), normalise]))
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH)
    model = Net().train()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)

    def epochs():
        while True:
            yield from enumerate(loader)

    batches = epochs()

    def steps(n: int) -> float:
        seen = []
        for _ in range(n):
            number, (inputs, target) = next(batches)
            optimizer.zero_grad()
            loss = F.nll_loss(model(inputs), target)
            loss.backward()
            optimizer.step()
            if number % 10 == 0:
                loss.item()  # they print it
            seen.append(loss.detach())
        return float(torch.stack(seen).mean())

    tests = torch.from_numpy(packed.images("test")).permute(0, 3, 1, 2)
    labels = torch.from_numpy(packed.labels("test"))

    def until_99(_: int) -> float:
        """Whole epochs, with their schedule, until the test split is above 99 %; returns the accuracy."""
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
        top1 = 0.0
        while top1 < 99:
            steps(len(loader))
            schedule.step()
            model.eval()
            with torch.no_grad():
                parts = (normalise(part / 255) for part in tests.split(1000))
                guesses = torch.cat([model(part).argmax(1) for part in parts])
            model.train()
            top1 = 100 * (guesses == labels).double().mean().item()
            print(f"  theirs: {top1:.2f} %", flush=True)
        return top1

    turns(steps=steps, until_99=until_99)


def pair(bench: Bench) -> tuple[Child, Child]:
    argv = f"mnist --preset example --batch-size {BATCH}"
    return Child(ours.train, argv, bench.root, bench.threads), Child(theirs, bench.root, bench.threads)


def measure(bench: Bench) -> None:
    bench.packed("mnist")
    mine, script = pair(bench)
    with mine, script:
        sides = {"ours": mine.side(), "theirs": script.side()}
        bench.compare("same work", sides, samples=BATCH, bound=0.80, before="0.97")


if __name__ == "__main__":
    program(measure, __doc__)
