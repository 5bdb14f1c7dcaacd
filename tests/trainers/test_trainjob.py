"""A TrainJob's status: what a controller is told over TLS, how often, and what no controller can end."""

import time

import pytest

from relaunch.trainers import trainjob
from relaunch.trainers.rundir import RunDir
from rigs.trainer_controller import Controller


@pytest.fixture
def controller(tmp_path, monkeypatch):
    """controller(answer=403): one that runs, and whom a training here finds in its environment."""
    started = []
    monkeypatch.setattr(trainjob, "EVERY", 0.2)
    monkeypatch.setattr(trainjob, "PATIENCE", 0.2)

    def begin(**how) -> Controller:
        found = Controller(tmp_path, **how).__enter__()
        started.append(found)
        for name, value in found.variables.items():
            monkeypatch.setenv(name, value)
        return found

    yield begin
    for found in started:
        found.__exit__()


def begun(tmp_path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.plan.write_text('{"total_steps": 200, "eval_split": "test"}')
    return run


def record(step: int, split: str = "train", **values) -> dict:
    return {"step": step, "samples": 9 * step, "epoch": step / 50, "split": split, **values}


def values(status: dict) -> dict:
    return {each["name"]: each["value"] for each in status["metrics"]}


def test_progress_and_metrics_are_told_never_more_often_than_may_be(controller, tmp_path):
    there = controller()
    told = trainjob.offered(begun(tmp_path))
    for step in range(101, 151):
        told.log(record(step, loss=step / 1000, lr=0.1), left=200 - step)
        time.sleep(0.01)
    there.token.write_text("second\n")  # tokens are exchanged within the hour
    told.log(record(150, "val", loss=0.25, top1=97.5, nothing=None), left=49.6)
    told.finish(done=False)
    times = [at for at, _, _ in there.told]
    assert 2 <= len(times) <= 6 and all(b - a > 0.18 for a, b in zip(times, times[1:]))
    assert not there.wrong and there.told[0][1] == "Bearer first" and there.told[-1][1] == "Bearer second"
    status = there.told[-1][2]
    assert status["progressPercentage"] == 75 and status["estimatedRemainingSeconds"] == 50
    assert values(status) == {
        **{"loss": "0.15", "lr": "0.1", "test_loss": "0.25", "test_top1": "97.5"},
        **{"step": "150", "total_steps": "200", "epoch": "3"},
    }
    assert not told.thread.is_alive()


@pytest.mark.parametrize(
    "how, change, reason",
    [
        ({"answer": 403}, {}, "403"),
        ({"answer": 500}, {}, "500"),
        ({"silent": True}, {}, "timed out"),
        ({}, {"URL": "https://127.0.0.1:9/nobody"}, "refused"),
        ({}, {"URL": "nonsense"}, "unknown url"),
        ({}, {"TOKEN": "/nowhere/token"}, "No such file"),
        ({}, {"CA_CERT": "/etc/hostname"}, "certificate"),
    ],
    ids=["forbidden", "broken", "silent", "nobody", "no-address", "no-token", "no-certificate"],
)
def test_what_goes_wrong_is_one_line_and_holds_nobody_up(
    controller, tmp_path, monkeypatch, capsys, how, change, reason
):
    controller(**how)
    for name, value in change.items():
        monkeypatch.setenv(f"KUBEFLOW_TRAINER_SERVER_{name}", value)
    told, began = trainjob.offered(begun(tmp_path)), time.monotonic()
    for step in range(1, 100):
        told.log(record(step, loss=1.0), left=None)
    assert time.monotonic() - began < 2
    time.sleep(0.3)
    told.log(record(100, loss=1.0), left=None)
    told.finish(done=True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and reason in said and "training goes on" in said
    assert time.monotonic() - began < 5 and not told.thread.is_alive()


def test_a_training_tells_its_trainjob_that_it_is_done(controller, train):
    there = controller()
    assert train("mnist", "--max-steps", 3, "--log-interval", 1, "--run", "told") == 0
    status = there.told[-1][2]
    assert not there.wrong and status["progressPercentage"] == 100
    assert {"loss", "lr", "samples_per_s", "test_top1", "step"} <= set(values(status))


def test_a_training_whose_trainjob_cannot_be_told_is_the_same(controller, train, capsys):
    there = controller(answer=500)
    assert train("mnist", "--max-steps", 3, "--run", "untold") == 0 and there.told
    assert "the TrainJob's status is not told (HTTP Error 500" in capsys.readouterr().err


def test_nobody_is_told_elsewhere(tmp_path, monkeypatch):
    run = begun(tmp_path)
    for name in trainjob.GIVEN[:-1]:
        monkeypatch.setenv(name, "x")
    assert trainjob.offered(run) is None
