"""The word-level Transformer language model of pytorch/examples, with its state-dict names.

model = TransformerLM(words=1000, emsize=200, nhead=2, nhid=200, nlayers=2)
model(torch.zeros(35, 20, dtype=torch.long)).shape    # [35, 20, 1000]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from relaunch.models import product


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of the position (Vaswani et al., 2017) to embeddings [T,B,E]."""

    constant_buffers = ("pe",)  # never change: need not be sent to other ranks in training

    def __init__(self, emsize: int, dropout: float, longest: int = 5000):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        angle = torch.arange(longest)[:, None] * torch.exp(
            torch.arange(0, emsize, 2) * (-math.log(10000.0) / emsize)
        )
        pe = torch.zeros(longest, 1, emsize)  # contiguous from the start: it is broadcast
        pe[:, 0, 0::2] = torch.sin(angle)
        pe[:, 0, 1::2] = torch.cos(angle)[:, : emsize // 2]
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.pe[: len(x)])


class TransformerLM(nn.Module):
    """Next-word logits [T,B,words] of word ids [T,B]; position t sees words 0..t only.

    `tied` shares the output layer's weight with the embedding (Press & Wolf, 2016). Encoder layers are
    post-norm with a final LayerNorm, as nn.Transformer builds them. `dropout` holds everywhere, unless the
    encoder's layers have their own: in pytorch/examples they keep nn.Transformer's 0.1, whatever is asked.
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
        encoder_dropout: float | None = None,
    ):
        super().__init__()
        self.emsize = emsize
        self.input_emb = nn.Embedding(words, emsize)
        self.pos_encoder = PositionalEncoding(emsize, dropout)
        inner = dropout if encoder_dropout is None else encoder_dropout
        layer = nn.TransformerEncoderLayer(emsize, nhead, nhid, inner)
        self.encoder = nn.TransformerEncoder(layer, nlayers, nn.LayerNorm(emsize), enable_nested_tensor=False)
        self.decoder = product.Linear(emsize, words)
        for p in self.encoder.parameters():  # nn.Transformer's initialisation, which draws each layer afresh
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)
        nn.init.uniform_(self.input_emb.weight, -0.1, 0.1)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        if tied:
            self.decoder.weight = self.input_emb.weight

    def forward(self, words: Tensor, last: int = 0) -> Tensor:
        """Logits [T,B,words]; with `last` of that many last positions only, [last,B,words].

        The output layer is most of the cost where the vocabulary is large.
        """
        mask = nn.Transformer.generate_square_subsequent_mask(len(words), device=words.device)
        x = self.pos_encoder(self.input_emb(words) * math.sqrt(self.emsize))
        x = self.encoder(x, mask=mask, is_causal=True)
        return self.decoder(x[-last:])

    @torch.no_grad()
    def attention(self, words: Tensor) -> list[Tensor]:
        """What each position reads, a tensor a layer: weights [B,heads,T,T] of word ids [T,B].

        Row t is position t's, and sums to 1. As in evaluation; the model's mode stays as it was.
        """
        training = self.training
        self.eval()
        mask = nn.Transformer.generate_square_subsequent_mask(len(words), device=words.device)
        x, seen = self.pos_encoder(self.input_emb(words) * math.sqrt(self.emsize)), []
        for layer in self.encoder.layers:
            how = dict(attn_mask=mask, need_weights=True, average_attn_weights=False)
            seen.append(layer.self_attn(x, x, x, **how)[1])  # post-norm: it reads the layer's input itself
            x = layer(x, src_mask=mask, is_causal=True)
        self.train(training)
        return seen
