import math

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from relaunch.data_prep.errors import Failure
from relaunch.trainers import export
from relaunch.trainers.weights import foreign
from rigs.stand_in import WORDS, commit, small_set


class Net(nn.Module):
    """The network of pytorch/examples' mnist, as it is there: log-probabilities."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = self.dropout2(F.relu(self.fc1(torch.flatten(self.dropout1(x), 1))))
        return F.log_softmax(self.fc2(x), dim=1)


class Positions(nn.Module):
    def __init__(self, size, longest=5000):
        super().__init__()
        pe, position = torch.zeros(longest, size), torch.arange(0, longest).float().unsqueeze(1)
        rate = torch.exp(torch.arange(0, size, 2).float() * (-math.log(10000.0) / size))
        pe[:, 0::2], pe[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
        self.register_buffer("pe", pe.unsqueeze(0).transpose(0, 1))


class TransformerModel(nn.Transformer):
    """The language model of pytorch/examples: its parts, and what it computes, log-probabilities."""

    def __init__(self, words, emsize, nhead, nhid, nlayers):
        super().__init__(d_model=emsize, nhead=nhead, dim_feedforward=nhid, num_encoder_layers=nlayers)
        self.pos_encoder, self.input_emb = Positions(emsize), nn.Embedding(words, emsize)
        self.decoder, self.emsize = nn.Linear(emsize, words), emsize

    def forward(self, words):
        mask = torch.log(torch.tril(torch.ones(len(words), len(words))))
        x = self.input_emb(words) * math.sqrt(self.emsize)
        x = self.encoder(x + self.pos_encoder.pe[: len(words)], mask=mask)
        return F.log_softmax(self.decoder(x), dim=-1)


@pytest.fixture
def exported(tmp_path, capsys):
    """(command) -> (our model, {suffix: file}, what was printed), of a run's checkpoint."""

    def of(command):
        packed = small_set(tmp_path / "data", command.split()[0])
        _, _, model = commit(tmp_path / "run", command, packed)
        assert export.run([str(tmp_path / "run"), "--out", str(tmp_path / "out")])[0] == 0
        return model.eval(), {f.suffix: f for f in (tmp_path / "out").iterdir()}, capsys.readouterr().out

    torch.set_num_threads(1)
    (tmp_path / "data").mkdir()
    return of


def equal_outputs(ours, theirs, files, x, close=torch.equal):
    assert set(files) == {".pth", ".safetensors", ".json"}
    for weights in (torch.load(files[".pth"], weights_only=True), load_file(files[".safetensors"])):
        for p in theirs.parameters():
            nn.init.zeros_(p)
        theirs.load_state_dict(weights)  # strict
        with torch.no_grad():
            assert close(ours(x), theirs.eval()(x))


def log_probabilities(a, b):
    return torch.allclose(a.log_softmax(-1), b, atol=1e-5)


def test_resnet_loads_into_torchvision(exported):
    model, files, printed = exported("tiny_imagenet")
    images = torch.randn(2, 3, 64, 64).to(
        memory_format=torch.channels_last
    )  # the layout that ours computes in
    equal_outputs(model, torchvision.models.resnet18(num_classes=10), files, images)
    # float32 parameters, running statistics; the checkpoint has no momentum yet
    assert (
        files[".safetensors"].name == "tiny_imagenet-resnet18-000000012.safetensors"
        and printed.count("44.8 MB") == 3
    )


def test_mnist_loads_into_pytorch_examples(exported):
    model, files, _ = exported("mnist")
    equal_outputs(model, Net(), files, torch.randn(5, 1, 28, 28), log_probabilities)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("tied", ["", " --tied"])
def test_transformer_loads_into_pytorch_examples(exported, tied):
    model, files, _ = exported("wikitext2 --emsize 32 --nhid 48 --nlayers 3 --nhead 4" + tied)
    theirs = TransformerModel(len(WORDS), 32, 4, 48, 3)
    if tied:
        theirs.decoder.weight = theirs.input_emb.weight
    equal_outputs(model, theirs, files, torch.randint(len(WORDS), (35, 4)), log_probabilities)


def test_optimizer_is_left_behind_and_export_is_repeatable(tmp_path, capsys):
    packed = small_set(tmp_path, "mnist")
    run, _, model = commit(tmp_path / "run", "mnist", packed)
    export.run([str(run.path)])
    first = {f.name: f.read_bytes() for f in (run.path / "export").iterdir()}
    export.run([str(run.path) + "@12"])
    assert first == {f.name: f.read_bytes() for f in (run.path / "export").iterdir()} and len(first) == 3
    assert set(load_file(run.path / "export" / "mnist-cnn-000000012.safetensors")) == set(model.state_dict())


def test_foreign_file(tmp_path):
    torch.save({"state_dict": {"module.w": torch.ones(3)}, "epoch": 1}, tmp_path / "model_best.pth.tar")
    with pytest.raises(Failure, match="lies in no run") as failure:
        export.run([str(tmp_path / "model_best.pth.tar")])
    assert failure.value.code == 64
    export.run([str(tmp_path / "model_best.pth.tar"), "--out", str(tmp_path)])
    for name in ("model_best.pth", "model_best.safetensors"):
        assert foreign.read(tmp_path / name)["w"].tolist() == [1, 1, 1]
    with pytest.raises(Failure, match="would overwrite") as failure:
        export.run([str(tmp_path / "model_best.pth"), "--out", str(tmp_path)])
    assert failure.value.code == 64


def test_a_place_that_cannot_be_written(tmp_path):
    run, _, _ = commit(tmp_path / "run", "mnist", small_set(tmp_path, "mnist"))
    (run.path / "export").write_text("a file where the folder would be")
    with pytest.raises(Failure, match="cannot write") as failure:
        export.run([str(run.path)])
    assert failure.value.code == 73
