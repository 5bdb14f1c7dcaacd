"""The loss of a language model: what takes most of a step's memory, and much of its time.

    next_word_loss(logits, targets).backward()    # float32 [N,words], int64 [N]

As torch's cross_entropy to rounding, in one tensor of the logits' size (on a GPU two) in place of three.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import nll_loss

# what makes logits without reading them again in its backward pass, so that they may be overwritten
FORGETS = {"AddmmBackward0", "MmBackward0", "ProductBackward", "ToCopyBackward0"}
VIEWS = {"ViewBackward0", "UnsafeViewBackward0"}


def next_word_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of -log softmax(logits [N,words]) at targets [N]. The logits of a linear layer are used up."""
    return NextWord.apply(logits.float(), targets)


def forgotten(x: Tensor) -> bool:
    """Whether nobody needs these numbers once the loss has read them."""
    made = x.grad_fn
    while made is not None and type(made).__name__ in VIEWS:
        made = made.next_functions[0][0]
    return type(made).__name__ in FORGETS


class NextWord(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(targets)
        here = logits.device.type == "cpu" and forgotten(logits)  # on a GPU nobody has looked yet
        ctx.log_p = torch.log_softmax(logits, 1, out=logits.detach() if here else None)
        return nll_loss(ctx.log_p, targets)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        p, ctx.log_p = ctx.log_p.exp_(), None
        (targets,), share = ctx.saved_tensors, grad / len(p)
        at = targets[:, None]
        right = p.gather(1, at)
        return p.mul_(share).scatter_(1, at, (right - 1) * share), None
