"""Names of every kind: shown, aligned, pasted into a shell, and offered where one was mistyped."""

import json
import os
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.names import (
    command,
    nearest,
    offered,
    padded,
    printable,
    quoted,
    shortened,
    table,
    width,
)
from relaunch.data_prep.packed import open_packed
from relaunch.launch import __main__ as cli
from relaunch.launch import runs
from relaunch.launch.submit import queue
from relaunch.launch.submit.surroundings import offered_variable
from relaunch.trainers import begin
from relaunch.trainers.config import parse
from relaunch.trainers.rundir import RunDir
from rigs.sets import SHAPES, pack_images

NASTY = [
    *("my run", "it's", 'a "b"', "$HOME `id` \\", "a;b&c|d", "-x", "~", "*", "", "猫 ネコ", "می\u200cشود"),
    *(
        "red\x1b[31m",
        "two\nlines",
        "\ttab's\\",
        "bell\x07\x00"[:5],
        "\u202egnp",
        "lost\udce9byte",
        "é",
        "e\u0301",
    ),
]


def pasted(line: str, folder: Path) -> list[str]:
    """The words that bash makes of a line."""
    program = f"print_words() {{ printf '%s\\0' \"$@\"; }}; print_words {line}"
    said = subprocess.run(["bash", "-c", program], capture_output=True, check=True, cwd=folder).stdout
    return [os.fsdecode(word) for word in said.split(b"\0")[:-1]]


def drives_nothing(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cs") or c == "\u202e" for c in text.replace("\n", ""))


# shown and pasted ---------------------------------------------------------------------------------


def test_a_command_is_pasted_as_it_stands(tmp_path):
    line = command(NASTY)
    assert drives_nothing(line) and "\n" not in line
    assert pasted(line, tmp_path) == NASTY


def test_a_name_drives_no_terminal():
    for name in NASTY:
        assert drives_nothing(printable(name)) and "\n" not in printable(name)
        assert drives_nothing(Failure(64, f"no {name}", quoted(name)).line())
    assert printable("می\u200cشود 猫\u3000") == "می\u200cشود 猫\u3000", "that is how it is spelled"


@pytest.mark.parametrize(
    "text, columns",
    [
        ("cat", 3),
        ("猫", 2),
        ("é", 1),
        ("e\u0301", 1),
        ("한", 2),
        ("\u1112\u1161\u11ab", 2),
        ("ｱ", 1),
        ("🐈", 2),
    ],
)
def test_width_is_that_of_a_terminal(text, columns):
    assert width(text) == columns
    assert width(padded(text, 9)) == width(padded(text, 9, right=True)) == 9


def test_tables_align_by_width():
    lines = table(
        [["class", "n", "to"], ["猫ネコ", "3", "x"], ["e\u0301te\u0301", "10", "\x1b"], ["犬", "1,000", "y"]]
    )
    assert len({width(line) for line in lines}) == 1, "the last column stands to the right"
    assert shortened("猫" * 20, 9) == "猫猫猫猫…" and width(shortened("a" + "猫" * 20, 9)) <= 9


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A data root with mnist and `my set`, runs with steps 7 to 70, of which one has a nasty name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELAUNCH_DATA", raising=False)
    for name in ("mnist", "my set"):
        pack_images(tmp_path / "data" / name, SHAPES["mnist"])
    for name in ("first", "it's\x1b[31m 猫"):
        run = RunDir(tmp_path / "runs" / name)
        run.path.mkdir(parents=True)
        run.config.write_text(json.dumps(parse(["mnist"]).config.to_json()))
        run.plan.write_text(json.dumps({"command": ["python", "train", "mnist", "--run", f"runs/{name}"]}))
        run.write_status("preempted", 75, 70)
        for step in range(7, 71, 7):
            run.checkpoint(step).mkdir(parents=True)
            (run.checkpoint(step) / "MANIFEST.json").touch()
    (tmp_path / "model_best.pth.tar").touch()
    return tmp_path


def test_runs_show_names_and_commands_that_can_be_pasted(desk, capsys):
    name = "it's\x1b[31m 猫"
    runs.main_runs([])
    listed = capsys.readouterr().out
    assert drives_nothing(listed) and "it's\\x1b[31m 猫" in listed
    head, *rows = listed.splitlines()
    assert {width(row[: row.index("preempted")]) for row in rows} == {width(head[: head.index("state")])}
    runs.main_runs(["show", name])
    told = capsys.readouterr().out
    assert drives_nothing(told)
    of = {line[:12].strip(): line[12:] for line in told.splitlines()}
    again = ["relaunch", "train", "mnist", "--run", f"runs/{name}", "--resume", "auto"]
    assert pasted(of["go on"], desk) == again
    assert pasted(of["command"], desk)[-1] == f"runs/{name}"
    assert pasted(of["curves"], desk) == ["relaunch", "tensorboard", f"runs/{name}"]


def test_a_command_to_go_on_is_pasted_with_every_name(desk, monkeypatch):
    monkeypatch.setenv("RELAUNCH_FLAGS", "")
    said = begin.command_to_go_on(("my net.py", "--data", "red\x1b[31m set"), RunDir("runs/it's"))
    words = [
        "relaunch",
        "train",
        "my net.py",
        "--data",
        "red\x1b[31m set",
        "--run",
        "runs/it's",
        "--resume",
        "auto",
    ]
    assert pasted(said, desk) == words
    with pytest.raises(Failure) as caught:
        open_packed("my  'sets\n", "data")
    fix = caught.value.line().split("run: ")[1]
    assert pasted(fix, desk)[:3] == ["relaunch", "prep", "my  'sets\n"], "in the line that is printed, too"


# offered ------------------------------------------------------------------------------------------


def test_the_nearest_name_is_found_whatever_its_case():
    known = ["digits", "mnist", "tiny_imagenet", "val", "Straße", "cafe\u0301"]
    for typed, meant in {
        **{"digts": "digits", "MNIST": "mnist", "tiny": "tiny_imagenet", "validation": "val"},
        **{"strasse": "Straße", "café": "cafe\u0301", "zebra": None, "x": None, "": None},
    }.items():
        assert nearest(typed, known) == meant


def test_what_there_is_is_listed_up_to_a_few():
    assert offered("x", []) == "" and offered("x", ["one"]) == "there is one"
    assert offered("my stt", ["my set", "b"]) == "did you mean 'my set'? there are 'my set', b"
    assert offered("x", map(str, range(1000, 1100))).endswith("1006, 1007 and 92 more")


OFFERED = {
    "trian mnist": "did you mean train? there are prep, train, evaluate,",
    "runs shwo": "did you mean show?",
    "runs show frist": "did you mean first? runs here:",
    "runs show first@bst": "did you mean first@best? there are first@best, first@70, first@63,",
    "runs show runs/frist": "did you mean runs/first?",
    "runs show first/chekpoints": "runs here:",
    "runs show runs/first/checkpoints/step-77": "there are runs/first/checkpoints/step-000000007,",
    "stop frist": "did you mean first?",
    "prep mnits": "did you mean mnist?",
    "prep x --source .  --as fodler": "did you mean folder? there are mnist,",
    "prep x --szie 3": "did you mean --size?",
    "prep x --source modle_best.pth.tar": "did you mean model_best.pth.tar?",
    "prep mnits --verify": "did you mean mnist? packed there: mnist, 'my set'; or run: relaunch prep mnits",
    "submit pbs mnist": "there are slurm, kubernetes, sheet",
    "submit slrum mnist": "did you mean slurm?",
    "status 12 --folow": "see relaunch status --help",
    "logs 12 --folow": "did you mean --follow?",
    "train mnits": "did you mean mnist? there are cifar10, mnist,",
    "train mnist --data digts": "did you mean digits? packed there: mnist, 'my set'; or run:",
    "train mnist --data 'my stt'": "did you mean 'my set'?",
    "train mnist --data cifr10": "did you mean cifar10?",
    "train mnist --resume frist": "did you mean first?",
    "train mnist --resume model_best.pth": "did you mean model_best.pth.tar?",
    "train mnist --config cpu3": "did you mean cpu? there are 1gpu,",
    "train mnist --optimizer adm": "did you mean adam? there are sgd, adam, adamw, adadelta",
    "train mnist --mixed-precision bf61": "did you mean bf16? there are no, fp16, bf16",
    "train cifar10 --arch net_bm": "did you mean net_bn? there are",
    "train cifar10 --preset tutorail": "did you mean tutorial? it has fast, airbench, tutorial",
    "train mnist --lr-schedle cosine": "did you mean --schedule?",
    "train mnist 'my run'": "unknown argument 'my run'",
}


@pytest.mark.parametrize("typed", OFFERED)
def test_a_near_name_is_offered_and_what_there_is(typed, desk, capsys):
    try:
        cli.run(shlex.split(typed))  # prep prints its failure itself
        said = capsys.readouterr().err
    except Failure as failure:
        said = failure.line()
    assert OFFERED[typed] in said and said.startswith("relaunch: 6")


def test_a_split_a_variable_and_a_job_are_offered(desk, monkeypatch):
    monkeypatch.setenv("MY_TRACKER_URL", "x")
    assert offered_variable("MY_TRAKER_URL").startswith("did you mean MY_TRACKER_URL?")
    with pytest.raises(Failure) as caught:
        open_packed("mnist", "data").check_split("tset")
    assert caught.value.fix == "did you mean test? it has: train, test"
    (desk / "runs/jobs/x").mkdir(parents=True)
    (desk / "runs/jobs/x/4711.json").write_text(
        json.dumps({"ids": ["4711"], "runs": [], "logs": "runs/jobs/x"})
    )
    assert queue.submitted_here("4712") == "did you mean 4711? submitted here: 4711"


@pytest.mark.parametrize("words", ["train {}", "train mnist --data {}", "runs show {}", "stop {}"])
def test_a_name_that_no_disk_takes_is_refused(words, desk):
    with pytest.raises(Failure, match="猫… is too long for a name") as caught:
        cli.run(words.format("猫" * 300).split())
    assert caught.value.code == 64 and len(caught.value.line()) < 120


ASCII = {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["--help"], 0, "usage: relaunch VERB \\u2026"),
        (["runs"], 0, "it's\\x1b[31m \\u732b"),
        (["runs", "show", "nothing \u732b"], 65, "no run or checkpoint 'nothing \\u732b'"),
        (["train", "mnist", "--help"], 0, "usage: relaunch train mnist"),
        (["prep", "--help"], 0, "usage: relaunch prep"),
        (["submit"], 64, "usage: relaunch submit"),
        (["evaluate", "\u732b"], 65, "no run or checkpoint '\\u732b'"),
    ],
)
def test_no_encoding_ends_a_command(words, code, says, desk):
    pytest.importorskip("relaunch.data_prep.talk")
    done = subprocess.run(
        [sys.executable, "-m", "relaunch.launch", *words],
        capture_output=True,
        cwd=desk,
        env=os.environ | ASCII,
    )
    said = (done.stdout + done.stderr).decode("ascii")
    assert (done.returncode, says in said, "Traceback" in said) == (code, True, False), said
