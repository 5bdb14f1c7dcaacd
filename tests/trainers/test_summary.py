import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from relaunch.data_prep.errors import Failure
from relaunch.models import product
from relaunch.models.resnet import resnet18
from relaunch.models.transformer import TransformerLM
from relaunch.trainers import summary, workloads
from relaunch.trainers.config import parse
from rigs.stand_in import small_set


def cells(found):
    """{layer: (parameters, FLOPs)} of what was found, and of the total; the last call of a layer wins."""
    rows = {x["name"]: (x["parameters"], x["flops"]) for x in found["layers"]}
    return rows | {"total": (found["parameters"], found["flops"])}


@pytest.mark.parametrize("stem,gmac", [("imagenet", 0.148), ("small", 2.222)])
def test_resnet_at_64_pixels(stem, gmac):
    model = resnet18(200, stem=stem)
    found = summary.layers(model, torch.zeros(1, 3, 64, 64))
    text = summary.table(found, (1, 3, 64, 64))
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert round(found["flops"] / 2e9, 3) == gmac and f"For one input of 1x3x64x64: {gmac} GMAC" in text
    assert "layer4.1.conv2         Conv2d             1x512x" in text
    total = text.splitlines()[-2].split()
    assert total == ["total", f"{found['parameters']:,}", f"{found['flops']:,}"]


@pytest.mark.parametrize("slow", [False, True], ids=["torch's products", "oneDNN's"])
def test_attention_is_counted_from_its_definition(slow, monkeypatch):
    monkeypatch.setattr(product, "slow", lambda: slow)
    t, e, nhid, words = 35, 20, 30, 50
    model = TransformerLM(words, e, 4, nhid, 2, tied=True).train()
    rows = cells(summary.layers(model, torch.zeros(t, 1, dtype=torch.long)))
    projections, products = 2 * t * e * 3 * e + 2 * t * e * e, 2 * (2 * t * t * e)
    assert rows["encoder.layers.0.self_attn"] == (4 * e * e + 4 * e, projections + products)
    assert rows["encoder.layers.1.linear1"] == (e * nhid + nhid, 2 * t * e * nhid)
    assert rows["input_emb"] == (words * e, 0)
    assert rows["decoder"] == (words, 2 * t * e * words)  # tied: counted once
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

    found = summary.layers(Twice(), torch.zeros(1, 4))
    assert [(x["name"], x["parameters"]) for x in found["layers"]] == [("fc", 20), ("fc", 0)]
    assert cells(found)["total"] == (20, 64)


@pytest.mark.parametrize("name", workloads.names())
def test_command_without_and_with_data(name, tmp_path, capsys):
    for shown in (True, False):
        assert summary.run([name, "--data-root", str(tmp_path)])[0] == 0
        out = capsys.readouterr().out
        assert ("not packed here: its published sizes" in out) == shown and "GMAC" in out
        small_set(tmp_path, name) if shown else None


def printed(capsys, *argv) -> tuple[int, dict]:
    """The exit code of a summary, and what its only line on stdout holds."""
    code, _ = summary.run([*argv])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return code, json.loads(out)


def test_json_is_what_the_table_shows(tmp_path, capsys):
    code, found = printed(capsys, "cifar10", "--arch", "net", "--data-root", str(tmp_path), "--json")
    summary.run(["cifar10", "--arch", "net", "--data-root", str(tmp_path)])
    assert code == 0 and summary.table(found, (1, 3, 32, 32)) in capsys.readouterr().out
    assert found["layers"][0]["output"] == [1, 6, 28, 28]


def test_the_config_of_a_run_in_place_of_flags(tmp_path, capsys):
    config = parse(["wikitext2", "--emsize", "40", "--nhid", "60"]).config
    asked = ["--settings", json.dumps(config.to_json()), "--data-root", str(tmp_path), "--json"]
    code, found = printed(capsys, *asked)
    typed = printed(capsys, "wikitext2", "--emsize", "40", "--nhid", "60", "--json")
    assert (code, found) == typed and found["layers"][0]["output"] == [35, 1, 40]
    assert printed(capsys, "wikitext2", *asked) == typed
    code, said = printed(capsys, "mnist", *asked)
    assert code == 64 and "beside --settings" in said["failure"]["what"]


def test_a_runs_model(tmp_path, monkeypatch, capsys):
    """As its config says; a name of a workload is that workload."""
    monkeypatch.chdir(tmp_path)
    small_set(tmp_path, "cifar10")
    monkeypatch.setenv("RELAUNCH_DATA", str(tmp_path))
    for name in ("first", "mnist"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        config = parse(["cifar10", "--arch", "simple_cnn"]).config
        (tmp_path / "runs" / name / "config.json").write_text(json.dumps(config.to_json()))
    for word in ("first", "runs/first"):
        assert summary.run([word])[0] == 0
        assert "cifar10 simple_cnn on cifar10" in capsys.readouterr().out
    assert summary.run(["mnist"])[0] == 0 and "mnist cnn on mnist" in capsys.readouterr().out
    (tmp_path / "runs/first/config.json").write_text("[")
    with pytest.raises(Failure, match="cannot read runs/first/config.json"):
        summary.run(["first"])


@pytest.mark.parametrize(
    "argv, code, what, fix",
    [
        (["mnist", "--batch-sise", "1"], 64, "unknown argument '--batch-sise'", "did you mean --batch-size?"),
        (["mnist", "--data", "mine"], 65, "mine", ""),
        (["--settings", "{"], 64, "--settings is not JSON", "config.json"),
        (["--settings", "{}"], 65, "config.json", ""),
    ],
)
def test_a_failure_as_json(tmp_path, capsys, argv, code, what, fix):
    ended, said = printed(capsys, *argv, "--json", "--data-root", str(tmp_path))
    assert ended == said["failure"]["code"] == code
    assert what in said["failure"]["what"] and fix in said["failure"]["fix"]


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
    code = (
        f"import sys, trainers.{verb} as v\n"
        "try: v.run(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and f"relaunch {verb}" in done.stdout, done.stderr
