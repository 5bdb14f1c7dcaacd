"""What is printed: whatever becomes of stdout and stderr, the code is right and there is no traceback."""

import ast
import os
import subprocess
import sys

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.talk import fitted, give, tell
from rigs import REPOSITORY
from rigs.runs import status
from rigs.stand_in import small_set

PARTS = ("launch", "trainers", "models", "data_prep")
ONLY = "data_prep/talk.py"


def prints(source: str) -> list[str]:
    """What a file prints past `talk`: print, and whatever writes to sys.stdout or sys.stderr."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            to_file = called == "os.write" and "os.open(" in source  # a file's own descriptor
            if (
                not to_file
                and called in ("print", "os.write")
                or called.startswith(("sys.stdout.", "sys.stderr."))
            ):
                found.append(called)
        elif isinstance(node, ast.Name) and node.id == "print":
            found.append("print")  # handed on
    return [name for name in found if not name.endswith((".isatty", ".fileno"))]


def test_nothing_is_printed_past_it():
    files = [path for part in PARTS for path in (REPOSITORY / part).rglob("*.py")]
    assert len(files) > 70
    past = {str(p.relative_to(REPOSITORY)): found for p in files if (found := prints(p.read_text()))}
    copier = "trainers/group/copier.py"  # passes on what others print, byte by byte
    assert past.keys() <= {ONLY, copier} and past.get(copier) in (None, ["os.write"]), past
    for source in ("print(1)", "write(print)", "sys.stderr.writelines(x)", "sys.stdout.flush()"):
        assert prints(source)


class Stream:
    """A stream that fails in one of the ways that streams do."""

    encoding = "utf-8"

    def __init__(self, error: Exception):
        self.error = error

    def write(self, text):
        raise self.error

    flush = write


ERRORS = (
    BrokenPipeError(32, "x"),
    OSError(28, "x"),
    OSError(5, "x"),
    OSError(116, "x"),
    ValueError("closed"),
)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_it_never_raises(monkeypatch, error):
    from tqdm import tqdm

    assert tell("a", Stream(error)) is (error if isinstance(error, OSError) else None)
    assert tell("a", Stream(error), write=tqdm.write) is (error if isinstance(error, OSError) else None)
    monkeypatch.setattr("sys.stdout", Stream(error))
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        with pytest.raises(Failure) as failure:
            give("a")
        assert failure.value.code == 73
    else:
        give("a")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_what_an_encoding_lacks_is_written_in_another_way(tmp_path, encoding):
    with open(tmp_path / "log", "w", encoding=encoding) as stream:
        assert tell("relaunch: 65 é … \udcff 語", stream) is None
    assert "relaunch: 65" in (tmp_path / "log").read_text(encoding)


# real processes ---------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path):
    """A folder with a packed set, no runs, and runs of nothing to list."""
    (tmp_path / "data").mkdir()
    small_set(tmp_path / "data", "mnist")
    return tmp_path


def shell(desk, line: str, **environment) -> subprocess.CompletedProcess:
    """`relaunch` stands for this checkout's."""
    line = line.replace("relaunch ", f"{sys.executable} -m launch ")
    pipes = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(
        pipes, cwd=desk, capture_output=True, text=True, env=os.environ | environment, timeout=120
    )


@pytest.mark.parametrize(
    "line, code",
    [
        ("relaunch --help | head -1", 0),
        ("relaunch --help | true", 0),
        ("relaunch runs | true", 0),
        ("relaunch train mnist --help | true", 0),
        ("relaunch submit --help | true", 0),
        ("relaunch prep --help | true", 0),
        ("relaunch runs >/dev/full", 73),
        ("relaunch --help >/dev/full", 73),
        ("relaunch train mnist --help >/dev/full", 73),
        ("relaunch prep --help >/dev/full", 73),
        ("relaunch runs >&-", 0),
        ("relaunch runs >&- 2>&-", 0),
        ("relaunch runs 2>/dev/full", 0),
        ("relaunch runs show nothing 2>/dev/full", 65),
        ("relaunch runs show nothing >&- 2>&-", 65),
        ("relaunch train mnits 2>/dev/full", 64),
        ("relaunch prep nothing >/dev/full 2>/dev/full", 64),
        ("relaunch prep mnist --verify >/dev/full", 0),
    ],
)
def test_the_code_is_the_verbs_own(desk, line, code):
    done = shell(desk, line)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr and done.stderr.count("\n") <= 1


@pytest.mark.parametrize("line, code", [("relaunch --help", 0), ("relaunch runs show é…", 65)])
def test_a_terminal_that_knows_only_ascii(desk, line, code):
    done = shell(desk, line, PYTHONIOENCODING="ascii:strict", PYTHONUTF8="0")
    assert done.returncode == code and "Traceback" not in done.stderr
    assert "\\u2026" in done.stdout + done.stderr


TRAIN = "relaunch train mnist --data-root data --config cpu -b 10 --threads 1 --max-steps 4 --run first"


@pytest.mark.parametrize(
    "out", [">/dev/full 2>/dev/full", pytest.param(">&- 2>&- <&-", marks=pytest.mark.slow)]
)
def test_a_training_needs_nobody_to_listen(desk, out):
    """A stop with its outcome; a restart after a crash, that falls back past a damaged checkpoint."""
    assert shell(desk, f"{TRAIN} --save-every 1 --stop-after 2 {out}").returncode == 75
    os.truncate(desk / "runs/first/checkpoints/step-000000002/model.safetensors", 100)
    fault = {"RELAUNCH_FAULT": "step=3,do=kill,once=died"}
    assert shell(desk, f"{TRAIN} --resume auto {out}", **fault).returncode == 0
    assert status(desk / "runs/first")["state"] == "done" and (desk / "died").exists()


@pytest.mark.slow
def test_a_refusal_needs_nobody_to_listen(desk):
    assert shell(desk, f"{TRAIN} --stop-after 2 | true").returncode == 75
    (desk / "runs/first/checkpoints/step-000000002/MANIFEST.json").unlink()
    assert shell(desk, f"{TRAIN} --resume auto >/dev/full 2>/dev/full").returncode == 65


def test_a_terminal_breaks_a_line_between_its_fields(monkeypatch):
    line = "step 22/110  epoch 1.00  train  loss 1.5079  samples/s 172"
    assert fitted(line) == line  # a log's lines stay whole
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    first, second = fitted(line).split("\n")
    assert (first, second) == ("step 22/110  epoch 1.00  train", "    loss 1.5079  samples/s 172")
    monkeypatch.setenv("COLUMNS", "80")
    assert fitted(f"{line}\nval    loss 1") == f"{line}\nval    loss 1"
