"""ResNet-18 (He et al., 2015) as torchvision builds it, so that public weights load; a stem for small images.

resnet18(classes=200, stem="small")(torch.zeros(1, 3, 64, 64)).shape    # [1, 200]

Built here: importing torchvision's takes a second, and 150 MB.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: [B,before,H,W] to [B,width,H/stride,W/stride]."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        shortcut = None
        if stride != 1 or before != width:
            shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet18(nn.Module):
    """Logits [B,classes] of images [B,3,H,W]."""

    def __init__(self, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.maxpool(self.bn1(self.conv1(x))))  # pooled first: less work, the same bits
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(classes: int, channels: int = 3, stem: str = "imagenet") -> nn.Module:
    """Logits [B,classes] of images [B,channels,H,W].

    `stem`: "imagenet" is torchvision's 7x7 stride-2 convolution and max-pool (0.15 GMAC at 64 px); "small" is
    a 3x3 stride-1 convolution without pooling (2.22 GMAC), which small images need for accuracy. Both have
    the same names.
    """
    model = ResNet18(classes)
    if stem == "small":
        model.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    if model.conv1.weight.shape[1] != 3 or stem == "small":
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)):
        size = conv.weight.shape  # one memory, whatever its layout is called: as its gradient's, for DDP
        conv.weight.data = conv.weight.data.as_strided(size, (size[1], 1, size[1], size[1]))
    model.register_forward_pre_hook(channels_last)
    model.numerics = 2  # with the images' channels first, as before, it computed other bits
    return model


def channels_last(module: nn.Module, images: tuple) -> tuple:
    """Before a forward pass: the layout that convolutions are fastest in, which their outputs then have, too.

    The weights stay as they are, and so does what the optimizer keeps of them.
    """
    return (images[0].contiguous(memory_format=torch.channels_last), *images[1:])
