"""`relaunch submit --submit | status | logs | cancel` against stand-ins for SLURM's commands."""

from pathlib import Path

import pytest

from relaunch.data_prep.errors import Failure
from rigs.submitting import DIGITS, refused, relaunch


def test_submitting_notes_the_job_and_chains_it(written, scheduler):
    scheduler(
        sbatch='n=$(cat n 2>/dev/null || echo 40); echo $((n + 1)) >n; echo "$((n + 1));cluster"',
        scancel="",
        squeue='echo "41|RUNNING|None|n1"',
    )
    said = written("slurm", *DIGITS, "--time", 5, "--run", "r", "--chain", 3, "--submit")
    assert said.startswith("job 41 -> 42 -> 43; run runs/r; logs in runs/jobs/r\n")
    assert Path("calls").read_text().count("--dependency=afterany:4") == 2 and Path(
        "runs/jobs/r/job.sh"
    ).read_text().startswith("#!/bin/bash")
    assert relaunch(["status", "41"]) == 0 and relaunch(["cancel", "41"]) == 0
    assert "scancel 41 42 43" in Path("calls").read_text()


@pytest.mark.parametrize(
    "said, expected",
    [
        ("Your project is out of hours, contact hpc@example.org", "out of hours"),
        (
            "sbatch: You must say --gpus\nsbatch: error: Batch job submission failed: Unspecified error",
            "say --gpus",
        ),
        (
            "sbatch: error: look-up failed\nsbatch: fatal: Could not establish it",
            "Could not establish it (look-up",
        ),
        ("", "ended with 1, and said nothing"),
    ],
)
def test_whatever_sbatch_says_is_the_reason(scheduler, said, expected):
    scheduler(sbatch=f"cat >&2 <<'E'\n{said}\nE\nexit 1")
    with pytest.raises(Failure) as caught:
        relaunch(["submit", "slurm", *DIGITS, "--time", "5", "--submit"])
    assert expected in caught.value.what and caught.value.code in (64, 69)


def test_an_sbatch_that_says_no_number(scheduler):
    scheduler(sbatch="echo queued")
    with pytest.raises(Failure, match="said no job's number, but 'queued'"):
        relaunch(["submit", "slurm", *DIGITS, "--time", "5", "--submit"])


@pytest.mark.parametrize(
    "said, expected",
    [
        (
            "sbatch: error: invalid partition specified: nope\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            "sinfo -s",
        ),
        (
            "sbatch: error: Batch job submission failed: "
            "Invalid account or account/partition combination specified",
            "--account NAME",
        ),
        (
            "sbatch: error: Batch job submission failed: "
            "Requested time limit is invalid (missing or exceeds some limit)",
            "less --time",
        ),
    ],
)
def test_a_refusal_is_one_line_with_the_schedulers_reason(scheduler, said, expected):
    scheduler(sbatch=f"cat >&2 <<'E'\n{said}\nE\nexit 1")
    line = refused("slurm", *DIGITS, "--time", "5", "--submit")
    assert expected in line and said.splitlines()[-1].split("error: ")[1] in line and "\n" not in line


INHERITED = {
    "SLURM_JOB_ID": "7",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_RESTART_COUNT": "99",
    "_SLURM_SPANK_OPTION_X": "1",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_PARTITION": "other",
    "SQUEUE_STATES": "PENDING",
    "SCANCEL_STATE": "PENDING",
}


def test_what_is_inherited_from_a_job_steers_no_command(written, scheduler, monkeypatch):
    """Typed inside a job: its variables are its own. What a site sets for its users stays."""
    see = "env | grep -E 'SLURM|SBATCH|SQUEUE|SCANCEL' | sort | tr '\\n' ' ' >>seen; echo >>seen\n"
    scheduler(sbatch=see + "echo 41", squeue=see + 'echo "41|RUNNING|None|n1"', scancel=see)
    stays = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "lab", "SBATCH_QOS": "high"}
    for name, value in (INHERITED | stays).items():
        monkeypatch.setenv(name, value)
    written("slurm", *DIGITS, "--time", 5, "--partition", "gpu", "--qos", "low", "--run", "r", "--submit")
    relaunch(["cancel", "41"])
    at_sbatch, *others = Path("seen").read_text().splitlines()
    assert at_sbatch.split() == ["SBATCH_ACCOUNT=lab", "SLURM_CONF=/etc/slurm.conf"]
    assert {line.strip() for line in others} == {"SLURM_CONF=/etc/slurm.conf"} and len(others) == 2


def test_without_a_scheduler(monkeypatch):
    monkeypatch.setenv("PATH", str(Path.cwd()))
    for words in (["submit", "slurm", *DIGITS, "--time", "5", "--submit"], ["status", "7"], ["cancel", "7"]):
        with pytest.raises(Failure) as caught:
            relaunch(words)
        assert caught.value.code == 69 and "login node" in caught.value.fix


def test_a_jobs_number():
    for verb in ("status", "logs", "cancel"):
        with pytest.raises(Failure, match="not a job's number"):
            relaunch([verb, "7; rm"])
