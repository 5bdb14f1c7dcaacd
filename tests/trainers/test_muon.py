"""--optimizer muon and --ema: what they compute, and that a resumed run goes on with them to the bit."""

import pytest
import torch
from safetensors.torch import load_file

from relaunch.data_prep.sizes import published
from relaunch.trainers.average import Average
from relaunch.trainers.build import make_model, make_optimizer
from relaunch.trainers.config import parse
from relaunch.trainers.muon import hidden, orthogonal, orthogonals
from rigs.runs import outcome, steps


def made(text: str):
    config = parse(text.split()).config
    return config, make_model(config, published(config.data))


@pytest.mark.parametrize("shape", [(16, 16), (8, 100), (100, 8)])
def test_orthogonal_makes_all_singular_values_about_one(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = orthogonal(matrix)
    values = torch.linalg.svdvals(turned)
    assert 0.5 < values[s > 0.1 * s[0]].min() and values.max() < 1.3
    nearest = u @ v
    assert torch.nn.functional.cosine_similarity(turned.flatten(), nearest.flatten(), dim=0) > 0.95


def test_matrices_of_one_shape_are_turned_together_as_each_alone():
    """As on a GPU: three of attention's in one update, and another update of their shape."""
    torch.manual_seed(1)
    updates = [torch.randn(3, 8, 8), torch.randn(1, 20, 8), torch.randn(1, 8, 8), torch.randn(1, 8, 20)]
    for one, other in zip(orthogonals(updates, together=True), orthogonals(updates, together=False)):
        assert one.shape == other.shape and torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "command, outside",
    [
        ("cifar10 --arch net", {"fc3.weight"}),
        ("cifar10 --arch whitened_small", {"head.weight"}),
        ("tiny_imagenet", {"fc.weight"}),
        ("wikitext2 --tied", {"input_emb.weight"}),
        ("wikitext2", {"input_emb.weight", "decoder.weight"}),
    ],
)
def test_muon_moves_what_is_neither_an_embedding_nor_the_last_layer(command, outside):
    _, model = made(command)
    turned = hidden(model)
    assert {n for n, p in model.named_parameters() if p.dim() > 1 and p not in turned} == outside


def test_a_step_is_muons_of_matrices_and_adamws_of_the_rest():
    config, model = made("cifar10 --arch net --optimizer muon --momentum 0 --lr 0.01 --weight-decay 0.1")
    optimizer = make_optimizer(config, model)
    twin = torch.optim.AdamW(make_model(config, published("cifar10")).parameters(), 0.01, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(2)
    grads = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    for (name, p), other in zip(model.named_parameters(), twin.param_groups[0]["params"]):
        p.grad, other.grad = grads[name].clone(), grads[name].clone()
    optimizer.step()
    twin.step()
    for (name, p), other in zip(model.named_parameters(), twin.param_groups[0]["params"]):
        if p not in hidden(model):
            assert torch.allclose(p, other, atol=1e-7), name
    moved = before["fc1.weight"] * (1 - 0.01 * 0.1) - model.fc1.weight
    assert moved.square().mean().sqrt().item() == pytest.approx(0.01 * 0.2, rel=0.2)  # as AdamW's


def test_attentions_three_matrices_are_turned_apart():
    config, model = made("wikitext2 --optimizer muon --emsize 8 --nhid 8 --momentum 0 --weight-decay 0")
    optimizer = make_optimizer(config, model)
    weight = model.encoder.layers[0].self_attn.in_proj_weight
    before = weight.detach().clone()
    torch.manual_seed(1)
    weight.grad = torch.randn_like(weight)
    wanted = torch.cat([orthogonal(part) for part in weight.grad.chunk(3)])
    optimizer.step()
    assert torch.allclose(before - weight, wanted * config.lr * 0.2 * 8**0.5, atol=1e-5)


def test_the_average_follows_the_weights_and_its_beginning_fades():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    average = Average(model, 0.9)
    mean = model[0].weight.item()
    for step in range(1, 200):
        with torch.no_grad():
            model[0].weight.fill_(step)
            model[1].num_batches_tracked.fill_(step)
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * step
    assert average.module[0].weight.item() == pytest.approx(mean, rel=1e-5)
    assert average.module[1].num_batches_tracked == 199
    assert not average.module[0].weight.requires_grad


NET = "cifar10 --arch net_bn --batch-size 8 --max-steps 30 --log-interval 7 --ema 0.9".split()


@pytest.mark.parametrize("command", [[*NET, "--optimizer", "muon", "--schedule", "linear"], NET])
def test_a_resumed_run_is_the_one_that_went_through(train, relaunch_env, command):
    assert train(*command, "--run", "./whole") == 0
    assert train(*command, "--run", "./parts", "--stop-after", 13) == 75
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


def test_what_is_saved_and_scored_as_the_model_is_the_average(train, relaunch_env, capsys):
    """Without it the same run trains the same weights: the average only looks on."""
    assert train(*NET, "--run", "./averaged") == 0
    assert "the average of the weights (--ema 0.9) is scored" in capsys.readouterr().out
    assert train(*NET[:-2], "--run", "./plain") == 0
    folders = [relaunch_env / run / "checkpoints" / f"step-{30:09d}" for run in ("averaged", "plain")]
    averaged, plain = (load_file(folder / "model.safetensors") for folder in folders)
    slots = load_file(folders[0] / "optimizer.safetensors")
    assert {n: slots[f"{n}/trained"].tolist() for n in plain} == {n: t.tolist() for n, t in plain.items()}
    assert any((averaged[name] != plain[name]).any() for name in plain)
    scored = [outcome(relaunch_env / run)["metrics"][-1] for run in ("averaged", "plain")]
    assert scored[0]["split"] == scored[1]["split"] != "train" and scored[0]["loss"] != scored[1]["loss"]
    assert steps(relaunch_env / "averaged") == steps(relaunch_env / "plain")


def test_a_fork_goes_on_from_the_trained_weights_and_not_from_their_average(train, relaunch_env):
    assert train(*NET, "--run", "./parent", "--stop-after", 13) == 75
    assert train(*NET[:-2], "--run", "./plain") == 0
    assert train(*NET[:-2], "--ema", 0, "--fork", "./parent", "--run", "./child") == 0
    folders = [relaunch_env / run / "checkpoints" / f"step-{30:09d}" for run in ("child", "plain")]
    child, plain = (load_file(folder / "model.safetensors") for folder in folders)
    assert all((child[name] == plain[name]).all() for name in plain)
