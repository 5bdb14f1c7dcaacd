"""The command line as it is read: whose flag is whose, mistakes, help, and what `relaunch` itself costs."""

import contextlib
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys

import pytest

from relaunch.data_prep import VERSION
from relaunch.data_prep.errors import Failure
from relaunch.launch import __main__ as cli
from relaunch.launch import command
from rigs import REPOSITORY


def test_the_launchers_flags_are_taken_out_wherever_they_stand():
    typed, rest = command.split(
        "cifar10 --config cpu2 --epochs 3 --num_processes=3 --arch net --mixed_precision bf16".split()
    )
    assert typed == {"config": "cpu2", "processes": 3, "precision": "bf16"}
    assert rest == "cifar10 --epochs 3 --arch net".split()
    for argv, says in (
        ("mnist --num-processes 0", "too small"),
        ("mnist --num-processes x", "--num-processes 'x' is not a whole number"),
        ("mnist --mixed-precision fp8", "--mixed-precision 'fp8' is not known"),
        ("mnist --config", "expected one argument"),
    ):
        with pytest.raises(Failure) as caught:
            command.split(argv.split())
        assert caught.value.code == 64 and says in caught.value.line()


@pytest.mark.parametrize(
    "word, near",
    [
        ("--num-proceses", "--num-processes"),
        ("--num_proceses=2", "--num-processes"),
        ("--epocs", "--epochs"),
        ("--max-restart", "--max-restarts"),
        ("--max-step", "--max-steps"),
        ("--xyzzy", None),
    ],
)
def test_a_mistyped_flag_of_either_side_is_named(word, near):
    with pytest.raises(Failure) as caught:
        command.job(["mnist", word, "2"])
    assert caught.value.fix == (f"did you mean {near}?" if near else "see relaunch train mnist --help")


def relaunch(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "relaunch.launch", *argv], capture_output=True, text=True)


def test_version_help_of_a_verb_and_the_common_flags(capsys):
    assert cli.run(["--version"]) == 0 and capsys.readouterr().out == f"relaunch {VERSION}\n"

    def shown(*words) -> str:
        with contextlib.suppress(SystemExit):
            cli.run([*words])
        return capsys.readouterr().out

    for words in (["stop"], ["submit", "slurm"], ["runs"]):
        assert f"usage: relaunch {words[0]}" in shown(*words, "--help")
        assert shown("help", *words) == shown(*words, "--help")
    with pytest.raises(Failure) as caught:
        cli.run(["help", "trian"])
    assert "did you mean train?" in caught.value.fix
    for flag in ("--epochs N", "--batch-size N", "--lr NUMBER", "--run NAME|PATH", "--config NAME|PATH"):
        assert flag in shown("train", "--help")
    for workload in ("mnist", "wikitext2"):
        assert not re.search(r"\b(STR|INT|FLOAT|BOOL)\b", shown("train", workload, "--help"))


def test_help_is_cheap():
    """Under 0.3 s of CPU, user and system together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = relaunch("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 0 and all(verb in done.stdout for verb in cli.VERBS)
    assert spent < 0.3, f"{spent:.2f} s"


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["train", "mnist", "--config", "8gpu"],
        ["train", "mnist", "--help"],
        ["runs"],
        ["runs", "show", "x"],
        ["stop", "x"],
        ["doctor", "--help"],
        ["prep", "--help"],
    ],
)
def test_no_torch(argv):
    code = (
        "import sys, launch.__main__ as m\n"
        f"try: m.run({argv!r})\n"
        "except BaseException as e: pass\n"
        "assert not {'torch', 'accelerate'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "argv, code, says",
    [
        (["trian"], 64, "did you mean train?"),
        (["frobnicate"], 64, "there are prep, train"),
        (["train", "minst"], 64, "did you mean mnist?"),
        (["train", "mnist", "--config", "cpu", "--epocs", "1"], 64, "--epochs"),
        (["train", "mnist", "--config", "nope"], 64, "no config 'nope'"),
    ],
)
def test_mistakes_leave_no_trace(argv, code, says, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "relaunch.launch", *argv], capture_output=True, text=True, cwd=tmp_path
    )
    assert (
        (done.returncode, done.stdout) == (code, "") and says in done.stderr and done.stderr.count("\n") == 1
    )
    assert not os.listdir(tmp_path)


def test_help_of_train_tells_both_halves():
    text = relaunch("train", "mnist", "--help").stdout
    assert "--epochs" in text and "--num-processes" in text and "cpu2" in text


def test_the_line_to_type_without_us_can_be_typed_where_one_stands(tmp_path):
    """In the checkout, where Relaunch is installed, and of a copy that only lies somewhere beside that."""
    copy = tmp_path / "copy"
    for part in ("launch", "trainers", "data_prep", "accelerate_configs"):
        shutil.copytree(REPOSITORY / part, copy / part)
    started = [sys.executable, str(REPOSITORY / "launch/__main__.py")]
    by_name = [sys.executable, "-c", "from relaunch.launch.__main__ import main; main()"]
    for folder, program, typed in (
        (REPOSITORY, started, "-m trainers.train mnist"),
        (tmp_path, by_name, "-m relaunch.trainers.train mnist"),
        (
            tmp_path,
            [sys.executable, str(copy / "launch/__main__.py")],
            f"{copy}/trainers/__main__.py train mnist",
        ),
    ):
        words = [*program, "train", "mnist", "--config", "cpu", "--data", "digits", "--dry-run"]
        words += ["--data-root", str(tmp_path / "none")]  # not packed: nothing is estimated
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
        line = next(line for line in done.stdout.splitlines() if line.startswith("accelerate "))
        assert f"cpu.yaml {typed} --data digits" in line, done.stderr


def test_the_line_to_type_without_us_works(tmp_path):
    by_name = [sys.executable, "-c", "from relaunch.launch.__main__ import main; main()", "train", "mnist"]
    words = ["--config", "cpu", "--data", "digits", "--max-steps", "1", "--run", "a", "--data-root", "d"]
    done = subprocess.run([*by_name, *words, "--dry-run"], capture_output=True, text=True, cwd=tmp_path)
    line = next(line for line in done.stdout.splitlines() if line.startswith("accelerate "))
    typed = shlex.split(line.removeprefix("accelerate "))
    assert typed[:2] == ["accelerate", "launch"]
    done = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", *typed[2:]], cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "runs/a/checkpoints/step-000000001").is_dir()
