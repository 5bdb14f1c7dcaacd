"""What the tests of `relaunch submit` type, and stand-ins for SLURM that run what it writes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch.__main__ import run as relaunch

DIGITS = ["mnist", "--data", "digits", "--config", "cpu"]


def refused(*words) -> str:
    """The line with which the command refuses, code 64."""
    with pytest.raises(Failure) as caught:
        relaunch(["submit", *map(str, words)])
    assert caught.value.code == 64, caught.value.line()
    return caught.value.line()


# the stand-in for srun runs what follows its own options, as a node would
SRUN = 'while [[ $1 == --* ]]; do shift; done; [ "$1" != true ] || exit ${TRUE:-0}; "$@"'


def directives(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE)
    return {name: as_sbatch_reads(value) for name, value in found}


def as_sbatch_reads(text: str) -> str:
    """An argument of an #SBATCH line: quotes group, a backslash escapes everywhere, # begins a comment."""
    read, quote, chars = "", "", iter(text)
    for char in chars:
        if char == "\\":
            read += next(chars, "")
        elif quote:
            quote, read = ("", read) if char == quote else (quote, read + char)
        elif char in "\"'":
            quote = char
        elif char == "#" or char.isspace():
            break
        else:
            read += char
    return read


def numbered(log: str, job: str = "7", task: str = "") -> str:
    """The file that SLURM makes of a pattern for --output."""
    assert "\\" not in log, "SLURM would put no number in"
    return re.sub("%(.)", lambda found: {"%": "%", "j": job, "A": job, "a": task}[found[1]], log)


def rehearse(script: str, **programs: str) -> tuple[int, str]:
    """Run the script with stand-ins for SLURM's commands; returns its code and everything that was said.

    STATE, RESTARTS and STEPS are what the controller knows.
    """
    folder = Path("programs")
    folder.mkdir(exist_ok=True)
    programs = {
        "scontrol": "case $* in show*hostnames*) echo n1;; requeue*) echo REQUEUED $2 >>requeued;; "
        "*step*) echo ${STEPS:-StepId=20007.0 State=RUNNING};; "
        "*) echo JobId=$4 JobState=${STATE:-RUNNING} Restarts=${RESTARTS:-0};; esac",
        "sleep": "exec /bin/sleep 0.2",  # what waits for a controller or a node
        "module": "echo module $*",
        **programs,
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    environment = {
        "PATH": f"{folder.absolute()}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "20007",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_NODEID": "1",
        "SLURM_CPUS_PER_TASK": "2",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment | {k: v for k, v in os.environ.items() if k in ("STATE", "RESTARTS", "STEPS")},
        capture_output=True,
        text=True,
        timeout=20,
    )
    requeued = Path("requeued")
    asked = requeued.read_text() if requeued.exists() else ""
    requeued.unlink(missing_ok=True)
    return done.returncode, done.stdout + done.stderr + asked


def digits_as(name: str) -> str:
    """A packed set of images that needs no download; returns its name."""
    from rigs.stand_in import small_set

    Path("data").mkdir(exist_ok=True)
    small_set(Path("data"), name)
    return name
