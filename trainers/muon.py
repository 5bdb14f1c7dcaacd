"""Muon (Jordan et al., 2024): hidden matrices move by orthogonalised momentum, everything else by AdamW.

    Muon(grouped(finetune.groups(config, model), model), lr=0.01, momentum=0.95, weight_decay=0.1)

A matrix's update has the root mean square that AdamW's has (0.2, Liu et al., 2025: "Muon is scalable for LLM
training"), so that one learning rate and one weight decay hold for both.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

STEPS = 5  # of the Newton-Schulz iteration, whose coefficients are for that many
A, B, C = 3.4445, -4.7750, 2.0315
RMS = 0.2
ADAMW_STEP = inspect.unwrap(torch.optim.AdamW.step)  # see eager


class Muon(torch.optim.AdamW):
    """AdamW, but for the groups with `matrices`, whose parameters [out,…] are matrices [out,rest]."""

    def __init__(self, groups: list[dict], lr: float, momentum: float, weight_decay: float):
        super().__init__(groups, lr, weight_decay=weight_decay, fused=True)
        self.momentum = momentum

    def __setstate__(self, state):
        torch.optim.Optimizer.__setstate__(self, state)  # AdamW's wants a count of steps for each matrix

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            turning = [p for p in group["params"] if group["matrices"] and p.grad is not None]
            updates = [self.update(p) for p in turning]
            # on a GPU launching takes the time
            for p, turned in zip(turning, orthogonals(updates, bool(updates) and updates[0].is_cuda)):
                size = RMS * max(turned.shape[1:]) ** 0.5
                step = turned.to(p.dtype).view_as(p)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"] * size)
                p.grad = None  # it is done with: AdamW passes by what has none
        return ADAMW_STEP(self, closure)

    def update(self, p: Tensor) -> Tensor:
        """Nesterov's, of a parameter's gradient, which is used up: [matrices,out,in]."""
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        state["momentum_buffer"].lerp_(p.grad, 1 - self.momentum)
        parts = stacked(p)
        return p.grad.lerp_(state["momentum_buffer"], self.momentum).reshape(parts, len(p) // parts, -1)


def orthogonals(updates: list[Tensor], together: bool) -> list[Tensor]:
    """`orthogonal` of each [N,out,in]; `together`: of all of one shape at once, in fewer kernels."""
    if not together:
        return [torch.stack([*map(orthogonal, update)]) for update in updates]
    turned = [*updates]
    for shape in dict.fromkeys(update.shape[1:] for update in updates):
        places = [i for i, update in enumerate(updates) if update.shape[1:] == shape]
        found = orthogonal(torch.cat([updates[i] for i in places]))
        for i, part in zip(places, found.split([len(updates[i]) for i in places])):
            turned[i] = part
    return turned


def stacked(p: Tensor) -> int:
    """How many matrices lie one above the other: attention keeps those of query, key and value so."""
    return 3 if p.dim() == 2 and len(p) == 3 * p.shape[1] else 1


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1, [out,in] or of each of [N,out,in].

    On a GPU computed in bf16.
    """
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    add_product = torch.addmm if x.dim() == 2 else torch.baddbmm
    for _ in range(STEPS):
        square = x @ x.mT
        x = add_product(x, add_product(square, square, square, beta=B, alpha=C), x, beta=A)
    return x.mT if tall else x


def grouped(groups: list[dict], model: nn.Module) -> list[dict]:
    """Each group as two: its matrices, and the rest, which are AdamW's."""
    turned = hidden(model)
    halves = []
    for group in groups:
        for matrices in (True, False):
            chosen = [p for p in group["params"] if (p in turned) == matrices]
            if chosen:
                halves.append(group | {"params": chosen, "matrices": matrices})
    return halves


def hidden(model: nn.Module) -> set[nn.Parameter]:
    """The weights of two and more dimensions, but for embeddings, what shares theirs, and the last layer."""
    layers = [m for m in model.modules() if any(p.dim() > 1 for p in m.parameters(recurse=False))]
    outside = [m for m in layers if isinstance(m, (nn.Embedding, nn.EmbeddingBag))] + layers[-1:]
    left = {p for m in outside for p in m.parameters(recurse=False)}
    return {p for m in layers for p in m.parameters(recurse=False) if p.dim() > 1 and p not in left}
