"""A workload of somebody's own, in a file with a neighbour, and ways to get it wrong."""

from pathlib import Path

WORK = """
import os
from dataclasses import dataclass

from torch import nn
from torch.nn.functional import cross_entropy

from petals import Head
from relaunch.trainers.tasks.images import ImageOptions, ImageTask
from relaunch.trainers.workloads import Workload, setting

print("flowers is imported")
if "FLOWERS_MARKER" in os.environ:
    open(os.environ["FLOWERS_MARKER"], "a").close()


@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions):
    width: int = setting(8, "channels of the only layer", least=1)
    sharp: float = setting(1.0, "factor of the loss")

    def __post_init__(self):
        super().__post_init__()
        if self.sharp <= 0:
            raise ValueError("sharp is not above 0")


class Net(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride=2)
        self.drop = nn.Dropout(0.1)
        self.head = Head(width, classes)

    def forward(self, x):
        return self.head(self.drop(self.conv(x).relu().mean((2, 3))))


class Task(ImageTask):
    def prepare(self, config, x, labels, random, training):
        if training:
            x = x + 0.1 * random(1)[:, :, None, None]
        return x, labels

    def loss(self, config, outputs, labels, other=None, share=None):
        return config.options.sharp * cross_entropy(outputs, labels)


def model(config, sizes):
    return Net(sizes.shape[0], sizes.outputs, config.options.width)


WORKLOAD = Workload(
    name="flowers",
    about="a tiny CNN of somebody's own",
    task=Task(),
    data="mnist",
    archs=("net",),
    options=Options,
    model=model,
    defaults=dict(epochs=2, batch_size=16, lr=0.05, width=4),
    presets={"wide": dict(width=16, lr=0.1)},
)
"""
PETALS = "from torch import nn\n\n\nclass Head(nn.Linear):\n    pass\n"


def write(folder: Path, *changes: tuple[str, str], **neighbours: str) -> Path:
    """flowers.py with (old, new) changed in it, petals.py and other neighbours; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = WORK
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    for name, content in {"petals": PETALS, **neighbours}.items():
        (folder / f"{name}.py").write_text(content)
    (folder / "flowers.py").write_text(text)
    return folder / "flowers.py"
