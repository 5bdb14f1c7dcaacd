"""The exponential moving average of a model's weights (--ema): what is scored, and saved as the model.

average = Average(model, 0.999)
average.update(model, step)
average.module      # a copy of the model with the averaged weights and buffers
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn


class Average:
    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After `step` steps. The first ones count for less, or a short run would average its beginning."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = list(zip(tensors(self.module), tensors(model)))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floats], [now for _, now in floats], 1 - decay)
        for mean, now in pairs:
            if not mean.is_floating_point():  # as BatchNorm's count of batches
                mean.copy_(now)


def tensors(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers, a tied one once."""
    return list(chain(model.parameters(), model.buffers()))
