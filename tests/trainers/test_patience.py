"""--patience ends a training that gets no better, counts on in a resumed one, and says so."""

import json

import pytest

from relaunch.trainers.tasks.samples import SampleTask
from rigs.runs import outcome, records, status, steps

NET = "cifar10 --arch net --batch-size 8 --epochs 8 --keep 20".split()  # 12 steps an epoch
VALUES = [10.0, 30.0, 20.0, 30.0, 25.0, 40.0, 1.0, 2.0]  # a tie is no better


@pytest.fixture
def curve(monkeypatch):
    """Each evaluation's top-1 is the next of VALUES, by the number of evaluations that the run has."""
    from relaunch.trainers.loop import Training

    evaluate = Training.evaluate

    def scored(training):
        n = training.step // training.epoch_steps - 1
        monkeypatch.setattr(SampleTask, "summarise", lambda self, rows: {"loss": 1.0, "top1": VALUES[n]})
        evaluate(training)

    monkeypatch.setattr(Training, "evaluate", scored)


def test_it_ends_and_says_why(train, relaunch_env, curve, capsys):
    assert train(*NET, "--patience", 3, "--run", "run") == 0
    run, why = (
        relaunch_env / "runs/run",
        "ended by --patience 3: 3 evaluations without a better top1 than at step 24",
    )
    assert f"runs/run: {why}, step 60/96; best top1 30 on test at step 24" in capsys.readouterr().out
    assert status(run) | {"state": "done", "code": 0, "step": 60, "reason": why} == status(run)
    assert steps(run)[-1] == 60 and outcome(run)["state"]["since_best"] == 3
    before = outcome(run)
    (run / "status.json").unlink()
    assert train(*NET, "--run", "run", "--resume", "auto") == 0  # its own patience, whether typed or not
    out = capsys.readouterr().out
    assert f"finished already, at step 60/96; {why}; a larger --patience goes on" in out
    assert outcome(run) == before and status(run)["reason"] == why
    assert train("cifar10", "--fork", "run", "--run", "fork") == 64
    assert "run is at the end of --patience 3; add a larger --patience" in capsys.readouterr().err
    assert train(*NET, "--patience", 4, "--run", "run", "--resume", "auto") == 0
    assert status(run)["reason"] == "trained to the end" and outcome(run)["state"]["best"]["step"] == 72


def test_a_resumed_run_counts_on(train, relaunch_env, curve, fault):
    command = [*NET, "--patience", 2, "--run"]
    assert train(*command, "whole") == 0
    assert status(relaunch_env / "runs/whole")["step"] == 48
    for name, stop in (("within", 40), ("at", 36)):
        assert train(*command, name, "--stop-after", stop) == 75
        assert train(*command, name, "--resume", "auto") == 0
    fault("step=47,do=raise")
    with pytest.raises(RuntimeError):
        train(*command, "killed")
    fault("")
    assert train(*command, "killed", "--resume", "auto") == 0
    for name in ("within", "at", "killed"):
        assert outcome(relaunch_env / "runs" / name) == outcome(relaunch_env / "runs/whole"), name
        assert status(relaunch_env / "runs" / name)["step"] == 48
    assert train("cifar10", "--fork", "whole@36", "--run", "fork") == 0  # a fork counts on, too
    assert status(relaunch_env / "runs/fork")["step"] == 48


def test_a_stop_during_the_last_evaluation_leaves_it_owed(train, relaunch_env, curve, fault):
    command = [*NET, "--patience", 2, "--eval-batch-size", 5, "--run", "run"]
    assert train(*command, "--stop-after", 40) == 75
    fault("evaluate=0,do=term")
    assert train(*command, "--resume", "auto") == 75
    fault("")
    assert train(*command, "--resume", "auto") == 0
    assert status(relaunch_env / "runs/run")["step"] == 48
    assert [r["step"] for r in records(relaunch_env / "runs/run") if r["split"] == "val"] == [12, 24, 36, 48]


def test_ranks_agree_and_the_direction_is_the_tasks(launch, train, relaunch_env):
    """A language model that learns nothing: every later nll is as large."""
    still = "wikitext2 --emsize 8 --nhid 8 --epochs 6 --lr 0 --patience 2".split()
    assert launch(*still, "--run", "run", processes=2, accelerate="accelerate").code == 0
    said = status(relaunch_env / "runs/run")["reason"]
    assert said.startswith("ended by --patience 2: 2 evaluations without a better nll than at step ")
    evaluated = [r["step"] for r in records(relaunch_env / "runs/run") if r["split"] == "val"]
    assert len(evaluated) == 3


def test_before_and_without(train, relaunch_env, capsys):
    """A run of a version that did not know it has none; 0 is refused."""
    assert train(*NET, "--max-steps", 14, "--run", "run", "--stop-after", 3) == 75
    config = relaunch_env / "runs/run/config.json"
    values = json.loads(config.read_text())
    assert values.pop("patience") is None
    config.write_text(json.dumps(values))
    assert train("cifar10", "--run", "run", "--resume", "auto") == 0
    assert train(*NET, "--patience", 0, "--run", "new") == 64
    assert "--patience 0 is too small; it must be at least 1" in capsys.readouterr().err
