import pytest
import torch
import torchvision

from relaunch.models.resnet import resnet18
from relaunch.models.rotary import RotaryLM, turned, turns
from relaunch.models.transformer import TransformerLM
from relaunch.trainers import workloads
from relaunch.trainers.build import make_batches, make_model, make_optimizer
from relaunch.trainers.config import parse
from rigs.stand_in import small_set


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return {name: small_set(root, name) for name in workloads.names()}


CASES = [(name, arch) for name in workloads.names() for arch in workloads.load(name).archs]


@pytest.mark.parametrize("name,arch", CASES)
def test_a_step_changes_every_weight(sets, name, arch):
    config = parse([name, "--arch", arch, "--batch-size", "10"]).config
    task, model = make_batches(config, sets[name], torch.device("cpu")), make_model(config, sets[name].sizes)
    optimizer = make_optimizer(config, model)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    loss, _ = task.loss(model, task.batch(0, 0))
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and not [
        n for n, p in model.named_parameters() if n in before and torch.equal(p, before[n])
    ]


@pytest.mark.parametrize("name,arch", CASES)
def test_the_seed_decides_the_initial_weights(sets, name, arch):
    def weights(seed):
        return torch.cat(
            [
                p.flatten()
                for p in make_model(
                    parse([name, "--arch", arch, "--seed", seed]).config, sets[name].sizes
                ).parameters()
            ]
        )

    assert torch.equal(weights("1"), weights("1")) and not torch.equal(weights("1"), weights("2"))


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_resnet_has_torchvisions_names(stem):
    ours, theirs = (
        resnet18(200, stem=stem).state_dict(),
        torchvision.models.resnet18(num_classes=200).state_dict(),
    )
    assert list(ours) == list(theirs)
    assert [n for n in ours if ours[n].shape != theirs[n].shape] == (
        ["conv1.weight"] if stem == "small" else []
    )


def test_resnet_computes_with_channels_last_and_keeps_its_weights_layout():
    """A momentum that is restored has the layout of a checkpoint, and a fused update reads both as one."""
    ours, theirs = resnet18(10), torchvision.models.resnet18(num_classes=10)
    theirs.load_state_dict(ours.state_dict())
    images, seen = torch.randn(8, 3, 64, 64), []
    ours.layer1.register_forward_hook(lambda module, given, out: seen.append(out))
    found, wanted = ours(images), theirs(images)
    assert torch.allclose(found, wanted, atol=1e-4) and ours.numerics == 2
    assert seen[0].is_contiguous(memory_format=torch.channels_last) and not seen[0].is_contiguous()
    found.sum().backward()
    assert all(p.is_contiguous() for p in ours.parameters())
    assert all(p.grad.is_contiguous() and p.grad.stride() == p.stride() for p in ours.parameters())


def test_small_stem_keeps_the_resolution():
    model, seen = resnet18(10, stem="small").eval(), []
    model.layer1.register_forward_hook(lambda m, args, out: seen.append(out.shape))
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10) and seen == [(2, 64, 64, 64)]


def transformer(made=TransformerLM, **options):
    return made(**{"words": 50, "emsize": 16, "nhead": 2, "nhid": 24, "nlayers": 2, **options})


@pytest.mark.parametrize("made", [TransformerLM, RotaryLM])
@pytest.mark.parametrize("training", [True, False])
def test_transformer_does_not_see_the_future(made, training):
    model = transformer(made, dropout=0.0).train(training)
    words = torch.randint(50, (12, 3), generator=torch.Generator().manual_seed(1))
    other = words.clone()
    other[7] = (words[7] + 1) % 50
    with torch.no_grad():
        a, b = model(words), model(other)
        assert torch.allclose(model(words, last=3), a[-3:], atol=1e-6)
    assert (
        a.shape == (12, 3, 50) and torch.equal(a[:7], b[:7]) and not torch.isclose(a[7:], b[7:]).all(-1).any()
    )


def test_rotary_positions_tell_distances_and_nothing_else():
    """Queries and keys 3 words apart meet alike wherever they are; the model tells orders apart."""
    x = torch.randn(1, 1, 1, 8).expand(1, 1, 12, 8)
    placed = turned(x, turns(12, 8, "cpu"))[0, 0]
    scores = placed @ placed.T
    assert torch.allclose(scores.diagonal(3), scores[0, 3].expand(9), atol=1e-5)
    assert not torch.isclose(scores[0, 3], scores[0, 5])
    model = transformer(RotaryLM, tied=True, layer_dropout=0.1).eval()
    assert model.decoder.weight is model.input_emb.weight
    words = torch.arange(12)[:, None]
    swapped = torch.cat([words[1:2], words[:1], words[2:]])
    assert not torch.allclose(model(words)[-1], model(swapped)[-1], atol=1e-4)


def test_transformer_layers_start_apart_and_tied_weights_are_one():
    model = transformer(tied=True)
    first, second = (layer.linear1.weight for layer in model.encoder.layers)
    assert not torch.equal(first, second) and model.decoder.weight is model.input_emb.weight
    assert model.pos_encoder.pe.is_contiguous() and model.pos_encoder.pe.shape == (5000, 1, 16)


def test_odd_embedding_size():
    assert transformer(emsize=15, nhead=3)(torch.zeros(4, 2, dtype=torch.long)).shape == (4, 2, 50)
