"""A linear layer to many outputs, by the library that multiplies fastest on this processor."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn


@functools.cache
def slow() -> bool:
    """Whether PyTorch's own library for products is the slow one here, and another at hand.

    MKL takes a path for older processors on AMD's: 50 GFLOP/s on a Zen 5 core in the forward product of a
    vocabulary of 33,278 words, where oneDNN reaches 90 to 110. Backward they differ little. None of MKL's
    variables changes that.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    try:
        with open("/proc/cpuinfo") as f:
            return "AuthenticAMD" in f.read(1000) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    except OSError:  # not Linux
        return False


def flop_formulas() -> dict:
    """For FlopCounterMode, which does not know oneDNN's product: of the shapes [N,in] and [out,in]."""
    if not slow():
        return {}
    return {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]}


class Linear(nn.Linear):
    """nn.Linear, with its names and, to rounding, its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """[…,in] to […,out]."""
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if plain or torch.compiler.is_compiling() or torch.jit.is_tracing() or not slow():
            return super().forward(x)
        return Product.apply(x.reshape(-1, x.shape[-1]), self.weight, self.bias).view(*x.shape[:-1], -1)


class Product(torch.autograd.Function):
    """x [N,in] times weight [out,in], plus bias: forward by oneDNN, as torch.compile calls it."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        asked = ctx.needs_input_grad
        of_x, of_weight = grad @ weight if asked[0] else None, grad.T @ x if asked[1] else None
        return of_x, of_weight, grad.sum(0) if asked[2] else None
