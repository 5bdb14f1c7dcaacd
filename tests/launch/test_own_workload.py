"""A workload of somebody's own on the command line: described by a child, planned, started and submitted."""

import contextlib
import json
import shutil
import sys

import pytest
import yaml

from relaunch.data_prep.errors import Failure
from relaunch.launch import command, draft, standin
from relaunch.launch.__main__ import run as relaunch
from relaunch.trainers import config, workloads
from relaunch.trainers.workloads import own
from rigs.own import write
from rigs.runs import status
from rigs.submitting import directives


@pytest.fixture(autouse=True)
def nothing_is_left():
    """A process of its own would end here: nothing is registered or remembered."""
    yield
    assert "relaunch_own_flowers" not in sys.modules or own.folders, "only a child may import it"
    own.forget()
    workloads._own.clear()
    standin.ask.cache_clear()
    sys.modules.pop("relaunch_own_flowers", None)


@pytest.fixture
def flowers(relaunch_env):
    return write(relaunch_env / "work")


@pytest.fixture
def marker(relaunch_env, monkeypatch):
    """A file that appears when flowers.py is executed, from now on."""
    monkeypatch.setenv("FLOWERS_MARKER", str(relaunch_env / "executed"))
    return relaunch_env / "executed"


def refused(*words) -> str:
    with pytest.raises(Failure) as caught:
        relaunch([*map(str, words)])
    assert caught.value.code == 64 and "\n" not in caught.value.line()
    return caught.value.line()


# described --------------------------------------------------------------------------------------------------


def test_what_stands_in_for_it_is_the_same_workload(flowers):
    """Flags, their checks and the config are those of the file itself, and the launcher never imports it."""
    words = [str(flowers), "--preset", "wide", "--sharp", "2", "--epochs", "3"]
    planned = command.job(words)
    assert "relaunch_own_flowers" not in sys.modules
    stands_in = workloads.load("flowers")
    help = config.workload_parser(str(flowers)).format_help()
    workloads._own.clear()
    assert planned.config.to_json() == config.parse(words).config.to_json()
    assert help == config.workload_parser(str(flowers)).format_help()
    itself = workloads.load("flowers")
    assert (stands_in.defaults, stands_in.presets, stands_in.archs) == (
        itself.defaults,
        itself.presets,
        itself.archs,
    )


def test_help_lists_its_flags_and_the_launchers(flowers, capfd):
    with pytest.raises(SystemExit):
        relaunch(["train", str(flowers), "--help"])
    out = capfd.readouterr().out
    assert "a tiny CNN of somebody's own" in out and "--width N" in out and "[4]" in out
    assert "wide: --width=16 --lr=0.1" in out and "--emulate" in out and "flowers is imported" not in out


def test_mistyped_words_are_refused_as_for_ours(flowers):
    assert "did you mean --width?" in refused("train", flowers, "--widht", "3")
    assert "did you mean --emulate?" in refused("train", flowers, "--emulat")
    assert "--width 0 is too small" in refused("train", flowers, "--width", "0")
    assert "flowers has no preset 'wid'" in refused("train", flowers, "--preset", "wid")
    assert "./flower.py is not there" in refused("train", "./flower.py")


def test_what_only_its_own_code_refuses_is_refused_before_the_start(flowers):
    line = refused("train", flowers, "--sharp", "0", "--dry-run")
    assert f"{flowers}, line " in line and "ValueError: sharp is not above 0" in line


@pytest.mark.parametrize(
    "change, words",
    [
        (("def model(config, sizes):", "def model(config, sizes)"), "line 49: expected ':'"),
        (('print("flowers', 'import os; os._exit(3)\nprint("flowers'), "crashed (exit code 3)"),
        (
            ("    sharp:", "    emulate: int = setting(1, 'x')\n    sharp:"),
            "the option emulate hides --emulate of relaunch train",
        ),
    ],
)
def test_a_mistake_in_the_file_is_one_line(change, words, relaunch_env):
    with pytest.raises(Failure) as caught:
        relaunch(["train", str(write(relaunch_env / "work", change)), "--dry-run"])
    assert words in caught.value.line() and caught.value.code == (1 if "crashed" in words else 64)


def test_a_task_that_counts_its_own_steps_is_asked(relaunch_env):
    hook = (
        "    def steps_per_epoch(self, config, sizes):\n        return config.batch_size + sizes.outputs\n\n"
    )
    file = write(relaunch_env / "work", ("    def prepare(", hook + "    def prepare("))
    todo, job = draft.prepare("train", {"config": "cpu"}, [str(file)])
    assert todo.epoch_steps == 16 + 10
    other = draft.dataclasses.replace(job.config, batch_size=32)
    assert workloads.load("flowers").task.steps_per_epoch(other, todo.data.sizes) == 32 + 10


# started ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_start_a_dry_run_and_a_resume_without_the_file(flowers, relaunch_env, capfd):
    start = ["train", str(flowers), "--config", "cpu", "--run", "first", "--threads", "1"]
    assert relaunch([*start, "--dry-run"]) == 0
    assert "12 in all" in (said := capfd.readouterr().out) and "90 parameters" in said
    assert relaunch([*start, "--stop-after", "3"]) == 75
    shutil.rmtree(flowers.parent)
    workloads._own.clear()
    standin.ask.cache_clear()
    assert relaunch([*start, "--resume", "auto"]) == 0
    run = relaunch_env / "runs/first"
    assert status(run)["step"] == 12 and not (run / "code/__pycache__").exists()


def test_a_resume_with_a_changed_file_is_refused_by_the_launcher(flowers, train):
    assert train(flowers, "--run", "first", "--stop-after", 2) == 75
    workloads._own.clear()
    (flowers.parent / "petals.py").write_text("from torch.nn import Linear as Head\n")
    line = refused("train", flowers, "--config", "cpu", "--run", "first", "--resume", "auto")
    assert f"{flowers.parent}/petals.py has changed since this run began" in line


def test_what_only_reads_a_run_executes_nothing(flowers, train, marker, relaunch_env, capfd):
    train(flowers, "--run", "first", "--stop-after", 2)
    assert marker.exists()
    marker.unlink()
    for words in ("runs", "runs show first", "runs show runs/first"):
        assert relaunch(words.split()) == 0
    with contextlib.suppress(Failure):  # nothing runs that could be stopped
        relaunch(["stop", "first"])
    assert "flowers" in capfd.readouterr().out and not marker.exists()


# submitted --------------------------------------------------------------------------------------------------


def test_a_slurm_job_starts_a_copy_beside_its_script(flowers, relaunch_env, monkeypatch, capsys):
    programs = relaunch_env / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text("#!/bin/sh\necho 17\n")
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    words = ["submit", "slurm", "--config", "cpu", "work/flowers.py", "--time", "10", "--name", "bed"]
    assert relaunch([*words, "--submit"]) == 0
    folder = relaunch_env / "runs/jobs/bed"
    [copy] = folder.glob("code-*")
    assert sorted(p.name for p in copy.iterdir()) == ["flowers.py", "petals.py"]
    script = (folder / "job.sh").read_text()
    assert directives(script)["chdir"] == str(relaunch_env)
    assert f"train --config cpu runs/jobs/bed/{copy.name}/flowers.py" in script
    assert "flowers.py, petals.py: copied to" in capsys.readouterr().out
    assert relaunch(words) == 0  # printed only: nothing is copied
    assert "train --config cpu work/flowers.py" in capsys.readouterr().out


def test_an_option_that_the_job_would_take_is_refused(relaunch_env):
    file = write(relaunch_env / "work", ("    sharp:", "    partition: int = setting(1, 'x')\n    sharp:"))
    assert "the option partition hides --partition of relaunch submit slurm" in refused(
        "submit", "slurm", file, "--partition", 5
    )


def test_a_kubernetes_job_brings_its_files(flowers, capsys):
    words = ["--config", "cpu", "--image", "x", "--volume", "claim:/runs", "--run", "/runs/bed"]
    assert relaunch(["submit", "kubernetes", str(flowers), *words]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    files = next(d for d in documents if d["kind"] == "ConfigMap")
    text = json.dumps(documents)
    assert (
        flowers.read_text() in files["data"].values()
        and files["metadata"]["name"] in text.split("data", 1)[1]
    )
    assert "/relaunch-code/flowers.py" in text and str(flowers) not in text


def test_a_sheet_names_the_files_to_bring(flowers, capsys):
    assert relaunch(["submit", "sheet", str(flowers), "--config", "cpu", "--user", "anna"]) == 0
    said = capsys.readouterr().out
    assert f"flowers.py, petals.py of {flowers.parent} as /code/own" in said
    assert "launch/__main__.py train own/flowers.py" in said
