"""What a run will be: one answer for launcher and worker, and how a stopped run says to go on."""

import json
import os
import shlex

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch import command as launcher
from relaunch.trainers import rundir
from relaunch.trainers.begin import Beginning, begin, command_to_go_on
from relaunch.trainers.config import parse
from relaunch.trainers.resumed import merge_resumed
from relaunch.trainers.rundir import RunDir
from rigs.runs import status, steps, tree

RESUME = ("--resume", "auto")


def beginning(*argv: str) -> Beginning:
    return begin(parse(list(argv)))


def refused(*argv: str, code: int = 64) -> str:
    with pytest.raises(Failure) as failure:
        beginning(*argv)
    assert failure.value.code == code and "\n" not in failure.value.line()
    return failure.value.line()


@pytest.fixture
def made(relaunch_env):
    """made("first", "mnist", state="done"): a run's config and status, each newer than those made before."""
    count = iter(range(1, 100))

    def make(name: str, workload: str, state: str = "preempted", *flags: str) -> RunDir:
        run = RunDir(relaunch_env / "runs" / name)
        run.path.mkdir(parents=True)
        run.config.write_text(json.dumps(parse([workload, *flags]).config.to_json()))
        run.write_status(state)
        at = 1e9 + next(count)
        os.utime(run.config, (at, at))
        return run

    return make


def test_a_new_run(relaunch_env):
    assert beginning("mnist", "--seed", "3") == Beginning(None, parse(["mnist", "--seed", "3"]).config)
    for flags in ([], RESUME):  # `auto` begins an empty run
        new = beginning("mnist", "--run", "first", *flags)
        assert (str(new.run.path), new.resumes, new.weights) == ("runs/first", False, None)


def test_a_resumed_run_is_what_it_was_with_what_may_change_changed(made):
    made("first", "mnist", "preempted", "--seed", "3", "--lr", "0.5")
    job = parse(["mnist", "--run", "first", *RESUME, "--save-every", "7"])
    begins = begin(job)
    assert begins.resumes and begins.weights is None and str(begins.run.path) == "runs/first"
    assert (begins.config.seed, begins.config.lr, begins.config.save_every) == (3, 0.5, 7)
    assert begins.config == merge_resumed(parse(["mnist", "--seed", "3", "--lr", "0.5"]).config, job)
    assert "--seed 4 differs from this run's 3" in refused("mnist", "--run", "first", *RESUME, "--seed", "4")
    assert "already holds a run; add --resume auto" in refused("mnist", "--run", "first")


def test_the_run_by_another_name_is_the_run(made, relaunch_env):
    made("first", "mnist", "preempted", "--seed", "3")
    (relaunch_env / "link").symlink_to("runs/first")
    as_auto = beginning("mnist", "--run", "first", *RESUME)
    for name in ("first", "runs/first", "./runs/first/", "link", str(relaunch_env / "runs/first")):
        begins = beginning("mnist", "--run", "first", "--resume", name)
        assert begins.resumes and begins.weights is None and begins.config == as_auto.config, name
        assert begins.run.path == as_auto.run.path
    (relaunch_env / "runs/first/checkpoints/step-000000005").mkdir(parents=True)
    for name in ("first@5", "runs/first@best", "link@5", "runs/first/checkpoints/step-000000005"):
        assert "is a checkpoint of runs/first itself" in refused("mnist", "--run", "first", "--resume", name)


def test_another_runs_weights(made):
    made("first", "mnist")
    for flags, folder in (([], None), (["--run", "second"], "runs/second")):
        begins = beginning("mnist", "--resume", "first@5", *flags)
        assert (begins.weights, begins.resumes) == ("first@5", False)
        assert (begins.run and str(begins.run.path)) == folder
    assert "no run or checkpoint 'nowhere'" in refused("mnist", "--resume", "nowhere", code=65)
    assert "no run or checkpoint 'new'" in refused("mnist", "--run", "new", "--resume", "new", code=65)


def test_auto_without_a_run_names_the_newest_that_fits(made, relaunch_env):
    assert "needs --run, and no run of mnist is here; add --run NAME" in refused("mnist", *RESUME)
    made("first", "mnist", "done")
    assert "; the newest run of mnist here is first; add --run first" in refused("mnist", *RESUME)
    made("second", "mnist", "failed")
    made("my third", "mnist", "running")
    made("fourth", "mnist", "done")
    made("fifth", "cifar10")
    for name, text in (("torn", '{"workload": "mni'), ("list", "[]"), ("bytes", "\udcff")):
        (relaunch_env / "runs" / name).mkdir()
        (relaunch_env / "runs" / name / "config.json").write_text(text, errors="surrogateescape")
    line = refused("mnist", *RESUME)
    assert line.endswith("; the newest unfinished run of mnist here is my third; add --run 'my third'")
    (relaunch_env / "runs/my third/status.json").write_text("{")
    assert refused("mnist", *RESUME) == line


def test_auto_without_a_run_is_refused_on_every_path(made, train, launch, relaunch_env, capsys):
    """By the worker as a function and as a process of its own, which write nothing."""
    made("first", "mnist")
    before = tree(relaunch_env)
    assert train("mnist", *RESUME) == 64 and "add --run first" in capsys.readouterr().err
    done = launch("mnist", *RESUME)
    assert (done.code, done.out) == (64, "") and "add --run first" in done.err
    assert tree(relaunch_env) == before


@pytest.mark.parametrize("flag", ["--run", "--data", "--resume", "--data-root", "--out"])
def test_an_empty_word_is_no_name(flag):
    for words in ([flag, ""], [f"{flag}="], [f"{flag}=--"]):
        with pytest.raises(Failure) as failure:
            parse(["mnist", *words])
        assert failure.value.code == 64 and f"{flag} is empty" in failure.value.line()


def test_a_folder_that_is_named_like_a_run_does_not_hide_it(made, relaunch_env):
    run = made("mnist", "mnist")
    (relaunch_env / "mnist").mkdir()
    assert rundir.find("mnist@best") == (run.path.relative_to(relaunch_env), "best")
    assert rundir.find("./mnist")[0].resolve() == relaunch_env / "mnist"
    (relaunch_env / "model.pth").write_text("weights")
    assert rundir.find("model.pth")[0].resolve() == relaunch_env / "model.pth"


@pytest.mark.parametrize("folder", ["first", "./in a folder", "here", None])
def test_a_stop_prints_the_command_to_go_on(train, relaunch_env, capsys, folder):
    """Pasted, it goes on with the very run, once more and to its end."""
    command = ["cifar10", "--arch", "net", "--batch-size", 8, "--max_steps", 9]
    where = [] if folder is None else ["--run", f"./{folder}" if folder == "here" else folder]
    assert train(*command, *where, "--stop-after=3") == 75
    for at in 5, None:
        *_, stopped, line = capsys.readouterr().out.splitlines()
        assert ": stopped by --stop-after, and saved, step " in stopped
        assert line.startswith("to go on: relaunch train cifar10 --arch net --batch-size 8 --max-steps 9 ")
        words = shlex.split(line.removeprefix("to go on: relaunch train "))
        assert words.count("--run") == words.count("--resume") == 1 and "--stop-after" not in words
        assert train(*words, *(["--stop-after", at] if at else [])) == (75 if at else 0)
    assert "to go on" not in capsys.readouterr().out
    (config,) = relaunch_env.rglob("config.json")
    assert status(config.parent)["state"] == "done" and steps(config.parent)[-1] == 9


def test_the_command_to_go_on_starts_what_was_started(monkeypatch):
    def command(*argv: str) -> str:
        return command_to_go_on(argv, RunDir("runs/a"))

    for name in ("RELAUNCH_FLAGS", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    end = "--run runs/a --resume auto"
    assert command("mnist", "--run", "x", "--resume=y", "--stop_after", "3") == f"relaunch train mnist {end}"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    plain = f"relaunch train mnist --num-processes 2 --mixed-precision bf16 {end}"
    assert command("mnist") == plain
    typed, rest = launcher.split(["mnist", "--config", "my own.yaml", "--emulate", "--lr", "1"])
    monkeypatch.setenv("RELAUNCH_FLAGS", shlex.join(launcher.words(typed)))
    assert command(*rest) == f"relaunch train mnist --lr 1 --config 'my own.yaml' --emulate {end}"
