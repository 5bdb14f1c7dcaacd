"""Small convolutional networks for MNIST and CIFAR-10.

    Net()(torch.zeros(1, 3, 32, 32)).shape    # [1, 10]

Inputs are normalised floats [B,C,H,W], outputs are logits [B,classes]. Where a ReLU meets a pooling, the
pooling comes first: the same numbers and gradients, to the bit, and the ReLU has a quarter of the work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relaunch.models.convolution import Conv2d, few
from relaunch.models.pooling import MaxPool2d

SOME = 16  # images of a step that the tutorial's net computes faster with channels last


class MnistNet(nn.Module):
    """The mnist network of pytorch/examples, with its state-dict names, for 28x28 grey.

    It returns log-probabilities there, and logits here.
    """

    def __init__(self, channels: int = 1, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = MaxPool2d()
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.pool(self.conv2(x)))
        x = torch.flatten(self.dropout1(x), 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return self.fc2(x)


class Net(nn.Module):
    """The network of PyTorch's CIFAR-10 tutorial: convolutions of 6 and 16, then 120-84-classes; 32x32."""

    numerics = 3  # on a CPU it was computed otherwise before, twice, to rounding

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.conv1 = Conv2d(channels, 6, 5)
        self.pool = MaxPool2d()
        self.conv2 = Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.device.type == "cpu" and x.shape[0] <= SOME and not few(x):
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.pool(self.conv1(x)))
        x = F.relu(self.pool(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


class NetBN(nn.Sequential):
    """The tutorial's network with BatchNorm after every hidden layer."""

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__(
            nn.Conv2d(channels, 6, 5, bias=False),
            nn.BatchNorm2d(6),
            MaxPool2d(),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5, bias=False),
            nn.BatchNorm2d(16),
            MaxPool2d(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120, bias=False),
            nn.BatchNorm1d(120),
            nn.ReLU(),
            nn.Linear(120, 84, bias=False),
            nn.BatchNorm1d(84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


class SimpleCNN(nn.Sequential):
    """Two 3x3 convolutions of 32 and 64 with pooling, then 128-classes; 32x32."""

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__(
            nn.Conv2d(channels, 32, 3, padding=1),
            MaxPool2d(),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            MaxPool2d(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 8 * 8, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
