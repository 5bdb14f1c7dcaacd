"""--time: as many steps as it holds, measured on a copy before the first, fixed in config.json, resumed."""

import json
import signal
import time

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import length
from relaunch.trainers.config import parse
from relaunch.trainers.length import Costs
from relaunch.trainers.schedule import due
from relaunch.trainers.tasks.sample_batches import SampleScorer
from rigs.runs import outcome, status, steps

# 12 steps an epoch; the rate and the momentum depend on the length, dropout on the step
NET = "cifar10 --arch net_bn --batch-size 8 --schedule one-cycle --optimizer adamw --cutmix 0.5".split()


@pytest.fixture
def seconds_of(monkeypatch):
    """seconds_of(2.0): measures as ever, but shortly, and says that a step takes so long, all else none."""
    measured = length.measured
    monkeypatch.setattr(length, "LONGEST", 0.01)

    def step(seconds: float):
        def told(*given):
            assert measured(*given).step > 0
            return Costs(seconds, 0.0, 0.0)

        monkeypatch.setattr(length, "measured", told)

    return step


def config(run) -> dict:
    return json.loads((run / "config.json").read_text())


def test_the_run_is_that_of_so_many_steps_and_goes_on_as_one(train, relaunch_env, seconds_of, capsys):
    seconds_of(1000.0)
    assert train(*NET, "--time", "10h", "--run", "timed") == 0
    runs = relaunch_env / "runs"
    fixed = config(runs / "timed")
    assert (fixed["time"], fixed["max_steps"], fixed["epochs"]) == ("10h", 35, 3)  # starting takes some
    out = capsys.readouterr().out
    assert "s until here, 1,000,000 ms a step, 0.0 s of evaluation and saving: 35 steps (2.92 epochs)" in out
    assert [path.name for path in (runs / "timed").glob(".*")] == [".lock"]

    assert train(*NET, "--max-steps", 35, "--epochs", 3, "--run", "counted") == 0
    timed, counted = outcome(runs / "timed"), outcome(runs / "counted")
    for made in (timed, counted):
        made["state"]["config"].pop("time")
        made["state"].pop("config_hash")
    assert timed == counted

    assert train(*NET, "--time", "10h", "--run", "parts", "--stop-after", 13) == 75
    seconds_of(100.0)  # a machine ten times as fast
    assert train(*NET, "--time", "10h", "--run", "parts", "--resume", "auto") == 0
    assert outcome(runs / "parts")["model"] == timed["model"]
    assert train(*NET, "--time", "11h", "--run", "parts", "--resume", "auto") == 64
    assert "--time 11h differs from this run's 10h" in capsys.readouterr().err


def test_before_it_is_fixed_nothing_is_begun(train, relaunch_env, seconds_of, at, capsys):
    run, command = relaunch_env / "runs/run", [*NET, "--time", "10h", "--run", "run", "--resume", "auto"]
    seconds_of(1e5)
    assert train(*command) == 64
    assert "it ends before the first step; use at least --time 2" in capsys.readouterr().err
    at(1, lambda training: signal.raise_signal(signal.SIGTERM))
    assert train(*command) == 75
    assert "stopped while it measured its steps, before the first" in capsys.readouterr().err
    assert not (run / "config.json").exists()
    seconds_of(7000.0)
    assert train(*command) == 0
    assert config(run)["max_steps"] == status(run)["step"] == 5


def test_a_long_evaluation_is_measured_by_a_part_of_it(train, relaunch_env, monkeypatch):
    costs, scored, measured, score = [], [], length.measured, SampleScorer.score
    monkeypatch.setattr(length, "LONGEST", 0.01)
    monkeypatch.setattr(length, "measured", lambda *given: costs.append(measured(*given)) or Costs(2e4, 0, 0))
    monkeypatch.setattr(SampleScorer, "score", lambda *of: scored.append(time.sleep(0.02)) or score(*of))
    assert train(*NET, "--time", "10h", "--eval-batch-size", 2, "--run", "run") == 0
    assert costs[0].evaluation > 12 * 0.02 and costs[0].checkpoint > 0  # 23 samples: 12 batches
    assert steps(relaunch_env / "runs/run") == [1] and 12 < len(scored) < 24  # the run's own is whole


def test_the_most_steps_that_fit():
    """Against counting what the loop does at each step."""
    costs = Costs(1.0, 7.0, 3.0)
    for command in ("", "--save-every 5", "--eval-every 3 --save-every 8", "--save-every 12"):
        made = parse([*NET, *command.split()]).config

        def takes(total: int) -> float:
            done = range(1, total + 1)
            evaluations = sum(due(step, 12 * made.eval_every, total) for step in done)
            saves = sum(due(step, made.save_every, total) or step % 12 == 0 for step in done)
            return total + 7 * evaluations + 3 * saves

        for left in (-1, 10, 11, 40, 99.5):
            found = costs.steps_in(left, made, 12)
            assert found == max([n for n in range(1, 100) if takes(n) <= left], default=0), (command, left)


@pytest.mark.parametrize(
    "words, said",
    [
        ("--time 30", "--time '30' is no time; write 90s, 30m, 2h or 1h30m"),
        ("--time 0m", "--time '0m' is no time"),
        (
            "--time 1h --epochs 3",
            "--time 1h and --epochs 3 both say how long to train; leave one of them out",
        ),
        ("--time 1h --max-steps 3", "--time 1h and --max-steps 3 both say how long to train"),
        ("--time 1h --fork other", "--time 1h is of a run's own steps, and --fork begins at another's"),
    ],
)
def test_refused(words, said):
    with pytest.raises(Failure) as failure:
        parse(["cifar10", *words.split()])
    assert failure.value.code == 64 and said in failure.value.line()


def test_a_presets_length_gives_way():
    job = parse("cifar10 --preset tutorial --time 1h30m".split())
    assert "epochs" in parse("cifar10 --preset tutorial".split()).given  # it has one
    assert not {"epochs", "max_steps"} & job.given and job.config.max_steps is None
    assert job.config.batch_size == parse("cifar10 --preset tutorial".split()).config.batch_size


@pytest.mark.slow
def test_two_processes_measure_together(launch, relaunch_env):
    """For real, and only as far as the first steps: a busy machine would not keep to any time."""
    command = [*NET, "--time", "10h", "--stop-after", 3, "--run", "two"]
    out = launch(*command, processes=2, accelerate="accelerate").out
    run = relaunch_env / "runs/two"
    assert (status(run)["code"], status(run)["step"]) == (75, 3)
    total = json.loads((run / "plan.json").read_text())["total_steps"]
    assert config(run)["max_steps"] == total > 3 and f": {total:,} steps (" in out
