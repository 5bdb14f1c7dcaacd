"""What a resumed run may change and what it may not, and the other ways to begin."""

import json
import os
import shutil

import pytest

from rigs.runs import outcome, records, status, steps, tree
from rigs.sets import pack_images

NET = "cifar10 --arch net --batch-size 8 --max-steps 30 --log-interval 7".split()  # 12 steps an epoch


# what a resumed run may change ----------------------------------------------------------------------------


def test_a_finished_run_says_so(train, relaunch_env, capsys):
    assert train(*NET, "--max-steps", 3, "--run", "./run") == 0
    before = outcome(relaunch_env / "run")
    (relaunch_env / "run/status.json").unlink()  # as after a kill between the last checkpoint and it
    capsys.readouterr()
    assert train(*NET, "--max-steps", 3, "--run", "./run", "--resume", "auto") == 0
    assert "finished already, at step 3/3" in capsys.readouterr().out
    assert outcome(relaunch_env / "run") == before and status(relaunch_env / "run")["state"] == "done"


@pytest.mark.parametrize("schedule", ["constant", "step"])
@pytest.mark.parametrize(
    "short, long", [(["--max-steps", 17], ["--max-steps", 30]), (["--epochs", 1], ["--epochs", 2])]
)
def test_extension(train, relaunch_env, schedule, short, long):
    net = ["cifar10", "--arch", "net", "--batch-size", 8, "--schedule", schedule]
    assert train(*net, *long, "--run", "./whole") == 0
    assert train(*net, *short, "--run", "./parts") == 0
    assert train(*net, *long, "--run", "./parts", "--resume", "auto") == 0
    whole, parts = (outcome(relaunch_env / name) for name in ("whole", "parts"))
    assert (parts["model"], parts["optimizer"]) == (whole["model"], whole["optimizer"])


def test_what_a_resumed_run_may_not_change(train, relaunch_env, capsys):
    assert train(*NET, "--run", "./run", "--stop-after", 3) == 75
    before = tree(relaunch_env / "run")
    for flags, named in (
        (["--lr", 0.2], "--lr 0.2"),
        (["--seed", 5], "--seed 5"),
        (["--crop", 1], "--crop 1"),
        (["--arch", "net_bn"], "--arch net_bn"),
        (["--batch-size", 4], "--batch-size 4"),
        (["--epochs", 90], "--epochs 90"),
        (["--max-steps", 50], "--max-steps 50"),
        (["--elastic-exact"], "--elastic-exact True"),
    ):
        assert train(*NET, *flags, "--run", "./run", "--resume", "auto") == 64
        error = capsys.readouterr().err
        assert error.startswith(f"relaunch: 64 {named} ") and error.count("\n") == 1
    assert tree(relaunch_env / "run") == before


def test_intervals_may_change(train, relaunch_env):
    assert train(*NET, "--run", "./whole") == 0
    assert train(*NET, "--run", "./run", "--stop-after", 3) == 75
    intervals = "--save-every 2 --keep 9 --log-interval 1 --eval-every 2".split()
    assert train("cifar10", "--run", "./run", "--resume", "auto", *intervals) == 0
    assert outcome(relaunch_env / "run")["model"] == outcome(relaunch_env / "whole")["model"]
    assert len(steps(relaunch_env / "run")) >= 9
    assert [r["step"] for r in records(relaunch_env / "run") if r["split"] == "val"] == [24, 30]
    assert json.loads((relaunch_env / "run/config.json").read_text())["save_every"] == 2


def test_the_threads_that_it_was_saved_with(train, relaunch_env, monkeypatch):
    """The machine's default is another number by now; the run keeps its own."""
    import torch

    from relaunch.trainers import train as trainer
    from relaunch.trainers.group import runtime

    for cores, command in ((1, [*map(str, NET)]), (2, ["cifar10", "--resume", "auto"])):
        monkeypatch.setattr(runtime, "physical_cores", lambda: cores)
        assert trainer.run([*command, "--run", "./run", "--stop-after", str(2 + cores)])[0] == 75
        assert torch.get_num_threads() == outcome(relaunch_env / "run")["state"]["threads"] == 1


def test_a_config_that_was_edited(train, relaunch_env, capsys):
    assert train(*NET, "--run", "./run", "--stop-after", 3) == 75
    config = relaunch_env / "run/config.json"
    text = config.read_text()
    config.write_text(text.replace('"lr": 0.1', '"lr": 0.2'))
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 65
    expected = (
        "run/config.json says --lr 0.2, and run/checkpoints/step-000000003 was trained with 0.1; put back"
    )
    assert f"relaunch: 65 {expected}" in capsys.readouterr().err
    config.write_text(text[:-20])
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 65
    config.write_text(text)
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0


# other ways to begin --------------------------------------------------------------------------------------


def test_resume_auto_begins_an_empty_run(train, relaunch_env):
    assert train(*NET, "--max-steps", 2, "--run", "./whole") == 0
    (relaunch_env / "run").mkdir()
    (relaunch_env / "run/.config.json.77.part").write_text("{")  # a start that was killed
    assert train(*NET, "--max-steps", 2, "--run", "./run", "--resume", "auto") == 0
    assert outcome(relaunch_env / "run") == outcome(relaunch_env / "whole")


def test_new_run_from_others_weights(train, relaunch_env):
    """The source is only read: it may lie on a disk that nobody can write."""
    assert train(*NET, "--max-steps", 5, "--run", "./source") == 0
    before = tree(relaunch_env / "source")
    for name, source in (
        ("a", "./source"),
        ("b", "./source@5"),
        ("c", "./source@best"),
        ("d", "source/checkpoints/step-000000005"),
    ):
        assert (
            train(
                *NET, *"--lr 0 --weight-decay 0 --max-steps 1 --resume".split(), source, "--run", f"./{name}"
            )
            == 0
        )
        assert outcome(relaunch_env / name)["model"] == outcome(relaunch_env / "source")["model"]
        assert steps(relaunch_env / name) == [1]
    assert tree(relaunch_env / "source") == before


def test_data_that_moved_or_changed(train, sets, relaunch_env, capsys):
    shutil.copytree(sets / "cifar10", relaunch_env / "data/here")
    pack_images(relaunch_env / "data/changed", (32, 32, 3), seed=7)
    net = ["cifar10", "--arch", "net", "--batch-size", 8, "--max-steps", 6]
    assert train(*net, "--data", "data/here", "--run", "./whole") == 0
    assert train(*net, "--data", "data/here", "--run", "./run", "--stop-after", 3) == 75
    os.rename("data/here", "data/there")
    before = tree(relaunch_env / "run/checkpoints")

    assert train(*net, "--run", "./run", "--resume", "auto") == 65  # it is gone
    assert train(*net, "--data", "data/changed", "--run", "./run", "--resume", "auto") == 64
    os.rename("data/changed", "data/here")
    capsys.readouterr()
    assert train(*net, "--run", "./run", "--resume", "auto") == 65
    error = capsys.readouterr().err
    assert (
        error.startswith("relaunch: 65 data/here is not the data that run was trained on")
        and error.count("\n") == 1
    )
    assert tree(relaunch_env / "run/checkpoints") == before

    assert train(*net, "--data", "data/there", "--run", "./run", "--resume", "auto") == 0
    assert outcome(relaunch_env / "run")["model"] == outcome(relaunch_env / "whole")["model"]


def test_runs_that_are_not_to_be_continued(train, relaunch_env, capsys):
    assert train(*NET, "--max-steps", 2, "--run", "./run") == 0
    (relaunch_env / "notes").mkdir()
    (relaunch_env / "notes/thesis.txt").write_text("mine")
    before = tree(relaunch_env)
    for flags, code, text in (
        (["--run", "./run"], 64, "run already holds a run; add --resume auto"),
        (["--run", "./notes"], 64, "notes exists and is not a run"),
        (["--run", "notes/thesis.txt"], 64, "notes/thesis.txt exists and is not a run"),
        (["--run", "./notes", "--resume", "auto"], 64, "notes exists and is not a run"),
        (
            ["--resume", "auto"],
            64,
            "--resume auto needs --run, and no run of cifar10 is here; add --run NAME",
        ),
        (["--resume", "nowhere", "--run", "./new"], 65, "no run or checkpoint 'nowhere'"),
        (["--resume", "./run@7", "--run", "./new"], 65, "run has no checkpoint of step 7; it has 2"),
        (["--resume", "notes/thesis.txt", "--run", "./new"], 65, "notes/thesis.txt"),
    ):
        capsys.readouterr()
        assert train(*NET, *flags) == code
        error = capsys.readouterr().err
        assert error.startswith(f"relaunch: {code} ") and text in error and error.count("\n") == 1, error
    assert train("mnist", "--run", "./run", "--resume", "auto") == 64
    assert train("mnist", "--resume", "./run", "--run", "./new") == 65  # another workload's weights
    assert tree(relaunch_env) == before
