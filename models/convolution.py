"""A convolution for small images, by what is fastest on a CPU for the batch at hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FEW = 4  # images: oneDNN's preparations take longer than their convolutions


def few(x: Tensor) -> bool:
    """Whether torch's own loops are the faster ones for these [B,C,H,W]."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and x.shape[0] <= FEW and not torch.compiler.is_compiling()


class Conv2d(nn.Conv2d):
    """nn.Conv2d of one group and no dilation, with its names and, to rounding, its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """[B,in,H,W] to [B,out,H',W']."""
        if not (self.training and few(x)):  # what is exported does not ask how many there are
            return super().forward(x)
        return torch.ops.aten.thnn_conv2d(
            x, self.weight, self.kernel_size, self.bias, self.stride, self.padding
        )


def flop_formulas() -> dict:
    """For FlopCounterMode, which does not know these loops."""

    def forward(x, weight, *_, out_shape, **__) -> int:
        return 2 * math.prod(out_shape) * math.prod(weight[1:])

    def backward(gradient, x, weight, *rest, **__) -> int:
        return sum(rest[-1][:2]) * 2 * math.prod(gradient) * math.prod(weight[1:])

    aten = torch.ops.aten
    return {aten._slow_conv2d_forward: forward, aten._slow_conv2d_backward: backward}
