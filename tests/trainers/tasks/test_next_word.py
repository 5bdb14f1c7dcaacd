"""The loss of a language model against torch's own."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from relaunch.models import product
from relaunch.trainers.tasks.next_word import next_word_loss

ENDS = {"linear": nn.Identity(), "tanh": nn.Tanh(), "log_softmax": nn.LogSoftmax(2), "product": nn.Identity()}


def losses_and_gradients(loss_of, end: str, precision: torch.dtype):
    torch.manual_seed(0)
    linear = (product.Linear if end == "product" else nn.Linear)(6, 40)
    model = nn.Sequential(nn.Linear(6, 6), linear, ENDS[end])
    x, targets = torch.randn(5, 3, 6), torch.randint(0, 40, (5, 3))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        outputs = model(x)
    before = outputs.detach().clone()
    loss = loss_of(outputs.flatten(0, 1), targets.flatten())
    used_up = not torch.equal(before, outputs.detach())
    (3 * loss).backward()
    return loss.detach(), [p.grad for p in model.parameters()], used_up


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("end", ENDS)
def test_as_cross_entropy(end, precision, monkeypatch):
    """Also where the model's last operation reads its own output again, which then may not be used up."""
    monkeypatch.setattr(product, "slow", lambda: True)
    loss, gradients, used_up = losses_and_gradients(next_word_loss, end, precision)
    theirs, their_gradients, _ = losses_and_gradients(
        lambda o, t: cross_entropy(o.float(), t), end, precision
    )
    assert torch.equal(loss, theirs)
    for ours, should in zip(gradients, their_gradients, strict=True):
        assert (ours - should).abs().max() <= 2e-6 * should.abs().max()
    assert used_up == (end in ("linear", "product") and precision == torch.float32)  # else a copy was


def test_another_librarys_product(monkeypatch):
    """Where MKL is slow the decoder's product is oneDNN's: the same to rounding, under the same names."""
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 40), torch.randn(5, 3, 6, requires_grad=True)
    decoder = product.Linear(6, 40)
    decoder.load_state_dict(linear.state_dict())
    monkeypatch.setattr(product, "slow", lambda: True)
    found = []
    for layer in (linear, decoder):
        layer(x).square().sum().backward()
        found.append((layer(x), x.grad, layer.weight.grad, layer.bias.grad))
        x.grad = None
    logits = decoder(x)
    made = type(logits.grad_fn.next_functions[0][0]).__name__
    assert made == "ProductBackward" and all(map(torch.allclose, *found))
    assert decoder(x.bfloat16().float()[0, 0]).shape == (40,)
