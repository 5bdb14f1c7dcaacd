"""Evaluation: every sample once, equal bytes on any number of processes, numbers of a direct computation."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import data_root, open_packed
from relaunch.trainers import evaluate as command
from relaunch.trainers.build import make_model
from relaunch.trainers.compare import predictions
from relaunch.trainers.config import RunConfig
from relaunch.trainers.weights.checkpoint import load
from relaunch.trainers.weights.source import open_source
from relaunch.trainers.weights.state import load_weights
from rigs.runs import outcome, records, steps, tree
from rigs.sets import TEST, pack_images

IMAGES = "cifar10 --arch net_bn --batch-size 8 --max-steps 14 --eval-batch-size 4 --run ./run".split()
TEXT = (
    "wikitext2 --emsize 16 --nhid 16 --batch-size 8 --max-steps 10 --eval-batch-size 2 --bptt 25 --run ./run"
).split()


def evaluate(train, *flags) -> int:
    """`trainers.train WORKLOAD --resume ./run --evaluate`, in this process."""
    return train(*flags, "--resume", "./run", "--evaluate")


def beside(path) -> dict:
    """What the .json beside a predictions file says of the launch."""
    return json.loads(path.with_suffix(".json").read_text())


def trained(run):
    """(model in eval mode, packed set) of a run's newest checkpoint, put together by hand."""
    config = RunConfig.from_json(json.loads((run / "config.json").read_text()))
    packed = open_packed(config.data, data_root())
    model = make_model(config, packed.sizes)
    load_weights(model, load(run / f"checkpoints/step-{steps(run)[-1]:09d}").model, "it")
    return model.eval(), packed


# numbers ------------------------------------------------------------------------------------------


def test_images_against_a_direct_computation(train, relaunch_env, capsys):
    assert train(*IMAGES) == 0
    run = relaunch_env / "run"
    assert evaluate(train, "cifar10", "--outputs") == 0
    path = run / "predictions/test-000000014.parquet"
    p, facts = predictions.read(path), beside(path)

    model, packed = trained(run)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (packed.mean, packed.std))
    x = (torch.from_numpy(packed.images("test")).permute(0, 3, 1, 2) / 255 - mean) / std
    labels = torch.from_numpy(packed.labels("test"))
    with torch.no_grad():
        logits = model(x)
    assert len(p) == TEST and (p.label == labels.numpy()).all() and (p.pred == logits.argmax(1).numpy()).all()
    assert p.nll == pytest.approx(F.cross_entropy(logits, labels, reduction="none").numpy(), abs=1e-5)
    assert p.confidence == pytest.approx(logits.softmax(1).max(1).values.numpy(), abs=1e-5)
    assert (p.top5 == logits.topk(5).indices.numpy()).all()
    assert np.load(path.with_suffix(".outputs.npy")) == pytest.approx(logits.numpy(), abs=1e-4)

    assert facts["metrics"]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-5)
    assert facts["metrics"]["top1"] == pytest.approx(
        100 * (logits.argmax(1) == labels).double().mean().item()
    )
    assert facts["metrics"]["top5"] == pytest.approx(
        100 * (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    )
    last = records(run)[-1]  # the training's own evaluation of these weights
    assert {k: last[k] for k in ("loss", "top1", "top5")} == facts["metrics"]
    assert "23 predictions" in capsys.readouterr().out


def test_text_against_a_direct_computation(train, relaunch_env):
    """Windows do not see each other."""
    assert train(*TEXT) == 0
    run = relaunch_env / "run"
    assert evaluate(train, "wikitext2") == 0
    path = run / "predictions/val-000000010.parquet"
    p, facts = predictions.read(path), beside(path)

    model, packed = trained(run)
    tokens = torch.from_numpy(packed.tokens("val").astype(np.int64))
    logits = []
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, 25):
            logits.append(model(tokens[start : min(start + 25, len(tokens) - 1), None])[:, 0])
    logits = torch.cat(logits)
    assert (p.label == tokens[1:].numpy()).all() and (p.pred == logits.argmax(1).numpy()).all()
    assert p.nll == pytest.approx(F.cross_entropy(logits, tokens[1:], reduction="none").numpy(), abs=1e-4)
    assert facts["metrics"]["nll"] == pytest.approx(F.cross_entropy(logits, tokens[1:]).item(), abs=1e-5)
    assert facts["metrics"]["ppl"] == pytest.approx(np.exp(facts["metrics"]["nll"]))
    assert records(run)[-1]["nll"] == facts["metrics"]["nll"]


@pytest.mark.parametrize(
    "bptt, split, words", [(25, "val", 301), (7, "val", 301), (7, "test", 170), (500, "test", 170)]
)
def test_every_word_once_whatever_the_windows(train, sets, relaunch_env, bptt, split, words):
    assert train(*TEXT[:-2], "--bptt", bptt, "--max-steps", 1, "--run", "./run") == 0
    assert evaluate(train, "wikitext2", "--split", split) == 0
    p = predictions.read(relaunch_env / f"run/predictions/{split}-000000001.parquet")
    assert len(p) == words - 1 and (p.label == open_packed("wikitext2", sets).tokens(split)[1:]).all()


@pytest.mark.parametrize("bptt, context", [(25, 10), (7, 20), (40, 40)])
def test_context_is_what_lies_before_a_window(train, sets, relaunch_env, bptt, context):
    words = ["--arch", "rotary", "--bptt", bptt, "--context", context, "--max-steps", 1]
    assert train(*TEXT[:-2], *words, "--run", "./run") == 0
    assert evaluate(train, "wikitext2") == 0
    p = predictions.read(relaunch_env / "run/predictions/val-000000001.parquet")
    packed = open_packed("wikitext2", sets)
    tokens = torch.tensor(packed.tokens("val").astype("int64"))
    assert (p.label == tokens[1:].numpy()).all()
    source = open_source("./run")
    model = make_model(source.config, packed.sizes).eval()
    load_weights(model, source.weights(), "")
    wanted = []
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, bptt):
            end = min(start + bptt, len(tokens) - 1)
            logits = model(tokens[max(0, start - context) : end, None])[start - end :, 0]
            wanted.append(F.cross_entropy(logits, tokens[start + 1 : end + 1], reduction="none"))
    assert p.nll == pytest.approx(torch.cat(wanted).numpy(), abs=1e-4)


def test_what_is_written_is_found_and_what_is_of_other_data_lies_beside_it(train, relaunch_env, capsys):
    assert train(*IMAGES) == 0
    assert evaluate(train, "cifar10") == 0
    own = relaunch_env / "run/predictions/test-000000014.parquet"
    before, _ = own.stat().st_mtime_ns, capsys.readouterr()
    assert evaluate(train, "cifar10", "--eval-batch-size", 3) == 0
    said = capsys.readouterr().out
    assert f"already written: {own.relative_to(relaunch_env)}" in said and "top1 " in said
    assert own.stat().st_mtime_ns == before
    assert evaluate(train, "cifar10", "--outputs") == 0  # which are missing
    assert "\nwritten: " in capsys.readouterr().out and own.with_suffix(".outputs.npy").exists()
    assert evaluate(train, "cifar10", "--outputs") == 0
    assert "already written: " in capsys.readouterr().out

    content = own.read_bytes()
    pack_images(relaunch_env / "other", (32, 32, 3), seed=5)
    assert evaluate(train, "cifar10", "--data", "./other") == 0
    assert own.read_bytes() == content
    there = predictions.read(own.with_name("other-test-000000014.parquet"))
    assert there.facts["data"] == "other" and "other-test-000000014" in capsys.readouterr().out
    own.write_bytes(content[:-9])
    assert evaluate(train, "cifar10") == 0
    assert "evaluating again" in capsys.readouterr().err and own.read_bytes() == content


def test_best_is_the_best(train, relaunch_env):
    flags = "--arch net --batch-size 8 --epochs 4 --optimizer adam --lr 0.002 --schedule constant --keep 1"
    assert train("cifar10", *flags.split(), "--run", "./run") == 0
    values = [(r["step"], r["top1"]) for r in records(relaunch_env / "run") if r["split"] == "val"]
    best = max(values, key=lambda v: v[1])[0]  # the first of equals
    state = outcome(relaunch_env / "run")["state"]
    assert state["best"]["step"] == best and sorted({best, 48}) == steps(relaunch_env / "run")
    assert train("cifar10", "--resume", "./run@best", "--evaluate") == 0
    assert (relaunch_env / f"run/predictions/test-{best:09d}.parquet").exists()


# any number of processes --------------------------------------------------------------------------


def on_processes(train, launch, folder, command, counts) -> None:
    """Train, evaluate on one process and on others, and compare the files' bytes."""
    assert train(*command) == 0
    assert evaluate(train, command[0], "--out", "one") == 0
    (one,) = (folder / "one").glob("*.parquet")
    for count in counts:
        flags = ["--resume", "./run", "--evaluate", "--out", f"on-{count}"]
        done = launch(command[0], *flags, processes=count, accelerate="accelerate")
        assert done.code == 0, done.err
        assert (folder / f"on-{count}" / one.name).read_bytes() == one.read_bytes()
        assert beside(folder / f"on-{count}" / one.name)["world"] == count


@pytest.mark.slow
def test_images_on_three_processes(train, launch, relaunch_env):
    on_processes(train, launch, relaunch_env, IMAGES, [3])


def test_text_on_two_processes(train, launch, relaunch_env):
    on_processes(train, launch, relaunch_env, TEXT, [2])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", [IMAGES, TEXT], ids=["images", "text"])
def test_any_number_of_processes(train, launch, relaunch_env, command):
    """Of seven, one has no image to score."""
    on_processes(train, launch, relaunch_env, command, [1, 2, 3, 7])


VIEWS = """
import os, sys
os.chdir("rank-" + os.environ["RANK"])
from relaunch.trainers import evaluate
from relaunch.trainers.group import process
sys.exit(process.main(evaluate.run))
"""


@pytest.mark.parametrize("other", ["newer", "none"])
def test_rank_0_decides_what_is_scored(train, launch, relaunch_env, other):
    """Rank 1 looks into another folder: the run a moment later, with its next checkpoint, or no run."""
    assert train(*IMAGES) == 0
    assert train("cifar10", "--resume", "./run@12", "--evaluate", "--out", "one") == 0
    (relaunch_env / "views.py").write_text(VIEWS)
    for rank in (0, 1):
        shutil.copytree(relaunch_env / "run", relaunch_env / f"rank-{rank}/run")
    shutil.rmtree(relaunch_env / "rank-0/run/checkpoints/step-000000014")
    if other == "none":
        shutil.rmtree(relaunch_env / "rank-1/run")
    done = launch("./run", "--out", "two", processes=2, module="views", accelerate="accelerate")
    assert done.code == 0, done.err
    (one,) = (relaunch_env / "one").glob("*.parquet")
    assert (relaunch_env / "rank-0/two" / one.name).read_bytes() == one.read_bytes()
    assert not (relaunch_env / "rank-1/two").exists()


def test_what_rank_0_cannot_read_ends_all(train, launch, relaunch_env):
    assert train(*IMAGES) == 0
    (relaunch_env / "views.py").write_text(VIEWS)
    (relaunch_env / "rank-0").mkdir()
    shutil.copytree(relaunch_env / "run", relaunch_env / "rank-1/run")
    done = launch("./run", "--out", "two", processes=2, module="views", accelerate="accelerate")
    assert done.code == 1 and done.err.count("relaunch: 65 no run or checkpoint './run'") == 1


# what is not to be evaluated ----------------------------------------------------------------------


def test_a_checkpoint_outside_a_run_is_only_read(train, relaunch_env, capsys):
    """As on a disk that nobody can write: predictions go where --out says."""
    assert train(*IMAGES) == 0
    (relaunch_env / "run/checkpoints/step-000000014").rename(relaunch_env / "mine")
    before = tree(relaunch_env / "mine")
    assert train("cifar10", "--resume", "./mine", "--evaluate") == 64
    assert (
        "lies in no run, so there is no place for its predictions; add --out FOLDER"
        in capsys.readouterr().err
    )
    assert train("cifar10", "--resume", "./mine", "--evaluate", "--out", "here") == 0
    assert predictions.read(relaunch_env / "here/test-000000014.parquet").facts["step"] == 14
    assert tree(relaunch_env / "mine") == before


def test_mistakes_are_one_line(train, sets, relaunch_env, capsys):
    assert train(*IMAGES, "--data", "./set") == 65
    pack_images(relaunch_env / "set", (32, 32, 3))
    assert train(*IMAGES, "--data", "./set") == 0
    (relaunch_env / "set").rename(relaunch_env / "moved")
    pack_images(relaunch_env / "set", (32, 32, 3), seed=5)
    before = tree(relaunch_env)
    for flags, code, words in (
        (["cifar10", "--evaluate"], 64, "--evaluate needs a checkpoint"),
        (
            ["cifar10", "--resume", "auto", "--run", "./run", "--evaluate"],
            64,
            "--evaluate needs a checkpoint",
        ),
        (["cifar10", "--split", "test"], 64, "--split goes with --evaluate"),
        (["mnist", "--resume", "./run", "--evaluate"], 64, "./run was trained as cifar10, not mnist"),
        (["cifar10", "--resume", "./run", "--evaluate"], 65, "set is not the data that ./run was trained on"),
        (
            ["cifar10", "--resume", "./run", "--evaluate", "--data", "./moved", "--split", "val"],
            64,
            "no split 'val'; it has: train, test",
        ),
        (
            ["cifar10", "--resume", "./run", "--evaluate", "--data", str(sets / "mnist")],
            64,
            "net_bn does not take the 1x28x28 images",
        ),
        (
            ["cifar10", "--resume", "./run", "--evaluate", "--data", str(sets / "wikitext2")],
            64,
            "cifar10 trains on images, and wikitext2 holds text",
        ),
        (["cifar10", "--resume", "./run@3", "--evaluate"], 65, "has no checkpoint of step 3"),
        (["cifar10", "--resume", "./none", "--evaluate"], 65, "no run or checkpoint './none'"),
    ):
        capsys.readouterr()
        assert train(*flags) == code
        error = capsys.readouterr().err
        assert error.startswith(f"relaunch: {code} ") and words in error and error.count("\n") == 1, error
    assert tree(relaunch_env) == before
    assert evaluate(train, "cifar10", "--data", "./moved") == 0


@pytest.mark.parametrize("flag", ["--eval-batch-size", "--threads"])
def test_zero_is_not_left_out(train, flag):
    assert train(*IMAGES) == 0
    with pytest.raises(Failure, match=f"{flag} 0 is too small") as failure:
        command.run(["./run", flag, "0"])
    assert failure.value.code == 64


def test_a_foreign_file_after_the_flags_of_its_workload(train, relaunch_env):
    assert train(*IMAGES) == 0
    weights = relaunch_env / "run/checkpoints/step-000000014/model.safetensors"
    weights.rename(relaunch_env / "model.safetensors")
    flags = "--workload cifar10 --arch net_bn --threads 1 --eval-batch-size 4 --normalise data".split()
    assert command.run([*flags, "model.safetensors", "--out", "out"])[0] == 0
    (path,) = (relaunch_env / "out").glob("*.parquet")
    assert beside(path)["metrics"]["loss"] == records(relaunch_env / "run")[-1]["loss"]


def test_a_damaged_checkpoint(train, relaunch_env, capsys):
    assert train(*IMAGES) == 0
    weights = relaunch_env / "run/checkpoints/step-000000014/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 4
    weights.write_bytes(content)
    assert train("cifar10", "--resume", "./run/checkpoints/step-000000014", "--evaluate") == 65
    assert "model.safetensors is damaged" in capsys.readouterr().err
    assert evaluate(train, "cifar10") == 0  # the run's name alone is its newest valid one
    assert (relaunch_env / "run/predictions/test-000000012.parquet").exists()


def test_a_stop_during_an_evaluation_writes_nothing(train, relaunch_env, monkeypatch, capsys):
    from relaunch.trainers.group import process
    from relaunch.trainers.tasks.sample_batches import SampleScorer

    assert train(*IMAGES) == 0
    score = SampleScorer.score
    monkeypatch.setattr(
        SampleScorer, "score", lambda task, model, k: (process._on_signal(15, None), score(task, model, k))[1]
    )
    assert evaluate(train, "cifar10") == 75
    assert "relaunch: 75 stopped before the evaluation ended; nothing was written" in capsys.readouterr().err
    assert not (relaunch_env / "run/predictions").exists()
