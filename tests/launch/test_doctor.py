"""`relaunch doctor` and `--dry-run` for real: what they say is what would be trained; Ctrl-C."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relaunch.data_prep import recipes
from relaunch.data_prep.errors import Failure
from relaunch.launch import command, doctor, draft, plan, processes, start
from relaunch.trainers.config import parse
from relaunch.trainers.rundir import RunDir


def begun(name: str, *words: str) -> RunDir:
    """A run that has been begun, and no more."""
    run = RunDir(Path("runs") / name)
    run.path.mkdir(parents=True)
    run.config.write_text(json.dumps(parse(list(words)).config.to_json()))
    return run


# what is planned ----------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", ["auto", "runs/first", "first"])
def test_a_resumed_run_is_planned_and_estimated_as_it_is(relaunch_env, capsys, resume):
    """Not with the defaults of its workload, and not on the workload's own data."""
    begun("first", "mnist", "--data", "digits", "-b", "48", "--optimizer", "sgd", "--momentum", "0")
    recipes.ensure("digits", Path("packed"))
    first = ["mnist", "--config", "cpu", "--run", "first", "--resume", resume, "--data-root", "packed"]
    assert start.main("train", [*first, "--dry-run"]) == 0
    said = {line[:14].strip(): line[14:] for line in capsys.readouterr().out.splitlines()}
    assert said["data"].startswith("digits in packed/digits: 1,437 train")
    assert said["batch"] == "48 = 1 process x 48" and said["learning rate"].endswith("sgd")
    assert said["run"] == "runs/first, new"
    assert "a checkpoint takes 4.8 MB" in said["memory"]  # the weights alone; of adadelta thrice that


def test_the_doctor_estimates_what_will_be_trained(relaunch_env):
    begun("wide", "cifar10", "--arch", "resnet18")
    rest = ["cifar10", "--run", "wide", "--resume", "auto"]
    todo, job = draft.draft("train", {"config": "cpu"}, rest)
    todo = dataclasses.replace(todo, data=draft.data_of(todo.config, None))
    assert draft.size_of(todo, job.launch.data_root).parameters > 10**7
    assert command.job(rest).config.arch != "resnet18"


def test_a_model_that_cannot_be_built_is_its_own_failure(relaunch_env, monkeypatch):
    todo, job = draft.draft("train", {"config": "cpu"}, ["mnist"])
    todo = dataclasses.replace(todo, data=draft.data_of(todo.config, None))
    monkeypatch.setenv("RELAUNCH_DATA", "/none")
    settings = dataclasses.replace(todo.config, data="nowhere")
    with pytest.raises(Failure) as caught:
        draft.size_of(dataclasses.replace(todo, config=settings), None)
    assert caught.value.code == 65 and "'nowhere'" in caught.value.what and caught.value.fix


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["nowhere"], 65, "no run or checkpoint 'nowhere'"),
        (["first"], 65, "runs/first has no checkpoint yet; it saves at an epoch's end"),
        (["first", "--split", "validation"], 64, "no split 'validation'; it has: train, test"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_torch(relaunch_env, words, code, says):
    begun("first", "mnist")
    for verb, line in (("evaluate", words), ("train", ["mnist", "--evaluate", "--resume", *words])):
        with pytest.raises(Failure) as caught:
            start.main(verb, [*line, "--config", "cpu"])
        assert caught.value.code == code and says in caught.value.line()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_auto_without_a_run_is_refused_at_once(relaunch_env, more):
    begun("first", "mnist")
    with pytest.raises(Failure) as caught:
        start.main("train", ["mnist", "--config", "cpu", "--resume", "auto", *more])
    assert caught.value.code == 64 and caught.value.fix == "add --run first"
    assert [p.name for p in Path("runs").iterdir()] == ["first"]


# rehearsals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["mnist", "--max-steps", "1", "--epochs", "1"], marks=pytest.mark.slow),
        ["mnist", "--run", "first", "--resume", "auto"],  # which was begun for one step, too
    ],
    ids=["one step", "resumed"],
)
def test_the_doctor_rehearses_two_steps_of_what_is_asked(relaunch_env, capsys, words):
    begun("first", "mnist", "--max-steps", "1", "-b", "5", "--save-every", "7")
    assert doctor.main([*words, "--config", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "1 x cpu in fp32 met, took 2 steps, saved and loaded between them" in text
    assert [p.name for p in Path("runs").iterdir()] == ["first"]
    assert [p.name for p in Path("runs/first").iterdir()] == ["config.json"]


def test_a_rehearsal_that_fails_says_what_the_worker_said(relaunch_env, capfd, monkeypatch):
    worker = Path("worker.py").absolute()
    worker.write_text(
        "import sys\nfrom relaunch.trainers.group import process\n"
        "from relaunch.data_prep.errors import Failure\n"
        "def run(argv): raise Failure(73, 'the disk; is full', 'free; some')\n"
        "sys.exit(process.main(run))\n"
    )
    monkeypatch.setattr(plan, "PROGRAM", str(worker))
    assert doctor.main(["--config", "cpu"]) == 73
    out, err = capfd.readouterr()
    assert " s: the disk; is full\n      fix: free; some\n" in out and err == ""
    worker.write_text("raise RuntimeError('a bug')")
    assert doctor.main(["--config", "cpu"]) == 1
    out, err = capfd.readouterr()
    assert "crashed (exit code 1)" in out and err.endswith("RuntimeError: a bug\n")


# Ctrl-C -------------------------------------------------------------------------------------------


def interrupted(*argv: str, when) -> tuple[int, str]:
    """`relaunch argv`, sent SIGINT as soon as `when(its pid)`; asserts that nothing of it is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "relaunch.launch", *argv],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not when(process.pid):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    here = str(Path.cwd()).encode()
    lines = [quiet(p / "cmdline") for p in Path("/proc").glob("[0-9]*")]
    assert not [line for line in lines if here in line]
    return process.returncode, err


def quiet(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def family(pid: int) -> bytes:
    return b" ".join(quiet(Path(f"/proc/{child}/cmdline")) for child in processes.children(pid, deep=True))


@pytest.mark.parametrize(
    "argv, when",
    [
        (["train", "mnist", "--config", "cpu", "--dry-run"], lambda pid: b"summary" in family(pid)),
        (["doctor", "mnist", "--config", "cpu"], lambda pid: b"summary" in family(pid)),
        (["doctor", "--config", "cpu"], lambda pid: b"rehearsal" in family(pid)),
        (["doctor", "--config", "cpu2"], lambda pid: family(pid).count(b".rehearsal-") >= 3),
        (["summary", "mnist"], lambda pid: b"libtorch" in quiet(Path(f"/proc/{pid}/maps"))),
    ],
    ids=["dry run", "the estimate", "the rehearsal", "the rehearsal of two", "a verb with tensors"],
)
def test_ctrl_c_is_one_line_and_130(relaunch_env, argv, when):
    code, errors = interrupted(*argv, when=when)
    errors = errors.removeprefix("relaunch: asking the model what it takes, which needs some seconds\n")
    assert code == 130 and errors.startswith("relaunch: 130 ") and errors.count("\n") == 1, errors
    assert not list(relaunch_env.glob("**/.rehearsal-*")) and not list(relaunch_env.glob("runs/*"))


def test_ctrl_c_before_anything_is_started(relaunch_env):
    """While the plan is made, in this process."""
    program = (
        "import os, signal, sys\nfrom relaunch.launch import __main__ as m, facts\n"
        "facts.gather = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['relaunch', *sys.argv[1:]]\nsys.exit(m.main())"
    )
    for argv in (["train", "mnist"], ["evaluate", "x"], ["doctor"]):
        done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (130, "relaunch: 130 interrupted\n")
    assert not Path("runs").exists()
