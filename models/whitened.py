"""A convolutional network that learns fast: airbench's (Jordan, 2024, "94 % on CIFAR-10 in 3.29 seconds").

    model = Whitened(widths=(64, 256, 256))
    model.fit_inputs(images)                    # float32 [N,C,H,W], a few thousand
    model(torch.zeros(1, 3, 32, 32)).shape      # [1, 10]

Its first layer is not trained: it turns patches of 2x2 pixels into uncorrelated features of one size,
positive and negative ones. Three groups of two convolutions follow, each on half the side of the one before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relaunch.models.pooling import MaxPool2d

SIDE = 2  # of a patch
SCALE = 9  # that the outputs are divided by


class Whitened(nn.Module):
    """Logits [B,classes] of normalised images [B,channels,H,W], H and W 16 or more.

    `stride` is that between two patches: 1 as published; 2 lets each pixel into one patch, for a quarter of
    the work in all that follows.
    """

    def __init__(self, channels: int = 3, classes: int = 10, widths=(64, 256, 256), stride: int = 1):
        super().__init__()
        features = 2 * channels * SIDE**2
        self.whiten = nn.Conv2d(channels, features, SIDE, stride)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)
        sizes = [features, *widths]
        self.groups = nn.Sequential(*(Group(a, b) for a, b in zip(sizes, sizes[1:])))
        self.head = nn.Linear(widths[-1], classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)  # on a CPU 1.5 times as fast
        x = self.groups(F.gelu(self.whiten(x)))
        return self.head(x.amax((2, 3))) / SCALE

    @torch.no_grad()
    def fit_inputs(self, images: Tensor, eps: float = 5e-4) -> None:
        """Whiten by the patches of these images [N,C,H,W]: the eigenvectors of their covariance."""
        patches = F.unfold(images.double(), SIDE).transpose(1, 2).flatten(0, 1)  # [patches, C*SIDE*SIDE]
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        vectors = vectors * vectors[0].sign()  # which of both an eigenvector is, is the library's choice
        turned = (vectors / (values + eps).sqrt()).T.reshape(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.copy_(torch.cat([turned, -turned]))


def whitened_small(channels: int = 3, classes: int = 10) -> Whitened:
    """A network for a CPU: a twentieth of the published one's work for an image."""
    return Whitened(channels, classes, (32, 64, 128), stride=2)


class Group(nn.Module):
    """[B,a,H,W] to [B,b,H/2,W/2]: two convolutions, with BatchNorm that shifts and does not scale."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, padding=1, bias=False)
        self.pool = MaxPool2d()
        self.norm1 = norm(b)
        self.conv2 = nn.Conv2d(b, b, 3, padding=1, bias=False)
        self.norm2 = norm(b)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight[: conv.weight.shape[1]])  # at first it passes on what it gets

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.pool(self.conv1(x))))
        return F.gelu(self.norm2(self.conv2(x)))


def norm(features: int) -> nn.BatchNorm2d:
    """Its statistics follow fast: a short training has few steps."""
    made = nn.BatchNorm2d(features, eps=1e-12, momentum=0.4)
    made.weight.requires_grad_(False)
    return made
