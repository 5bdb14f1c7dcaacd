"""A workload of somebody's own: trained, resumed and judged as ours are, its mistakes one line."""

import dataclasses
import json
import shutil
import sys

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import diff, evaluate, export, generate, workloads
from relaunch.trainers.config import parse
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights.source import open_source
from relaunch.trainers.workloads import own
from rigs.own import PETALS, write
from rigs.runs import outcome, records

# trained like ours ----------------------------------------------------------------------------------------


def test_a_run_of_it_stopped_and_resumed_ends_in_the_same_bits(train, flowers, relaunch_env):
    assert train(flowers, "--run", "whole") == 0
    assert train(flowers, "--run", "parts", "--stop-after", 5) == 75
    assert train(flowers, "--run", "parts", "--resume", "auto") == 0
    whole, parts = outcome(relaunch_env / "runs/whole"), outcome(relaunch_env / "runs/parts")
    assert whole == parts
    assert records(relaunch_env / "runs/whole")[-1]["split"] == "val"


def test_its_options_defaults_and_presets_are_flags(flowers):
    assert parse([str(flowers)]).config.options.width == 4
    config = parse([str(flowers), "--preset", "wide", "--sharp", "2"]).config
    assert (config.workload, config.options.width, config.lr, config.options.sharp) == (
        "flowers",
        16,
        0.1,
        2.0,
    )
    assert config.batch_size == 16 and config.code["entry"] == "flowers.py"


def test_a_new_run_is_named_after_the_workload(train, flowers, relaunch_env):
    assert train(flowers, "--max-steps", 1) == 0
    [run] = (relaunch_env / "runs").iterdir()
    assert run.name.startswith("flowers-")


# the run keeps it -------------------------------------------------------------------------------------------


@pytest.fixture
def moved(train, flowers, relaunch_env):
    """A run that was stopped, moved elsewhere, and whose workload's files are gone."""
    train(flowers, "--run", "first", "--stop-after", 5, "--save-every", 3)
    shutil.move(relaunch_env / "runs/first", relaunch_env / "elsewhere")
    shutil.rmtree(flowers.parent)
    own.forget()
    workloads._own.clear()
    return relaunch_env / "elsewhere"


def test_the_run_alone_is_enough_to_go_on(moved, train, flowers, capfd):
    assert sorted(p.name for p in (moved / "code").iterdir()) == ["flowers.py", "petals.py"]
    assert train(flowers, "--run", moved, "--resume", "auto") == 0
    assert f"running code of {moved}/code/flowers.py" in capfd.readouterr().err


def test_the_run_alone_is_enough_to_score_and_export(moved, capfd):
    assert evaluate.run([str(moved)])[0] == 0
    assert capfd.readouterr().err.count(f"running code of {moved}/code/flowers.py") == 1
    assert (moved / "predictions/test-000000005.parquet").exists()
    assert export.run([str(moved)])[0] == 0
    assert (moved / "export/flowers-net-000000005.pth").exists()


def test_a_diff_of_scored_checkpoints_executes_nothing(moved, monkeypatch, capfd):
    for step in (3, 5):
        evaluate.run([f"{moved}@{step}"])
    own.forget()
    workloads._own.clear()
    (moved / "code/flowers.py").write_text("raise SystemExit('executed')")
    assert diff.run([f"{moved}@3", f"{moved}@5"])[0] == 0
    source = open_source(str(moved))
    assert (source.config.workload, source.config.options.width) == ("flowers", 4)


def test_a_resume_with_a_changed_file_says_which(train, flowers, capfd):
    train(flowers, "--run", "first", "--stop-after", 2)
    (flowers.parent / "petals.py").write_text(PETALS + "# better\n")
    assert train(flowers, "--run", "first", "--resume", "auto") == 64
    assert f"64 {flowers.parent}/petals.py has changed since this run began" in capfd.readouterr().err
    write(flowers.parent, ("from petals import Head", "from petals import Head\nimport extra"), extra="")
    assert train(flowers, "--run", "first", "--resume", "auto") == 64
    write(flowers.parent, ('name="flowers"', 'name="roses"'))
    assert train(flowers, "--run", "first", "--resume", "auto") == 64
    assert "this run trains flowers, not roses" in capfd.readouterr().err


def test_a_run_whose_kept_file_was_changed_is_not_executed(moved):
    (moved / "code/petals.py").write_text("raise SystemExit('executed')")
    with pytest.raises(Failure) as caught:
        evaluate.run([str(moved)])
    assert (
        caught.value.code == 65 and "code/petals.py is not what the run was trained with" in caught.value.what
    )


def test_other_weights_are_taken_without_their_code(moved, train, relaunch_env):
    """A run of ours may begin with anybody's weights: none of their files is executed for that."""
    (moved / "code/flowers.py").write_text("raise SystemExit('executed')")
    other = write(relaunch_env / "other", ('name="flowers"', 'name="roses"'))
    assert train(other, "--run", "second", "--resume", moved, "--max-steps", 1) == 0


def test_a_config_carries_its_code_to_a_rank_that_lacks_it(flowers):
    import pickle

    config = parse([str(flowers)]).config
    sent = pickle.dumps(config)
    own.forget()
    workloads._own.clear()
    shutil.rmtree(flowers.parent)
    assert pickle.loads(sent).to_json() == config.to_json()
    assert workloads.load("flowers").model(pickle.loads(sent), type("S", (), dict(shape=(1,), outputs=3)))


def test_a_config_of_other_files_than_those_that_are_loaded_is_refused(flowers):
    config = parse([str(flowers)]).config
    (flowers.parent / "petals.py").write_text(PETALS + "# better\n")
    parse([str(flowers)])
    with pytest.raises(Failure) as caught:
        dataclasses.replace(config, lr=1.0)
    assert "are not those that this config was made with" in caught.value.what


def test_two_workloads_with_neighbours_of_one_name_are_not_mixed_up(flowers, relaunch_env):
    parse([str(flowers)])
    other = write(relaunch_env / "other", ('name="flowers"', 'name="roses"'), petals=PETALS + "OTHER = 1\n")
    parse([str(other)])
    assert sys.modules["petals"].OTHER == 1 and str(flowers.parent) not in sys.path


def test_packages_beside_the_file_are_kept_whole(relaunch_env, train):
    file = write(relaunch_env / "work", ("from petals import Head", "from garden.beds import Head"))
    for name, text in (
        ("__init__", ""),
        ("beds", "from .soil import Head\n"),
        ("soil", PETALS),
        ("shed", ""),
    ):
        path = file.parent / "garden" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert train(file, "--run", "first", "--max-steps", 1) == 0
    kept = relaunch_env / "runs/first/code"
    names = {str(p.relative_to(kept)) for p in kept.rglob("*.py")}
    assert names == {"flowers.py", "garden/__init__.py", "garden/beds.py", "garden/soil.py"}
    assert set(json.loads(RunDir("runs/first").config.read_text())["code"]["files"]) == names


def test_weights_alone_are_scored_by_the_workload_that_is_named(moved, relaunch_env):
    export.run([str(moved)])
    own.forget()
    workloads._own.clear()
    file = write(relaunch_env / "work")
    weights = moved / "export/flowers-net-000000005.pth"
    assert evaluate.run([str(weights), "--workload", str(file), "--width", "4", "--out", "scored"])[0] == 0
    [scored] = (relaunch_env / "scored").glob("*.parquet")
    evaluate.run([str(moved)])
    from relaunch.trainers.compare import predictions

    theirs, its = predictions.read(scored), predictions.read(moved / "predictions/test-000000005.parquet")
    assert (theirs.columns["nll"] == its.columns["nll"]).all()


TEXT = """
from relaunch.models.transformer import TransformerLM
from relaunch.trainers.tasks.text import TextOptions, TextTask
from relaunch.trainers.workloads import Workload

WORKLOAD = Workload(
    name="tales",
    about="a small language model of somebody's own",
    task=TextTask(),
    data="wikitext2",
    archs=("small",),
    options=TextOptions,
    model=lambda config, sizes: TransformerLM(sizes.outputs, 8, 2, 8, 1, 0.1, False),
    defaults=dict(batch_size=4, bptt=5, eval_batch_size=10),
)
"""


def test_a_language_model_of_ones_own_writes(train, relaunch_env, capfd):
    (relaunch_env / "tales.py").write_text(TEXT)
    assert train("tales.py", "--run", "first", "--max-steps", 3) == 0
    (relaunch_env / "tales.py").unlink()
    workloads._own.clear()
    capfd.readouterr()
    assert generate.run(["first", "--words", "7"])[0] == 0
    said = capfd.readouterr()
    assert len(said.out.split()) >= 7 and "running code of runs/first/code/tales.py" in said.err


def test_a_start_that_was_killed_before_its_config_is_begun_again(flowers, train, relaunch_env):
    """What it had written by then is in nobody's way, and config.json tells of no code that is not there."""
    left = relaunch_env / "runs/first/code"
    left.mkdir(parents=True)
    (left / "flowers.py").write_text("half")
    assert train(flowers, "--run", "first", "--max-steps", 1) == 0
    assert (left / "flowers.py").read_bytes() == flowers.read_bytes()
