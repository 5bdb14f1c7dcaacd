"""--save-every as a time: what is understood, and that it changes when a run saves and nothing else."""

import json
import math

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import records
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.interval import between_saves
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.saving import Saver
from rigs.runs import outcome, steps

NET = "cifar10 --arch net_bn --batch-size 8 --max-steps 18 --log-interval 5 --keep 99".split()


def test_steps_times_and_what_a_save_costs():
    assert between_saves(1000, 0.1) is None and between_saves("continuous", 0.1) == 0
    assert between_saves("5m", 0.1) == 300 and between_saves("1h30m", 9.0) == 5400
    assert between_saves("auto", 0.025) == pytest.approx(math.sqrt(2 * 0.025 * 86400))  # 66 s
    assert between_saves("auto:1h", 0.5) == pytest.approx(60)


@pytest.mark.parametrize(
    "text", ["often", "5", "0", "-3", "5x", "0m", "auto:", "auto:often", "continuous:5m", ""]
)
def test_what_is_no_interval_is_refused_in_one_line(text):
    if text == "5":
        assert parse(["mnist", "--save-every", text]).config.save_every == 5
        return
    with pytest.raises(Failure) as refused:
        parse(["mnist", f"--save-every={text}"])
    assert refused.value.code == 64 and "--save-every" in refused.value.what
    assert "auto:12h or continuous" in refused.value.fix or text in ("0", "-3", "")


@pytest.mark.parametrize("every", [1000, "5m", "auto:12h"])
def test_a_config_keeps_it(every):
    config = parse(["mnist", "--save-every", str(every)]).config
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.to_json()["save_every"] == every


class Runtime:
    main = True  # rank 0


def test_the_clock_of_rank_0_says_when():
    saver = Saver(Runtime, None)
    assert not saver.due("5m") and not saver.due(1)
    saver.began -= 301
    assert saver.due("5m") and not saver.due("10m") and saver.due("continuous") and not saver.due(1)
    saver.cost = 0.5
    assert not saver.due("auto:26h") and saver.due("auto:1h")
    saver.wanted = True
    assert not saver.due("5m")


def test_a_full_disk_is_tried_again_in_a_minute(tmp_path, capsys):
    """And not at each step, with an alarm for each."""
    saver = Saver(Runtime, RunDir(tmp_path))
    saver.unsaved(7, OSError("full"), last=False)
    assert "ALARM: no checkpoint of step 7 (full)" in capsys.readouterr().err
    assert not saver.due("continuous")
    saver.began -= 61
    assert saver.due("continuous")


def test_when_it_saves_changes_no_bits(train, relaunch_env, capsys):
    assert train(*NET, "--save-every", 5, "--run", "./steps") == 0
    assert train(*NET, "--save-every", "5m", "--run", "./time") == 0
    assert train(*NET, "--save-every", "continuous", "--run", "./run", "--stop-after", 4) == 75
    assert train(*NET, "--save-every", "auto", "--run", "./run", "--resume", "auto") == 0
    assert "--save-every auto: a save costs " in (said := capsys.readouterr().out)
    assert "; with one failure in 24h, one each " in said
    whole = outcome(relaunch_env / "steps")
    for name in ("time", "run"):
        found = outcome(relaunch_env / name)
        assert all(found[part] == whole[part] for part in ("model", "optimizer", "metrics")), name
    assert steps(relaunch_env / "time") == [12, 18]  # the epoch's end, and the run's
    assert {1, 4, 5, 12, 18} <= set(steps(relaunch_env / "run"))
    assert records.config(RunDir(relaunch_env / "run"))["save_every"] == "auto"


@pytest.mark.slow
def test_two_ranks_save_by_the_clock_of_one(launch, relaunch_env):
    command = [*NET, "--epochs", 9, "--max-steps", 40, "--save-every"]
    for every in ("continuous", "1000"):
        done = launch(*command, every, "--run", f"./{every}", processes=2, accelerate="accelerate")
        assert done.code == 0, done.err
    found, whole = (outcome(relaunch_env / name) for name in ("continuous", "1000"))
    assert all(found[part] == whole[part] for part in ("model", "optimizer", "metrics"))
    assert len(steps(relaunch_env / "continuous")) > len(steps(relaunch_env / "1000"))
