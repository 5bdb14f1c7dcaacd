"""What `relaunch submit` makes of a command line: times, the site's file, the environment, refusals."""

import json
import os
import shlex
from pathlib import Path

import pytest

from relaunch.launch import PROGRAM
from relaunch.launch.submit import describe, queue, slurm
from relaunch.trainers import flags
from relaunch.trainers.config import parse
from relaunch.trainers.rundir import RunDir
from rigs.submitting import DIGITS, directives, numbered, refused, relaunch


@pytest.mark.parametrize(
    "words",
    [["--name", "a\nb"], ["--partition", "a\n#SBATCH --x"], ["--account", "a\udcff"], ["--run", "a\nb"]],
)
def test_a_line_break_in_a_directive(words):
    assert "line break" in refused("slurm", *DIGITS, "--time", "5", *words)


ODD = ["# 1", "it's", 'a "b" c', "100%j %% %", "#", "-x", "$HOME `id`", "ü 猫"]


@pytest.mark.parametrize("name", ODD)
def test_a_path_run_or_job_name_of_any_characters(written, tmp_path, monkeypatch, name):
    """As sbatch reads it, it is the same again, and the log lies where it is looked for."""
    here = tmp_path / name
    here.mkdir()
    monkeypatch.chdir(here)
    script = written(
        "slurm", *DIGITS, "--time", 5, f"--run={name}", f"--account={name}", "--partition", "a\\b"
    )
    found = directives(script)
    assert (found["job-name"], found["account"], found["partition"]) == (name, name, "a\\b")
    assert found["chdir"] == str(here) and numbered(found["output"]) == f"{here}/runs/jobs/{name}/7.out"
    tasks = directives(written("slurm", *DIGITS, "--time", 5, f"--run={name}", "--sweep", "seed=1,2"))
    assert numbered(tasks["output"], "7", "1") == f"{here}/runs/jobs/{name}/7_1.out"
    assert f"RUN={shlex.quote(f'runs/{name}')} " in script


def test_a_folder_that_slurm_cannot_keep_numbered_logs_in(tmp_path, monkeypatch):
    assert "backslash" in refused("slurm", *DIGITS, "--time", "5", "--run", "a\\b")
    (tmp_path / "a\\b").mkdir()
    monkeypatch.chdir(tmp_path / "a\\b")
    assert "backslash" in refused("slurm", *DIGITS, "--time", "5")


def test_a_secret_that_is_not_there(written, monkeypatch):
    monkeypatch.setenv("EMPTY_TOKEN", "")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name in ("HF_TOKEN", "EMPTY_TOKEN"):
        assert "the job would lack it" in refused("slurm", *DIGITS, "--time", "5", "--env", name)
    assert "HF_TOKEN=***" in written("sheet", *DIGITS, "--user", "a", "--env", "HF_TOKEN")  # asked for there


@pytest.mark.parametrize(
    "site, image, expected",
    [
        ("", "i.sif", "--image i.sif would not be used"),
        ("container: apptainer exec fixed.sif", "i.sif", "--image i.sif would not be used"),
        ("container: apptainer exec {image}", "", "needs an image"),
        ("container: apptainer exec 'half", "", "are not shell"),
        ("lines: ['if true; then']", "", "are not shell"),
    ],
)
def test_a_site_that_could_not_be_started(site, image, expected):
    Path("site.yaml").write_text(site)
    words = ["slurm", *DIGITS, "--time", "5", "--site", "site.yaml", *(["--image", image] if image else [])]
    assert expected in refused(*words)


def test_the_environment_is_an_allow_list_without_secrets(written, monkeypatch):
    for name, value in {
        "HF_HOME": "/hf",
        "NCCL_DEBUG": "INFO",
        "NCCL_SECRET_KEY": "s3cret",
        "AWS_KEY": "s3cret",
        "HF_TOKEN": "s3cret",
        "EDITOR": "vi",
    }.items():
        monkeypatch.setenv(name, value)
    for script in (
        written("slurm", *DIGITS, "--time", 5, "--env", "HF_TOKEN"),
        written("sheet", *DIGITS, "--user", "a", "--env", "HF_TOKEN"),
        written(
            "kubernetes",
            *DIGITS,
            "--image",
            "i",
            "--volume",
            "c:/runs",
            "--run",
            "/runs/x",
            "--env",
            "HF_TOKEN",
        ),
    ):
        assert (
            "s3cret" not in script
            and "HF_TOKEN" in script
            and "AWS_KEY" not in script
            and "EDITOR" not in script
        )
    assert {"HF_HOME", "NCCL_DEBUG", "HF_TOKEN", "PATH"} <= set(
        directives(written("slurm", *DIGITS, "--time", 5, "--env", "HF_TOKEN"))["export"].split(",")
    )
    assert "write a secret down" in refused("slurm", *DIGITS, "--time", "5", "--env", "HF_TOKEN=s3cret")
    assert "not set here" in refused("slurm", *DIGITS, "--time", "5", "--env", "NEVER_SET")
    assert "not the name" in refused("slurm", *DIGITS, "--time", "5", "--env", "A-B=1")


def test_the_signal_comes_ahead_by_what_checkpoints_took(tmp_path):
    run = RunDir(tmp_path / "r")
    assert slurm.ahead(run, 3600) == slurm.AHEAD and slurm.ahead(run, 120) == 30
    for step, span in (
        (1, 10),
        (2, 40),
    ):  # s from the model's file to the manifest; the model is as large as the optimizer
        folder = run.checkpoint(step)
        folder.mkdir(parents=True)
        for name, at in (("model.safetensors", 0), ("optimizer.safetensors", span), ("MANIFEST.json", span)):
            (folder / name).write_bytes(b"x" * 1000)
            os.utime(folder / name, (1e9 + at, 1e9 + at))
    assert slurm.ahead(run, 36000) == 60 + 3 * 80
    assert slurm.ahead(run, 600) == 150


@pytest.mark.parametrize(
    "text, seconds",
    [("90", 5400), ("5:30", 330), ("4:00:00", 14400), ("1-12", 129600), ("2-00:30:00", 174600)],
)
def test_times(text, seconds):
    assert describe.seconds(text) == seconds


def test_the_site_file(written):
    Path("site.yaml").write_text(
        "partition: gpu\naccount: lab\nmodules: [cuda]\n"
        "lines: ['ulimit -l unlimited']\ndirectives: [--mem=64G]\n"
        "container: apptainer exec --nv {image}\npython: python3.11\n"
    )
    script = written(
        "slurm", *DIGITS, "--time", 5, "--site", "site.yaml", "--partition", "debug", "--image", "a b.sif"
    )
    found = directives(script)
    assert (found["partition"], found["account"], found["mem"]) == (
        "debug",
        "lab",
        "64G",
    )  # a flag is over the file
    assert (
        "\nulimit -l unlimited\n" in script
        and "COMMAND=(apptainer exec --nv 'a b.sif' python3.11 " + shlex.quote(PROGRAM) + " train" in script
    )
    Path("site.yaml").write_text("partion: gpu\n")
    assert "did you mean partition?" in refused("slurm", *DIGITS, "--time", "5", "--site", "site.yaml")
    Path("site.yaml").write_text("modules: cuda\n")
    assert "modules is not a list" in refused("slurm", *DIGITS, "--time", "5", "--site", "site.yaml")


def test_a_sheets_data_and_run_are_the_platforms_however_they_were_typed(written):
    where = ["python3", "launch/__main__.py", "train", "mnist", "--config", "1gpu", "--data", "/data/a/mnist"]
    where += ["--run", "/output/r", "--resume", "auto"]
    for root in (["--data_root", "X"], ["--data-root=X"], ["--data_root=X"], ["--data-root", "X"], []):
        for run in (["--run", "r"], ["--run=r"]):
            line = written("sheet", "mnist", "--user", "a", *root, *run).splitlines()
            line = next(words for words in line if words.startswith("cd /code && exec "))
            assert shlex.split(line)[4:] == where
            assert flags.without([*root, *run, "-b", "8"], "--data-root", "--run") == ["-b", "8"]


def test_a_sweep_is_of_trains_flags_and_the_precision(written):
    script = written("slurm", *DIGITS, "--time", 5, "--run", "s", "--sweep", "seed=1,2", "precision=no,bf16")
    assert "3) RUN=runs/s-seed2-precisionbf16 FLAGS=(--seed 2 --mixed-precision bf16)" in script


def test_resuming_needs_to_know_which_run():
    for kind in (["slurm", "--time", "5"], ["sheet", "--user", "a"]):
        assert "--resume auto needs --run" in refused(kind[0], *DIGITS, *kind[1:], "--resume", "auto")


def test_a_submitted_run_that_is_begun_is_checked_with_its_own_config(written):
    run = RunDir("runs/r")
    run.path.mkdir(parents=True)
    run.config.write_text(json.dumps(parse(["mnist", "-b", "9", "--data", "digits"]).config.to_json()))
    typed = ["slurm", "mnist", "--time", 5, "--run", "r", "--config", "cpu2", "--num-processes", 3]
    assert "--num-processes 3" in written(*typed)  # 64, the default, would not divide
    assert "--lr 7.0 differs from this run's" in refused(*map(str, typed), "--lr", "7")


WRONG = [
    (["slurm", *DIGITS], "how long"),
    (["slurm", "mnits", "--time", "5"], "did you mean mnist"),
    (["slurm", *DIGITS, "--time", "soon"], "not a time"),
    (["slurm", *DIGITS, "--time", "5", "--epocs", "3"], "did you mean --epochs"),
    (["slurm", *DIGITS, "--time", "5", "--nodes", "0"], "from 1 up"),
    (["slurm", *DIGITS, "--time", "5", "--gpus-per-node", "8"], "trains on the CPU"),
    (["slurm", *DIGITS, "--time", "5", "--machine-rank", "1"], "itself"),
    (["slurm", *DIGITS, "--time", "5", "-b", "100", "--nodes", "3"], "does not divide"),
    (["slurm", *DIGITS, "--time", "5", "--sweep", "sed=1,2"], "did you mean seed"),
    (["slurm", *DIGITS, "--time", "5", "--sweep", "seed=1,,2"], "FLAG=A,B,C"),
    (["slurm", *DIGITS, "--time", "5", "--sweep", "config=cpu,cpu2"], "one shape"),
    (["slurm", *DIGITS, "--time", "5", "--nodes", "2", "--emulate"], "one machine"),
    (["slrum"], "did you mean slurm"),
    (["kubernetes", *DIGITS], "needs an image"),
    (["kubernetes", *DIGITS, "--image", "i"], "gone with its pod"),
    (["kubernetes", *DIGITS, "--image", "i", "--volume", "runs"], "CLAIM:PATH"),
    (["sheet", *DIGITS, "--user", "a", "--nodes", "2"], "do not know of each other"),
    (["sheet", *DIGITS, "--user", "../b"], "not a name"),
    (["sheet", *DIGITS], "--user"),
]


@pytest.mark.parametrize("words, expected", WRONG, ids=[expected for _, expected in WRONG])
def test_mistakes_are_one_line(words, expected):
    assert expected in refused(*words)


def test_help(capsys):
    assert relaunch(["submit", "--help"]) == 0 and "kubernetes" in capsys.readouterr().out
    for kind, flag in (("slurm", "--sweep"), ("kubernetes", "--pytorchjob"), ("sheet", "--from-task")):
        assert relaunch(["submit", kind, "--help"]) == 0 and flag in capsys.readouterr().out
    for verb in ("status", "logs", "cancel"):
        assert relaunch([verb, "--help"]) == 0 and "JOB" in capsys.readouterr().out
    assert queue.main("status", ["--help"]) == 0
