"""Runs that an older version wrote are resumed, evaluated and exported. One folder of fixtures per schema."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from relaunch.data_prep.packed import open_packed
from relaunch.trainers import export, snapshot
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.weights import checkpoint
from rigs.runs import outcome, records, status

FIXTURES = Path(__file__).parents[1] / "fixtures"  # JSON as each version wrote it; weights are made here
VERSIONS = sorted(p.name for p in FIXTURES.iterdir())
COMMAND = "mnist --batch-size 8 --max-steps 20 --log-interval 5".split()


def dump(path: Path, value: dict) -> bytes:
    path.write_text(json.dumps(value, indent=2) + "\n")
    return path.read_bytes()


@pytest.fixture(params=VERSIONS)
def old_run(request, train, sets, relaunch_env):
    """runs/old as `COMMAND --run old --stop-after 9` left it in that version, with tensors of this one.

    `change(state)` alters its state.json.
    """
    old, facts = relaunch_env / "runs/old", FIXTURES / request.param
    assert train(*COMMAND, "--run", "made", "--stop-after", 9) == 75
    folder = old / "checkpoints/step-000000009"
    shutil.copytree(relaunch_env / "runs/made/checkpoints/step-000000009", folder)
    shutil.rmtree(relaunch_env / "runs/made")
    for name in ("config.json", "plan.json", "status.json", "metrics.jsonl"):
        shutil.copyfile(facts / name, old / name)

    def commit(change=lambda state: None):
        state, manifest = (json.loads((facts / n).read_text()) for n in ("state.json", "MANIFEST.json"))
        state["data_hash"] = open_packed("mnist", sets).hash  # the rig's images are no part of the schema
        change(state)
        dump(folder / "state.json", state)
        for name, facts_of in manifest["files"].items():
            content = (folder / name).read_bytes()
            facts_of |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        dump(folder / "MANIFEST.json", manifest | {k: state[k] for k in checkpoint.FACTS})

    commit()
    return old, commit


def test_the_fixtures_hold_nothing_of_a_machine():
    text = "".join(path.read_text() for path in FIXTURES.rglob("*.json*"))
    assert '"host": "host"' in text and "/tmp" not in text and "/home" not in text


def test_it_goes_on_to_the_weights_of_a_run_that_was_never_stopped(train, relaunch_env, old_run, capsys):
    old, commit = old_run
    assert train(*COMMAND, "--run", "whole") == 0
    capsys.readouterr()
    assert train("mnist", "--run", "old", "--resume", "auto") == 0
    assert "resumed from step 9\n" in capsys.readouterr().out
    whole, resumed = outcome(relaunch_env / "runs/whole"), outcome(old)
    assert (resumed["model"], resumed["optimizer"]) == (whole["model"], whole["optimizer"])
    assert status(old)["state"] == "done" and resumed["state"].keys() == whole["state"].keys()
    assert [(r["step"], r["split"]) for r in records(old)] == [
        (r["step"], r["split"]) for r in records(relaunch_env / "runs/whole")
    ]
    assert [r["step"] for r in records(old) if "lr" in r] == [5, 10, 12, 17, 20]


def test_its_open_window_holds_no_more_than_its_epoch(train, old_run):
    """Windows went on into the next epoch then: here with 7 samples of the one before."""
    old, commit = old_run
    assert train("mnist", "--run", "old", "--resume", "auto", "--stop-after", 12) == 75
    expected = [r for r in records(old) if r["step"] == 12 and "epoch_loss" in r]
    shutil.rmtree(old / "checkpoints/step-000000012")

    def reopened(state):
        (window, sums), before = state["open_sums"][0], [20.0, 3.0, 5.0, 7.0]
        whole = [a + b + c for a, b, c in zip(window, sums, before)]
        state["open_sums"] = [[whole, [-a for a in before]]]

    commit(reopened)
    assert train("mnist", "--run", "old", "--resume", "auto", "--stop-after", 12) == 75
    found = [r for r in records(old) if r["step"] == 12 and "epoch_loss" in r]
    assert found[0]["samples"] == 96 and found == [
        {**expected[0], "epoch_loss": pytest.approx(expected[0]["epoch_loss"])}
    ]
    first = next(r for r in records(old) if r["step"] == 10)
    assert 80 * first["top1"] / 100 == pytest.approx(round(80 * first["top1"] / 100))  # of 80 images, not 87


def test_it_is_evaluated_and_exported(train, relaunch_env, old_run):
    old, _ = old_run
    assert train("mnist", "--resume", "old", "--evaluate") == 0
    assert (old / "predictions/test-000000009.parquet").exists()
    assert export.run(["old", "--out", "out"])[0] == 0
    (weights,) = (relaunch_env / "out").glob("*.safetensors")
    ours = load_file(old / "checkpoints/step-000000009/model.safetensors")
    assert all(load_file(weights)[name].equal(tensor) for name, tensor in ours.items())
    assert train(*COMMAND, "--resume", "old", "--max-steps", 1, "--run", "begun") == 0


def test_a_hash_of_the_config_decides_nothing(train, old_run):
    """One more option, or another way of writing one, gives another hash of the same training."""
    old, commit = old_run
    commit(lambda state: state.update(config_hash="0" * 64))
    assert train("mnist", "--run", "old", "--resume", "auto") == 0


def test_what_the_checkpoint_was_trained_with_is_compared_by_field(train, old_run, capsys):
    old, commit = old_run
    commit(lambda state: state["config"]["options"].update(crop=3))
    assert train("mnist", "--run", "old", "--resume", "auto") == 65
    expected = (
        "runs/old/config.json says --crop 0, and runs/old/checkpoints/step-000000009 was trained with 3"
    )
    assert expected in capsys.readouterr().err
    commit(lambda state: state["config"].update(colour="red"))
    assert train("mnist", "--run", "old", "--resume", "auto") == 65
    assert "step-000000009/state.json does not fit this version of Relaunch (unknown: colour)" in (
        capsys.readouterr().err
    )


def test_a_config_with_less_in_it(train, old_run):
    """As if the options of today had not been there: they do what was done then."""
    old, commit = old_run
    config = json.loads((old / "config.json").read_text())
    for name in ("clip", "warmup_steps"):
        del config[name]
    del config["options"]["cutmix"]
    dump(old / "config.json", config)
    commit(lambda state: state["config"].pop("clip"))
    assert train("mnist", "--run", "old", "--resume", "auto", "--stop-after", 10) == 75
    then = [*COMMAND, "--threads", "1", "--eval-batch-size", "1000"]
    assert RunConfig.from_json(json.loads((old / "config.json").read_text())) == parse(then).config


def test_other_numerics_are_said_and_gone_on_with(train, old_run, monkeypatch, capsys):
    old, _ = old_run
    goes_on = ["mnist", "--run", "old", "--resume", "auto"]
    assert train(*goes_on, "--stop-after", 10) == 75
    assert "numerics" not in capsys.readouterr().out  # 0.1.0 did not write them: they were 1
    monkeypatch.setattr(snapshot, "NUMERICS", 2)
    for at, said in ((12, 1), (14, 0)):
        assert train(*goes_on, "--stop-after", at) == 75
        assert capsys.readouterr().out.count("with numerics 1, and this one has 2: it goes on") == said
    assert outcome(old)["state"]["numerics"] == 2
