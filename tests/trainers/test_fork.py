"""A fork takes up another run's whole state and goes on with other settings."""

import json
import shutil

import pytest

from rigs.runs import VOLATILE, outcome, records, sha256, status, steps, tree
from rigs.sets import pack_images

NET = (
    "cifar10 --arch net --batch-size 8 --max-steps 30 --log-interval 7 --keep 9".split()
)  # 12 steps an epoch


@pytest.fixture
def parent(train, relaunch_env):
    """runs/first: stopped at step 17, within an epoch and a log window, and trained to its end."""
    assert train(*NET, "--run", "first", "--stop-after", 17) == 75
    assert train(*NET, "--run", "first", "--resume", "auto") == 0
    assert steps(relaunch_env / "runs/first") == [12, 17, 24, 30]
    return relaunch_env / "runs/first"


def after(run, step: int) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in VOLATILE} for r in records(run) if r["step"] > step]


def plain(state: dict) -> dict:
    return {k: v for k, v in state.items() if k != "fork"}


@pytest.mark.parametrize("at", ["first@17", "first@12", "runs/first/checkpoints/step-000000017"])
def test_a_fork_with_nothing_changed_is_its_parent(train, relaunch_env, parent, capsys, at):
    before, fork = tree(parent), relaunch_env / "runs/fork"
    capsys.readouterr()
    assert train("cifar10", "--fork", at, "--run", "fork") == 0
    record = json.loads((fork / "plan.json").read_text())["fork"]
    step = record["step"]
    assert f"forked from runs/first@{step}\n" in capsys.readouterr().out
    weights = parent / f"checkpoints/step-{step:09d}/model.safetensors"
    assert (record["source"], record["run"], record["sha256"]) == (at, "runs/first", sha256(weights))
    whole, forked = outcome(parent), outcome(fork)
    assert (forked["model"], forked["optimizer"]) == (whole["model"], whole["optimizer"])
    assert plain(forked["state"]) == whole["state"] and forked["state"]["fork"] == record
    assert after(fork, 0) == after(parent, step)  # its curve begins at the fork
    assert tree(parent) == before and status(fork)["state"] == "done"


def test_other_settings_from_there_on(train, relaunch_env, parent):
    """Typed ones are the fork's, the rest are its parent's; the first step of it has the new rate."""
    typed = "--lr 0.02 --schedule cosine --epochs 4 --max-steps 40 --weight-decay 0.001 --flip".split()
    assert train("cifar10", *typed, "--fork", "first@17", "--run", "fork") == 0
    fork = relaunch_env / "runs/fork"
    theirs, config = (json.loads((run / "config.json").read_text()) for run in (parent, fork))
    changed = {k for k in config if config[k] != theirs[k]}
    assert (
        {"lr", "max_steps", "schedule"}
        <= changed
        <= {*("lr", "schedule", "max_steps", "epochs", "weight_decay", "options")}
    )
    assert (config["arch"], config["batch_size"], config["keep"]) == ("net", 8, 9)
    assert [r["step"] for r in records(fork) if "lr" in r][:2] == [19, 24] and steps(fork)[-1] == 40
    assert outcome(fork)["model"] != outcome(parent)["model"]
    assert sha256(fork / "checkpoints/step-000000017/model.safetensors") == sha256(
        parent / "checkpoints/step-000000017/model.safetensors"
    )
    assert all(r["lr"] <= 0.02 for r in records(fork) if "lr" in r)
    assert train("cifar10", "--fork", "first@best", "--max-steps", 31, "--run", "best") == 0


@pytest.mark.parametrize("fault_at", ["step=19,do=raise", "save,do=raise", "save=24,do=raise"])
def test_a_fork_that_is_killed_goes_on_with_the_same_command(train, relaunch_env, parent, fault, fault_at):
    """Also before it has a checkpoint of its own; with one, its parent is not needed any more."""
    command = ["cifar10", "--fork", "first@17", "--lr", 0.05, "--resume", "auto", "--run"]
    assert train(*command, "whole") == 0
    fault(fault_at)
    with pytest.raises(RuntimeError):
        train(*command, "parts")
    fault("")
    if steps(relaunch_env / "runs/parts"):
        shutil.rmtree(parent)
    assert train(*command, "parts") == 0
    whole, parts = (outcome(relaunch_env / "runs" / name) for name in ("whole", "parts"))
    assert parts == whole


def test_a_fork_of_a_fork_and_what_is_best(train, relaunch_env, parent, capsys):
    best = json.loads((parent / "checkpoints/step-000000017/state.json").read_text())["best"]["step"]
    assert train("cifar10", "--fork", "first@17", "--run", "fork", "--lr", 0, "--stop-after", 19) == 75
    fork = relaunch_env / "runs/fork"
    assert steps(fork) == [best, 17, 19]  # RUN@best is there
    assert train("cifar10", "--resume", "fork@best", "--evaluate") == 0
    shutil.rmtree(fork / f"checkpoints/step-{best:09d}")
    capsys.readouterr()
    assert train("cifar10", "--fork", "fork", "--run", "again", "--stop-after", 20) == 75
    out = capsys.readouterr().out
    assert (
        f"no copy of the best so far, step {best} of runs/fork" in out and "forked from runs/fork@19" in out
    )
    assert steps(relaunch_env / "runs/again") == [19, 20]


@pytest.mark.slow
def test_text_and_two_processes(train, launch, relaunch_env):
    text = "wikitext2 --emsize 16 --nhid 16 --batch-size 8 --max-steps 20 --log-interval 3".split()
    accelerate = dict(processes=2, accelerate="accelerate")
    launch(*text, "--run", "whole", "--stop-after", 9, **accelerate)
    launch(*text, "--run", "whole", "--resume", "auto", "--keep", 9, **accelerate)
    assert launch("wikitext2", "--fork", "whole@9", "--run", "fork", **accelerate).code == 0
    whole, fork = (outcome(relaunch_env / "runs" / name) for name in ("whole", "fork"))
    assert (fork["model"], fork["optimizer"]) == (whole["model"], whole["optimizer"])
    assert train("wikitext2", "--fork", "whole@9", "--bptt", 20) == 64


def test_what_cannot_go_on(train, relaunch_env, parent, capsys):
    assert train("wikitext2", "--max-steps", 2, "--tied", "--emsize", 8, "--run", "text") == 0
    weights = parent / "checkpoints/step-000000012/model.safetensors"
    shutil.copy(weights, relaunch_env / "file.safetensors")
    pack_images(relaunch_env / "other", (32, 32, 3), seed=7)
    damaged = parent / "checkpoints/step-000000024/optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = tree(relaunch_env)
    text = ["wikitext2", "--fork", "text", "--max-steps", 9]
    for words, code, said in (
        (
            ["cifar10", "--fork", "first@17", "--arch", "net_bn"],
            64,
            "--arch net_bn cannot go on from first@17",
        ),
        (["cifar10", "--fork", "first@17", "--optimizer", "adam"], 64, "--optimizer adam cannot go on"),
        (["cifar10", "--fork", "first@17", "--batch-size", 4], 64, "--batch-size 4 would shift the position"),
        (["cifar10", "--fork", "first@17", "--seed", 4], 64, "--seed 4 cannot end an epoch"),
        (["cifar10", "--fork", "first"], 64, "first is at step 30, where a training of 30 steps has ended"),
        (
            ["cifar10", "--fork", "first@17", "--epochs", 1],
            64,
            "first@17 is at step 17, where a training of 1 epochs",
        ),
        (["mnist", "--fork", "first@17"], 64, "--fork first@17 trains cifar10, not mnist"),
        (
            ["cifar10", "--fork", "first@17", "--data", "./other"],
            64,
            "is not the data that runs/first@17",
        ),
        (["cifar10", "--fork", "first@17", "--init", "first"], 64, "--init and --fork both say"),
        (["cifar10", "--fork", "first@17", "--resume", "first"], 64, "--fork and --resume PATH both say"),
        (["cifar10", "--fork", "first@17", "--evaluate"], 64, "--fork goes with training"),
        (["cifar10", "--fork", "first@17", "--run", "first"], 64, "is a checkpoint of runs/first itself"),
        (["cifar10", "--fork", "first", "--run", "first"], 64, "first is runs/first itself"),
        (["cifar10", "--fork", "first@17", "--run", "text"], 64, "runs/text already holds a run"),
        (
            ["cifar10", "--fork", "first@12", "--run", "first", "--resume", "auto"],
            64,
            "--fork first@12 is not how runs/first was begun",
        ),
        (
            ["cifar10", "--fork", "file.safetensors"],
            64,
            "without optimizer and position; begin with its weights",
        ),
        (["cifar10", "--fork", "nowhere"], 65, "no run or checkpoint 'nowhere'"),
        (["cifar10", "--fork", "first@18"], 65, "no checkpoint of step 18"),
        (["cifar10", "--fork", "first@24"], 65, "optimizer.safetensors has"),
        ([*text, "--emsize", 16], 64, "text@2 holds another model than --emsize 16 makes"),
    ):
        capsys.readouterr()
        assert train(*words, *(["--run", "new"] if "--run" not in words else [])) == code, words
        error = capsys.readouterr().err
        assert error.startswith(f"relaunch: {code} ") and said in error and error.count("\n") == 1, error
    assert tree(relaunch_env) == before


def test_another_seed_at_an_epochs_end_and_untied_weights(train, relaunch_env, parent, capsys):
    assert train("cifar10", "--fork", "first@12", "--seed", 4, "--run", "seed", "--max-steps", 14) == 0
    assert train("wikitext2", "--max-steps", 2, "--emsize", 8, "--nhid", 8, "--run", "text") == 0
    capsys.readouterr()
    assert train("wikitext2", "--fork", "text", "--tied", "--max-steps", 4, "--run", "tied") == 64
    assert "another model than --tied True makes" in capsys.readouterr().err
