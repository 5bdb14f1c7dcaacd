"""A word-level language model that learns from few words: a Transformer of today's form, heavily regularised.

model = RotaryLM(words=1000, emsize=400, nhead=8, nhid=1600, nlayers=8)
model(torch.zeros(35, 20, dtype=torch.long)).shape            # [35, 20, 1000]
model(torch.zeros(35, 20, dtype=torch.long), last=5).shape    # [5, 20, 1000]

Norms lie before each layer, and positions turn queries and keys (RoPE; Su et al., 2021), so that what a word
sees of another depends on the distance alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relaunch.models import product

BASE = 10_000.0  # of the wavelengths by which positions turn


def turns(length: int, size: int, device) -> tuple[Tensor, Tensor]:
    """The cosines and sines, float32 [T,size/2], by which position t turns each pair of a head's numbers."""
    rates = BASE ** (-torch.arange(0, size, 2, device=device) / size)
    angles = torch.arange(length, device=device)[:, None] * rates
    return angles.cos(), angles.sin()


def turned(x: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
    """x [B,heads,T,size], each pair turned by its position, and of one length each."""
    one, other = F.rms_norm(x, x.shape[-1:]).chunk(2, -1)
    cos, sin = by
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1).to(x.dtype)


class Layer(nn.Module):
    """Causal attention, then a feed-forward layer: each reads a normalised copy, and adds to x [T,B,E]."""

    def __init__(self, emsize: int, nhead: int, nhid: int, dropout: float):
        super().__init__()
        self.nhead = nhead
        self.norm1, self.norm2 = nn.LayerNorm(emsize), nn.LayerNorm(emsize)
        self.qkv = nn.Linear(emsize, 3 * emsize, bias=False)
        self.out = nn.Linear(emsize, emsize, bias=False)
        self.wide, self.narrow = nn.Linear(emsize, nhid), nn.Linear(nhid, emsize)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
        length, columns, emsize = x.shape
        parts = self.qkv(self.norm1(x)).view(length, columns, 3, self.nhead, -1).permute(2, 1, 3, 0, 4)
        q, k, v = parts.unbind(0)  # [B,heads,T,size]
        share = self.dropout.p if self.training else 0.0
        read = F.scaled_dot_product_attention(turned(q, by), turned(k, by), v, None, share, is_causal=True)
        x = x + self.dropout(self.out(read.permute(2, 0, 1, 3).reshape(length, columns, emsize)))
        return x + self.dropout(self.narrow(self.dropout(F.gelu(self.wide(self.norm2(x))))))


class RotaryLM(nn.Module):
    """Next-word logits [T,B,words] of word ids [T,B]; position t sees words 0..t only.

    `dropout` holds for embeddings and for what the output layer reads, `layer_dropout` (else `dropout`)
    within the layers. `tied` shares the output layer's weight with the embedding.
    """

    def __init__(
        self,
        words: int,
        emsize: int,
        nhead: int,
        nhid: int,
        nlayers: int,
        dropout: float = 0.2,
        tied: bool = False,
        layer_dropout: float | None = None,
    ):
        super().__init__()
        self.scale, self.size = math.sqrt(emsize), emsize // nhead
        inner = dropout if layer_dropout is None else layer_dropout
        self.input_emb, self.dropout = nn.Embedding(words, emsize), nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(emsize, nhead, nhid, inner) for _ in range(nlayers))
        self.norm = nn.LayerNorm(emsize)
        self.decoder = product.Linear(emsize, words)
        nn.init.normal_(self.input_emb.weight, std=0.02)
        nn.init.normal_(self.decoder.weight, std=0.02)
        nn.init.zeros_(self.decoder.bias)
        for linear in (linear for layer in self.layers for linear in (layer.out, layer.narrow)):
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * nlayers))  # as GPT-2 has what adds to x
        if tied:
            self.decoder.weight = self.input_emb.weight

    def forward(self, words: Tensor, last: int = 0) -> Tensor:
        """Logits [T,B,words]; with `last` of that many last positions only."""
        by = turns(len(words), self.size, words.device)
        x = self.dropout(self.input_emb(words) * self.scale)
        for layer in self.layers:
            x = layer(x, by)
        return self.decoder(self.dropout(self.norm(x[-last:])))
