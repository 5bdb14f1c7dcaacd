"""A run that is interrupted and resumed is the run that was not: the same bytes, the same curves."""

import json
import os
import signal

import pytest
import torch

from relaunch.trainers import workloads
from relaunch.trainers.loop import Training
from rigs.runs import outcome, records, status, steps

STEPS = 40
# so much work a step that a signal sent when the log begins arrives long before the end
BATCH = {"mnist": 16, "cifar10": 32, "tiny_imagenet": 4, "wikitext2": 20}
NET = "cifar10 --arch net --batch-size 8 --max-steps 30 --log-interval 7".split()  # 12 steps an epoch


def forty(workload) -> list:
    return [workload, "--batch-size", BATCH.get(workload, 8), "--max-steps", STEPS, "--log-interval", 5]


@pytest.mark.parametrize("workload", workloads.names())
def test_every_workload(train, start, relaunch_env, workload):
    """40 steps in one go; and stopped by SIGTERM wherever it comes, by --stop-after, and resumed."""
    command = forty(workload)
    assert train(*command, "--run", "./whole") == 0

    assert start(*command, "--run", "./parts").until("  train  ").signal(signal.SIGTERM).end().code == 75
    stopped = status(relaunch_env / "parts")
    assert (stopped["state"], stopped["code"]) == ("preempted", 75) and 0 < stopped["step"] < STEPS
    assert steps(relaunch_env / "parts")[-1] == stopped["step"]
    if stopped["step"] + 1 < STEPS:
        assert (
            train(
                *command,
                "--run",
                "./parts",
                "--resume",
                "auto",
                "--stop-after",
                (stopped["step"] + STEPS) // 2,
            )
            == 75
        )
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


@pytest.mark.parametrize(
    "flags",
    [
        [],
        "--arch net_bn --grad-accum-steps 2 --optimizer adam --schedule cosine --warmup-steps 5".split(),
        "--label-smoothing 0.1 --cutmix 0.5 --optimizer adamw --clip 1 --save-every 4 --keep 1".split(),
    ],
    ids=["plain", "accumulation", "cutmix"],
)
def test_wherever_it_stops(train, relaunch_env, flags):
    assert train(*NET, *flags, "--run", "./whole") == 0
    for stop in 1, 12, 17, 29:  # 12: at an epoch's end, its evaluation is still owed
        run = f"./stopped-{stop}"
        assert train(*NET, *flags, "--run", run, "--stop-after", stop) == 75
        assert status(relaunch_env / run)["step"] == stop
        assert train(*NET, *flags, "--run", run, "--resume", "auto") == 0
        assert outcome(relaunch_env / run) == outcome(relaunch_env / "whole"), run


def test_accumulated_text_with_tied_weights(train, relaunch_env):
    command = (
        "wikitext2 --emsize 16 --nhid 16 --tied --batch-size 8 --grad-accum-steps 2 --max-steps 20".split()
    )
    assert train(*command, "--run", "./whole") == 0
    assert train(*command, "--run", "./parts", "--stop-after", 9) == 75
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


@pytest.mark.parametrize(
    "optimizer", ["sgd", "adam", "adadelta"]
)  # fused ones have the scaler skip inside their kernel
def test_skipped_steps_are_counted_and_the_loss_scale_goes_on(train, relaunch_env, monkeypatch, optimizer):
    """A real scaler, which a CPU has too; the gradients of four steps are too large for it."""
    from relaunch.trainers.group import runtime
    from relaunch.trainers.tasks.sample_batches import SampleBatches

    class Scaled(runtime.Runtime):
        def __init__(self, *args):
            super().__init__(*args)
            self.accelerator.scaler, self.precision = (
                torch.amp.GradScaler("cpu", init_scale=2.0**80, growth_interval=5),
                "fp16",
            )

    def too_large(training):
        with monkeypatch.context() as patch:
            if training.step in (3, 9, 10, 20):
                patch.setattr(SampleBatches, "loss", lambda *args: (loss(*args)[0] * 1e30, loss(*args)[1]))
            advance(training)

    loss, advance = SampleBatches.loss, Training.advance
    monkeypatch.setattr(runtime, "Runtime", Scaled)
    monkeypatch.setattr(Training, "advance", too_large)
    command = [*NET, "--optimizer", optimizer, "--lr", 0.01]
    assert train(*command, "--run", "./whole") == 0
    whole = outcome(relaunch_env / "whole")
    assert whole["state"]["skipped"] == 4 and whole["state"]["scaler"]["scale"] == 2.0**79
    assert [r["skipped"] for r in records(relaunch_env / "whole") if "lr" in r] == [1, 3, 3, 4, 4]
    for stop in 9, 10, 11:
        assert train(*command, "--run", f"./at-{stop}", "--stop-after", stop) == 75
        assert train(*command, "--run", f"./at-{stop}", "--resume", "auto") == 0
        assert outcome(relaunch_env / f"at-{stop}") == whole


# evaluation that a stop cuts short ------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_stop_during_an_evaluation_leaves_it_to_the_resumed_run(train, relaunch_env, fault, epochs):
    command = ["cifar10", "--arch", "net", "--batch-size", 8, "--epochs", epochs, "--eval-batch-size", 5]
    assert train(*command, "--run", "./whole") == 0
    assert train(*command, "--run", "./parts", "--stop-after", 20) == 75
    fault("evaluate=0,do=term")
    for _ in range(2):  # and again in the resumed run
        assert train(*command, "--run", "./parts", "--resume", "auto") == 75
        assert status(relaunch_env / "parts")["step"] == 24
        assert [r["step"] for r in records(relaunch_env / "parts") if r["split"] == "val"] == [12]
    fault("")
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


def test_a_kill_after_an_owed_evaluation_does_not_record_it_twice(train, relaunch_env, fault, at):
    command = ["cifar10", "--arch", "net", "--batch-size", 8, "--epochs", 2, "--eval-batch-size", 5]
    assert train(*command, "--run", "./whole") == 0
    fault("evaluate=0,do=term")
    assert train(*command, "--run", "./parts") == 75
    fault("save,do=raise")  # between the record and its checkpoint
    at(13, lambda training: training.saver.settle())  # which is written beside the steps
    with pytest.raises(RuntimeError, match="RELAUNCH_FAULT at save 12"):
        train(*command, "--run", "./parts", "--resume", "auto")
    fault("")
    assert [r["step"] for r in records(relaunch_env / "parts") if r["split"] == "val"] == [12]
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


# kills ----------------------------------------------------------------------------------------------------


def test_a_kill_loses_at_most_one_interval(train, relaunch_env, at, monkeypatch):
    """What was logged after the last checkpoint, a line cut in the middle too, is logged again."""
    assert train(*NET, "--save-every", 5, "--run", "./whole") == 0

    def die(training):
        with open(training.run.metrics, "a") as f:
            f.write('{"step": 17, "samp')
        raise ArithmeticError

    at(19, die)
    with pytest.raises(ArithmeticError):
        train(*NET, "--save-every", 5, "--run", "./parts")
    assert steps(relaunch_env / "parts")[-1] == 15
    assert train(*NET, "--save-every", 5, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


def test_a_kill_before_the_first_checkpoint(train, relaunch_env, fault):
    assert train(*NET, "--run", "./whole") == 0
    fault("step=9,do=raise")
    with pytest.raises(RuntimeError, match="RELAUNCH_FAULT at step 9"):
        train(*NET, "--run", "./parts", "--resume", "auto")
    fault("")
    assert train(*NET, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


# through accelerate ---------------------------------------------------------------------------------------


def test_two_processes(train, start, launch, relaunch_env):
    """Only one of them gets the signal: they leave together."""
    command = ["cifar10", "--batch-size", 32, "--epochs", 20, "--log-interval", 5, "--eval-batch-size", 4]
    accelerate = dict(processes=2, accelerate="accelerate")
    assert launch(*command, "--run", "./whole", **accelerate).code == 0

    stopped = start(*command, "--run", "./parts", **accelerate).until("  train  ")
    (second,) = [pid for pid in stopped.children() if pid != status(relaunch_env / "parts")["pid"]]
    os.kill(second, signal.SIGTERM)
    assert "and saved, step" in stopped.end().out
    assert status(relaunch_env / "parts")["code"] == 75 and 0 < status(relaunch_env / "parts")["step"] < 30
    assert launch(*command, "--run", "./parts", "--resume", "auto", **accelerate).code == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")
    assert outcome(relaunch_env / "parts")["state"]["world"] == 2

    # BatchNorm's statistics differ between the ranks; what they evaluated is what was saved
    assert train("cifar10", "--resume", "./parts", "--evaluate") == 0
    evaluated = json.loads((relaunch_env / "parts/predictions/test-000000060.json").read_text())["metrics"]
    assert evaluated == {name: records(relaunch_env / "parts")[-1][name] for name in evaluated}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "workload, processes", [("cifar10", 1), ("tiny_imagenet", 1), ("mnist", 2), ("wikitext2", 2)]
)
def test_every_workload_through_accelerate(start, launch, relaunch_env, workload, processes):
    command, accelerate = forty(workload), dict(processes=processes, accelerate="accelerate")
    assert launch(*command, "--run", "./whole", **accelerate).code == 0

    launch(*command, "--run", "./stopped", "--stop-after", 17, **accelerate)
    assert status(relaunch_env / "stopped")["code"] == 75
    assert launch(*command, "--run", "./stopped", "--resume", "auto", **accelerate).code == 0

    start(*command, "--run", "./signalled", **accelerate).until("  train  ").signal(signal.SIGTERM).end()
    assert status(relaunch_env / "signalled")["code"] == 75
    assert launch(*command, "--run", "./signalled", "--resume", "auto", **accelerate).code == 0

    assert outcome(relaunch_env / "stopped") == outcome(relaunch_env / "whole")
    assert outcome(relaunch_env / "signalled") == outcome(relaunch_env / "whole")
