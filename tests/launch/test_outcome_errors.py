"""An error at each call on an outcome's way, in the process that ends and in its launcher: the code stays."""

import os
import subprocess
import sys

import pytest
from test_outcome import LAUNCHER, WORKER

from rigs import REPOSITORY

ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "ESTALE")
ARM = 'from rigs import errnos; errnos.arm("{}")\n'
# from here on it is known how the run ends
WORKER = WORKER.replace("    if end == ", f"    {ARM.format('worker')}    if end == ", 1)
LAUNCHER = LAUNCHER.replace("end = ", f"{ARM.format('launcher')}end = ", 1)


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "temporary").mkdir()

    def launch(end, config="cpu", **environment) -> tuple[int, str]:
        """The exit code and what was said; streams are files of the folder."""
        for name in ("struck", "run/status.json", "run/starts"):
            (tmp_path / name).unlink(missing_ok=True)
        with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
            done = subprocess.run(
                [sys.executable, "-c", LAUNCHER],
                cwd=tmp_path,
                stdout=out,
                stderr=err,
                env=os.environ
                | {"END": end, "CONFIG": config, "TMPDIR": str(tmp_path / "temporary")}
                | {"PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{REPOSITORY / 'tests'}"}
                | environment,
                timeout=100,
            )
        return done.returncode, (tmp_path / "err").read_text()

    return launch


def each_call(launch, tmp_path, who, end, how, **environment):
    """The N-th call fails, for each N that there is; returns how many there were."""
    at, wrong = 0, []
    while True:
        trouble = f"{who} {at} {ERRORS[at % len(ERRORS)]} {how}"
        code, said = launch(end, ERRNO=trouble, **environment)
        if not (tmp_path / "struck").exists():
            assert not wrong, "\n".join(wrong)
            return at
        starts = len((tmp_path / "run/starts").read_text()) if (tmp_path / "run/starts").exists() else 0
        if code != int(end) or "Traceback" in said or starts != 1:
            wrong.append(f"{trouble}: code {code}, {starts} starts, {said}")
        at += 1


WAYS = [("worker", end, how) for end in ("75", "0", "65") for how in ("once", "ever")]
WAYS += [("launcher", "75", "ever"), ("launcher", "65", "once")]


@pytest.mark.slow
@pytest.mark.parametrize("who, end, how", WAYS)
def test_at_each_call_of_an_outcome(launch, tmp_path, who, end, how):
    least = 2 if (who, end) == ("worker", "65") else 12  # a failure's status is for others to write
    assert each_call(launch, tmp_path, who, end, how) > least


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "launcher"])
def test_at_each_call_with_a_file_for_an_outcome(launch, tmp_path, who):
    """Where a system has no memory files."""
    assert each_call(launch, tmp_path, who, "75", "once", WITHOUT_MEMORY="1") > 12


@pytest.mark.parametrize("who", ["worker", "launcher"])
@pytest.mark.parametrize("at", [3, 11, 18])
def test_a_few_of_them(launch, who, at):
    code, said = launch("75", ERRNO=f"{who} {at} EIO ever")
    assert code == 75 and "Traceback" not in said, said
