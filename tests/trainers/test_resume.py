"""A run that is interrupted and resumed is the run that was not: the same bytes, the same curves."""

import json
import os
import shutil
import signal

import pytest
import torch

from relaunch.trainers import workloads
from relaunch.trainers.loop import Training
from rigs.runs import outcome, records, status, steps, tree
from rigs.sets import pack_images

STEPS = 40
# so much work a step that a signal sent when the log begins arrives long before the end
BATCH = {"mnist": 16, "cifar10": 32, "tiny_imagenet": 4, "wikitext2": 20}
NET = [
    "cifar10",
    "--arch",
    "net",
    "--batch-size",
    8,
    "--max-steps",
    30,
    "--log-interval",
    7,
]  # 12 steps an epoch


def forty(workload) -> list:
    return [workload, "--batch-size", BATCH.get(workload, 8), "--max-steps", STEPS, "--log-interval", 5]


@pytest.mark.parametrize("workload", workloads.names())
def test_every_workload(train, start, relaunch_env, workload):
    """40 steps in one go; and stopped by SIGTERM wherever it comes, resumed, stopped again by --stop-after, resumed."""
    command = forty(workload)
    assert train(*command, "--run", "./whole") == 0

    assert start(*command, "--run", "./parts").until("step 5/").signal(signal.SIGTERM).end().code == 75
    stopped = status(relaunch_env / "parts")
    assert (stopped["state"], stopped["code"]) == ("preempted", 75) and 5 <= stopped["step"] < STEPS
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
        [
            "--arch",
            "net_bn",
            "--grad-accum-steps",
            2,
            "--optimizer",
            "adam",
            "--schedule",
            "cosine",
            "--warmup-steps",
            5,
        ],
        [
            "--label-smoothing",
            0.1,
            "--cutmix",
            0.5,
            "--optimizer",
            "adamw",
            "--clip",
            1,
            "--save-every",
            4,
            "--keep",
            1,
        ],
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
    command = [
        "wikitext2",
        "--emsize",
        16,
        "--nhid",
        16,
        "--tied",
        "--batch-size",
        8,
        "--grad-accum-steps",
        2,
        "--max-steps",
        20,
    ]
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
    from relaunch.trainers.tasks.images import Images

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
                patch.setattr(Images, "loss", lambda *args: (loss(*args)[0] * 1e30, loss(*args)[1]))
            advance(training)

    loss, advance = Images.loss, Training.advance
    monkeypatch.setattr(runtime, "Runtime", Scaled)
    monkeypatch.setattr(Training, "advance", too_large)
    command = [*NET, "--optimizer", optimizer, "--lr", 0.01]
    assert train(*command, "--run", "./whole") == 0
    whole = outcome(relaunch_env / "whole")
    assert whole["state"]["skipped"] == 4 and whole["state"]["scaler"]["scale"] == 2.0**79
    assert [r["skipped"] for r in records(relaunch_env / "whole") if "lr" in r] == [1, 3, 4, 4, 4]
    for stop in 9, 10, 11:
        assert train(*command, "--run", f"./at-{stop}", "--stop-after", stop) == 75
        assert train(*command, "--run", f"./at-{stop}", "--resume", "auto") == 0
        assert outcome(relaunch_env / f"at-{stop}") == whole


# evaluation that a stop cuts short ---------------------------------------------------------------------------------------


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


def test_a_kill_after_an_owed_evaluation_does_not_record_it_twice(train, relaunch_env, fault):
    command = ["cifar10", "--arch", "net", "--batch-size", 8, "--epochs", 2, "--eval-batch-size", 5]
    assert train(*command, "--run", "./whole") == 0
    fault("evaluate=0,do=term")
    assert train(*command, "--run", "./parts") == 75
    fault("save,do=raise")  # between the record and its checkpoint
    with pytest.raises(RuntimeError, match="RELAUNCH_FAULT at save 12"):
        train(*command, "--run", "./parts", "--resume", "auto")
    fault("")
    assert [r["step"] for r in records(relaunch_env / "parts") if r["split"] == "val"] == [12]
    assert train(*command, "--run", "./parts", "--resume", "auto") == 0
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


# kills --------------------------------------------------------------------------------------------------------------------


def test_a_kill_loses_at_most_one_interval(train, relaunch_env, at, monkeypatch):
    """What was logged after the last checkpoint, a line cut in the middle too, is logged again."""
    assert train(*NET, "--save-every", 5, "--run", "./whole") == 0

    def die(training):
        training.metrics.file.write('{"step": 17, "samp')
        training.metrics.file.flush()
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


# through accelerate -------------------------------------------------------------------------------------------------------


def test_two_processes(train, start, launch, relaunch_env):
    """Only one of them gets the signal: they leave together."""
    command = ["cifar10", "--batch-size", 32, "--epochs", 20, "--log-interval", 5, "--eval-batch-size", 4]
    accelerate = dict(processes=2, accelerate="accelerate")
    assert launch(*command, "--run", "./whole", **accelerate).code == 0

    stopped = start(*command, "--run", "./parts", **accelerate).until("step 5/")
    (second,) = [pid for pid in stopped.children() if pid != status(relaunch_env / "parts")["pid"]]
    os.kill(second, signal.SIGTERM)
    assert "and saved, step" in stopped.end().out
    assert status(relaunch_env / "parts")["code"] == 75 and 5 <= status(relaunch_env / "parts")["step"] < 30
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
    "workload, processes", [*((name, 1) for name in workloads.names()), ("mnist", 2), ("wikitext2", 2)]
)
def test_every_workload_through_the_engine(start, launch, relaunch_env, workload, processes):
    command, accelerate = forty(workload), dict(processes=processes, accelerate="accelerate")
    assert launch(*command, "--run", "./whole", **accelerate).code == 0

    launch(*command, "--run", "./stopped", "--stop-after", 17, **accelerate)
    assert status(relaunch_env / "stopped")["code"] == 75
    assert launch(*command, "--run", "./stopped", "--resume", "auto", **accelerate).code == 0

    start(*command, "--run", "./signalled", **accelerate).until("step 5/").signal(signal.SIGTERM).end()
    assert status(relaunch_env / "signalled")["code"] == 75
    assert launch(*command, "--run", "./signalled", "--resume", "auto", **accelerate).code == 0

    assert outcome(relaunch_env / "stopped") == outcome(relaunch_env / "whole")
    assert outcome(relaunch_env / "signalled") == outcome(relaunch_env / "whole")


# what a resumed run may change ---------------------------------------------------------------------------------------------


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
    ):
        assert train(*NET, *flags, "--run", "./run", "--resume", "auto") == 64
        error = capsys.readouterr().err
        assert error.startswith(f"relaunch: 64 {named} ") and error.count("\n") == 1
    assert tree(relaunch_env / "run") == before


def test_intervals_may_change(train, relaunch_env):
    assert train(*NET, "--run", "./whole") == 0
    assert train(*NET, "--run", "./run", "--stop-after", 3) == 75
    assert (
        train(
            "cifar10",
            "--run",
            "./run",
            "--resume",
            "auto",
            "--save-every",
            2,
            "--keep",
            9,
            "--log-interval",
            1,
            "--eval-every",
            2,
        )
        == 0
    )
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
    assert (
        "relaunch: 65 run/config.json is not the config that run/checkpoints/step-000000003 was trained with"
        in capsys.readouterr().err
    )
    config.write_text(text[:-20])
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 65
    config.write_text(text)
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0


# other ways to begin --------------------------------------------------------------------------------------------------------


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
                *NET,
                "--lr",
                0,
                "--weight-decay",
                0,
                "--max-steps",
                1,
                "--resume",
                source,
                "--run",
                f"./{name}",
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
        (["--resume", "auto"], 64, "--resume auto needs to know which run"),
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
