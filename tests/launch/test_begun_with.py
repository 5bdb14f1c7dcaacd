"""--init and --fork through the launcher: what it plans and refuses, what it starts, what jobs carry."""

import shutil
from pathlib import Path

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch import runs, start
from relaunch.launch.__main__ import run as relaunch
from rigs.runs import outcome, status, steps, tree

NET = "cifar10 --arch net --batch-size 8 --max-steps 20 --keep 9".split()  # 12 steps an epoch
CPU = ["--config", "cpu", "--threads", "1"]


@pytest.fixture
def first(train, relaunch_env, capsys):
    assert train(*NET, "--run", "first", "--stop-after", 15) == 75
    assert train("cifar10", "--run", "first", "--resume", "auto") == 0
    capsys.readouterr()
    return relaunch_env / "runs/first"


def planned(*words: str) -> dict[str, str]:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert start.main("train", [*words, *CPU, "--dry-run"]) == 0
    return {line[:14].strip(): line[14:] for line in out.getvalue().splitlines()}


def refused(*words: str) -> Failure:
    with pytest.raises(Failure) as caught:
        start.main("train", [*words, *CPU])
    assert "\n" not in caught.value.line()
    return caught.value


def test_the_plan_says_where_it_begins(first, relaunch_env):
    before = tree(relaunch_env)
    said = planned("cifar10", "--fork", "first@15", "--run", "fork", "--lr", "0.05")
    assert said["run"] == "runs/fork, forked from runs/first@15"
    assert said["batch"] == "8 = 1 process x 8" and said["learning rate"].startswith("0.05, one-cycle")
    assert said["workload"] == "cifar10 net" and said["steps"] == "12 an epoch, 20 in all"
    for flag in "--init", "--resume":
        said = planned(*NET, flag, "first@15", "--run", "tuned")
        assert said["run"] == "runs/tuned, begun with the weights of first@15"
    assert planned("cifar10", "--fork", "first@15")["run"].endswith(", forked from runs/first@15")
    assert tree(relaunch_env) == before


def test_what_is_missing_is_refused_before_anything_starts(first, relaunch_env):
    damaged = first / "checkpoints/step-000000012/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = tree(relaunch_env)
    for flag in "--init", "--fork", "--resume":
        for source, said in (
            ("nowhere", "no run or checkpoint 'nowhere'"),
            ("first@7", "no checkpoint of step 7; it has 12, 15, 20"),
            ("first@12", "bytes instead of"),
        ):
            failure = refused(*NET, flag, source, "--run", "new")
            assert failure.code == 65 and said in failure.line()
    assert refused("cifar10", "--fork", "first@15", "--arch", "net_bn").code == 64
    assert tree(relaunch_env) == before


@pytest.mark.parametrize("engine", ["relaunch", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_a_fork_that_is_started_and_requeued(first, start, relaunch_env, engine):
    """The same command twice: the second one goes on, and needs no parent."""
    command = ["cifar10", "--fork", "first@15", "--run", "fork", "--resume", "auto", "--max-steps", "19"]
    how = dict(module="launch") if engine == "relaunch" else dict(accelerate="accelerate")
    command = ["train", *command, "--config", "cpu"] if engine == "relaunch" else command
    start(*command, "--stop-after", "17", **how).end()
    fork = relaunch_env / "runs/fork"
    assert status(fork)["code"] == 75 and steps(fork)[-1] == 17
    shutil.move(first, relaunch_env / "away")
    done = start(*command, **how).end()
    assert done.code == 0 and "resumed from step 17" in done.out and steps(fork)[-1] == 19
    assert outcome(fork)["state"]["fork"]["step"] == 15


def test_a_run_says_what_it_was_begun_with(first, train, relaunch_env, capsys):
    assert train("cifar10", "--fork", "first@15", "--run", "fork", "--stop-after", 16) == 75
    assert train(*NET, "--init", "first", "--run", "tuned", "--max-steps", 1) == 0
    for name, said in (("fork", "forked from runs/first@15"), ("tuned", "with the weights of first")):
        capsys.readouterr()
        assert runs.main_runs(["show", name]) == 0
        assert f"\nbegun       {said}\n" in capsys.readouterr().out
    assert runs.main_runs(["show", "first"]) == 0 and "begun" not in capsys.readouterr().out


def test_a_job_carries_them(first, relaunch_env, monkeypatch, capsys):
    for words in (["--fork", "first@15", "--lr", "0.05"], ["--init", "first@best"]):
        job = ["submit", "slurm", *NET, *words, "--config", "cpu", "--time", "5", "--run", "new"]
        assert relaunch(job) == 0
        script = capsys.readouterr().out
        assert f"{' '.join(words)} " in script and "RESUME=auto\n" in script
        with pytest.raises(Failure, match="only a SLURM job can begin with other weights"):
            relaunch(
                ["submit", "kubernetes", *NET, *words, "--config", "cpu", "--image", "x", "--run", "new"]
            )
    with pytest.raises(Failure, match="no run or checkpoint 'nowhere'"):
        relaunch(
            ["submit", "slurm", *NET, "--init", "nowhere", "--config", "cpu", "--time", "5", "--run", "new"]
        )
    assert not Path("runs/new").exists()
