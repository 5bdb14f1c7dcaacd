"""Pooling of 2x2 pixels on a CPU, where PyTorch's loop, which branches at each, takes several times as long.

MaxPool2d()(torch.zeros(1, 3, 32, 32)).shape    # [1, 3, 16, 16]
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

LEAST = 1 << 16  # numbers: to learn from fewer, the calls take longer than PyTorch's loop


class MaxPool2d(nn.Module):
    """nn.MaxPool2d(2), and its bits."""

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] to the largest of each 2x2 [B,C,H/2,W/2], of a last odd row or column nothing."""
        if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return torch.max_pool2d(x, 2)
        learns = torch.is_grad_enabled() and x.requires_grad
        # PyTorch's loop over channels that lie last is as fast as finding out where the largest one lies
        if learns and (x.numel() < LEAST or not x.is_contiguous()):
            return torch.max_pool2d(x, 2)
        x = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        return Pooling.apply(x) if learns else of_rows(of_columns(x))


def of_columns(x: Tensor) -> Tensor:
    return torch.maximum(x[..., ::2], x[..., 1::2])


def of_rows(x: Tensor) -> Tensor:
    return torch.maximum(x[..., ::2, :], x[..., 1::2, :])


@functools.lru_cache(16)
def corners(height: int, width: int) -> Tensor:
    """Where in its plane each 2x2 begins, int64 [H/2,W/2]."""
    return torch.arange(0, height * width, 2 * width)[:, None] + torch.arange(0, width, 2)


class Pooling(torch.autograd.Function):
    """The largest of each 2x2 of x [B,C,H,W]: forward by maxima of whole rows, backward by PyTorch's loop."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        width = x.shape[3]
        largest = of_columns(x)
        y = of_rows(largest)
        # 1 where the largest is the second: of equal ones the first counts, as in PyTorch's loop
        right = (x[..., 1::2] > x[..., ::2]).view(torch.uint8)
        low = (largest[..., 1::2, :] > largest[..., ::2, :]).view(torch.uint8)
        above, below = right[..., ::2, :], right[..., 1::2, :]
        right = torch.bitwise_xor(above, below).bitwise_and_(low).bitwise_xor_(above)
        place = right.short().add_(low.short(), alpha=width).long().add_(corners(*x.shape[2:]))
        ctx.save_for_backward(place)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (place,) = ctx.saved_tensors
        x = gradient.new_empty(1).expand(ctx.shape)  # whose numbers it does not read
        return torch.ops.aten.max_pool2d_with_indices_backward(
            gradient, x, [2, 2], [2, 2], [0, 0], [1, 1], False, place
        )
