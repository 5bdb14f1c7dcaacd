import subprocess
import sys

import pytest
import torch
from torch import nn

from relaunch.data_prep.errors import Failure
from relaunch.models.resnet import resnet18
from relaunch.models.transformer import TransformerLM
from relaunch.trainers import summary, workloads
from rigs.stand_in import small_set


def cells(text):
    """{layer: (parameters, FLOPs)} of a table, the last call of a layer winning."""
    lines = [line.split() for line in text.splitlines()[1:] if line and not line.startswith("For")]
    return {line[0]: tuple(int(n.replace(",", "")) for n in line[-2:]) for line in lines}


@pytest.mark.parametrize("stem,gmac", [("imagenet", 0.148), ("small", 2.222)])
def test_resnet_at_64_pixels(stem, gmac):
    model = resnet18(200, stem=stem)
    text = summary.table(model, torch.zeros(1, 3, 64, 64))
    parameters, flops = cells(text)["total"]
    assert parameters == sum(p.numel() for p in model.parameters())
    assert round(flops / 2e9, 3) == gmac and f"{gmac} GMAC" in text
    assert "layer4.1.conv2         Conv2d             1x512x" in text


def test_attention_is_counted_from_its_definition():
    t, e, nhid, words = 35, 20, 30, 50
    model = TransformerLM(words, e, 4, nhid, 2, tied=True).train()
    rows = cells(summary.table(model, torch.zeros(t, 1, dtype=torch.long)))
    projections, products = 2 * t * e * 3 * e + 2 * t * e * e, 2 * (2 * t * t * e)
    assert rows["encoder.layers.0.self_attn"] == (4 * e * e + 4 * e, projections + products)
    assert rows["encoder.layers.1.linear1"] == (e * nhid + nhid, 2 * t * e * nhid)
    assert rows["input_emb"] == (words * e, 0) and rows["decoder"] == (
        words,
        2 * t * e * words,
    )  # tied: counted once
    assert rows["total"] == (
        sum(p.numel() for p in model.parameters()),
        sum(v[1] for k, v in rows.items() if k != "total"),
    )
    assert model.training and not any(m._forward_hooks for m in model.modules())


def test_a_layer_called_twice_has_two_lines():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    text = summary.table(Twice(), torch.zeros(1, 4))
    assert text.count("\nfc ") == 2 and cells(text)["total"] == (20, 64)


@pytest.mark.parametrize("name", workloads.names())
def test_command_without_and_with_data(name, tmp_path, capsys):
    for shown in (True, False):
        assert summary.run([name, "--data-root", str(tmp_path)])[0] == 0
        out = capsys.readouterr().out
        assert ("not packed here: its published sizes" in out) == shown and "GMAC" in out
        small_set(tmp_path, name) if shown else None


def test_data_of_ones_own_must_be_there(tmp_path):
    with pytest.raises(Failure) as failure:
        summary.run(["mnist", "--data", "mine", "--data-root", str(tmp_path)])
    assert failure.value.code == 65


def test_data_of_another_kind(tmp_path):
    with pytest.raises(Failure, match="trains on images, and wikitext2 holds text") as failure:
        summary.run(["mnist", "--data", "wikitext2", "--data-root", str(tmp_path)])
    assert failure.value.code == 64


@pytest.mark.parametrize("verb", ["summary", "export", "generate"])
def test_help_is_quick(verb):
    code = f"import sys, trainers.{verb} as v\ntry: v.run(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and f"relaunch {verb}" in done.stdout, done.stderr
