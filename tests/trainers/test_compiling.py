"""--compile: the same training in other bits, resumed to the bit; auto is measured, and kept in config."""

import json

import pytest
import torch

from relaunch.trainers import compiling, length
from rigs.runs import outcome, records

NET = "cifar10 --arch net_bn --batch-size 8 --max-steps 6 --log-interval 2".split()


def compiled(run) -> str:
    return json.loads((run / "config.json").read_text())["compile"]


def losses(run) -> list[float]:
    return [record["loss"] for record in records(run) if record["split"] == "train" and "loss" in record]


@pytest.fixture
def took(monkeypatch):
    """took(plain, compiled): seconds that both kinds of steps are said to take."""
    steps_of = length.steps_of

    def say(plain: float, faster: float):
        def told(training, count):
            assert steps_of(training, min(count, 1)) > 0
            return count * (faster if training.config.compile == "on" else plain)

        for where in (compiling, length):
            monkeypatch.setattr(where, "steps_of", told)

    return say


def test_what_is_over_soon_is_not_compiled(train, relaunch_env, took, capsys):
    took(3.0, 1.0)
    assert train(*NET, "--compile", "auto", "--run", "run") == 0
    assert "--compile auto: 3,000 ms a step as it is, 6 of them: not compiled" in capsys.readouterr().out
    assert compiled(relaunch_env / "runs/run") == "off"


@pytest.mark.slow
def test_a_compiled_training_resumes_to_the_bit(train, relaunch_env, took, capsys):
    runs = relaunch_env / "runs"
    assert train(*NET, "--run", "plain") == 0
    assert train(*NET, "--compile", "on", "--run", "on") == 0
    assert "its steps are compiled" in capsys.readouterr().out
    assert losses(runs / "on") == pytest.approx(losses(runs / "plain"), rel=1e-4)

    took(10.0, 9.9)
    assert train(*NET, "--compile", "auto", "--run", "slow") == 0
    assert "6 steps: not compiled (it would have to save 5%)" in capsys.readouterr().out
    assert outcome(runs / "slow")["model"] == outcome(runs / "plain")["model"]

    took(10.0, 1.0)
    assert train(*NET, "--compile", "auto", "--run", "parts", "--stop-after", 3) == 75
    assert compiled(runs / "parts") == "on"
    assert train(*NET, "--compile", "auto", "--run", "parts", "--resume", "auto") == 0
    assert outcome(runs / "parts")["model"] == outcome(runs / "on")["model"]
    assert train(*NET, "--compile", "off", "--run", "parts", "--resume", "auto") == 64
    assert "--compile off differs from this run's on" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_compiler(train, relaunch_env, monkeypatch, capsys):
    torch._dynamo.reset()  # of what this process has compiled
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(relaunch_env / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    assert train(*NET, "--compile", "on", "--run", "run") == 69
    assert "relaunch: 69 torch.compile failed: InvalidCxxCompiler: No" in capsys.readouterr().err
