"""ResNet-18 (He et al., 2015) as torchvision builds it, so that public weights load; a stem for small images.

resnet18(classes=200, stem="small")(torch.zeros(1, 3, 64, 64)).shape    # [1, 200]
"""

from __future__ import annotations

import torch
from torch import nn

from relaunch.models import vision


def resnet18(classes: int, channels: int = 3, stem: str = "imagenet") -> nn.Module:
    """Logits [B,classes] of images [B,channels,H,W].

    `stem`: "imagenet" is torchvision's 7x7 stride-2 convolution and max-pool (0.15 GMAC at 64 px); "small" is
    a 3x3 stride-1 convolution without pooling (2.22 GMAC), which small images need for accuracy. Both have
    the same names.
    """
    vision.ready()
    from torchvision.models import resnet18 as build

    model = build(weights=None, num_classes=classes)
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
