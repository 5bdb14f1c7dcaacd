"""What TransformerLM.attention says is what the model does."""

import torch
from torch.nn import functional as F

from relaunch.models.transformer import TransformerLM


def test_attention_is_that_of_the_models_own_forward():
    """Of the first layer, computed from its projections; rows sum to 1 and see no later word."""
    torch.manual_seed(0)
    model = TransformerLM(words=20, emsize=8, nhead=2, nhid=8, nlayers=2)
    words = torch.randint(0, 20, (5, 3))
    found = model.attention(words)
    assert model.training and [tuple(w.shape) for w in found] == [(3, 2, 5, 5)] * 2
    for weights in found:
        assert torch.allclose(weights.sum(-1), torch.ones(3, 2, 5))
        assert torch.equal(weights, weights.tril())
    model.eval()
    x = model.pos_encoder(model.input_emb(words) * 8**0.5)
    first = model.encoder.layers[0].self_attn
    projected = F.linear(x, first.in_proj_weight, first.in_proj_bias)
    q, k, _ = (part.view(5, 3, 2, 4).permute(1, 2, 0, 3) for part in projected.chunk(3, -1))
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf)
    assert torch.allclose(scores.softmax(-1), found[0], atol=1e-6)
