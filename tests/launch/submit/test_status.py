"""What `relaunch status | logs | cancel` say of a job and its runs, by stand-ins for SLURM's commands."""

import json
from pathlib import Path

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir
from rigs.submitting import DIGITS, relaunch


def test_status_from_whoever_still_knows(scheduler, capsys):
    Path("runs/jobs/r").mkdir(parents=True)
    Path("runs/jobs/r/7.json").write_text(
        json.dumps({"ids": ["7"], "runs": ["runs/r"], "logs": "runs/jobs/r"})
    )
    Path("runs/r").mkdir()
    RunDir("runs/r").write_status("preempted", 75, 120, "stopped by SIGUSR1, and saved")
    gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    record = (
        "echo 'JobId=7 JobName=r JobState=COMPLETED Reason=None Dependency=(null) Requeue=1 Restarts=2 "
        "BatchFlag=1 Reboot=0 ExitCode=0:0'"
    )
    for programs, expected in (
        ({"squeue": "echo '7|PENDING|Resources|'"}, "job 7: PENDING (Resources)"),
        ({"squeue": gone, "scontrol": record}, "job 7: COMPLETED (came back 2 times)"),
        ({"squeue": gone, "scontrol": gone, "sacct": "echo '7|TIMEOUT|0:0|None'"}, "job 7: TIMEOUT\n"),
        (
            {
                "squeue": gone,
                "scontrol": gone,
                "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1",
            },
            "",
        ),
    ):
        scheduler(**programs)
        assert relaunch(["status", "7"]) == 0
        said = capsys.readouterr().out
        assert (
            said.startswith(expected)
            and "run runs/r: preempted, code 75, step 120, stopped by SIGUSR1, and saved" in said
        )
    for name in ("7", "71", "7_0"):
        Path(f"runs/jobs/r/{name}.out").write_text(f"of {name}\n")
    assert (
        relaunch(["logs", "7"]) == 0
        and capsys.readouterr().out == "==> runs/jobs/r/7.out\nof 7\n==> runs/jobs/r/7_0.out\nof 7_0\n"
    )
    scheduler(squeue=gone, scontrol=record)
    assert relaunch(["cancel", "7"]) == 0 and "nothing was left to cancel" in capsys.readouterr().out


def noted(job: str, *runs: str, **more):
    """What submitting wrote down of a job, in the folder of the first of its runs."""
    folder = Path("runs/jobs", runs[0])
    folder.mkdir(parents=True, exist_ok=True)
    note = {"ids": [job], "runs": [f"runs/{run}" for run in runs], "logs": str(folder)} | more
    (folder / f"{job}.json").write_text(json.dumps(note))


def begun(name: str, state: str, code: int | None, step: int, why: str = ""):
    run = RunDir(f"runs/{name}")
    run.path.mkdir(parents=True)
    run.plan.write_text(json.dumps({"total_steps": 5000, "eval_split": "test"}))
    rows = [
        {"step": 1200, "split": "val", "loss": 0.3, "top1": 97.25},
        {
            "step": 1210,
            "split": "train",
            "loss": 0.21,
            "lr": 0.1,
            "samples_per_s": 955.3,
            "peak_memory_mb": 9,
        },
        {"step": 1210, "split": "train", "epoch_loss": 0.5},
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.write_status(state, code, step, why)


def test_status_names_the_run_its_step_its_last_metrics_and_what_to_do(written, scheduler, capsys):
    scheduler(sbatch="echo You have 3 GPU hours left; echo 7", squeue="echo '7|RUNNING|None|n[1-2]'")
    written("slurm", *DIGITS, "--time", 5, "--submit")
    (note,) = Path("runs/jobs").glob("*/7.json")
    name = note.parent.name  # of the date
    begun(name, "running", None, 1200)
    assert relaunch(["status", "7"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "job 7: RUNNING (n[1-2])",
        f"run runs/{name}: running, step 1,210/5,000 ({records.status(RunDir(f'runs/{name}'))['time']})",
        "    test at step 1,200: loss 0.3000, top1 97.25 %",
        "    train at step 1,210: loss 0.2100, 955 samples/s",
        "next: relaunch logs 7 -f",
        f"next: relaunch stop runs/{name} ends it, saved",
    ]
    again = f"relaunch submit slurm {' '.join(DIGITS)} --time 5 --submit --run runs/{name}"
    scheduler(squeue="", scontrol="echo 'JobId=7 JobName=r JobState=NODE_FAIL Reason=Node_down ExitCode=0:0'")
    for state, code, expected in (
        ("running", None, ["relaunch logs 7 says more of it", f"to go on: {again}"]),
        ("preempted", 75, [f"to go on: {again}"]),
        ("failed", 65, ["relaunch logs 7 says more of it", f"to go on: {again}"]),
        ("done", 0, [f"relaunch runs show runs/{name}"]),
    ):
        RunDir(f"runs/{name}").write_status(state, code, 1210, "")
        assert relaunch(["status", "7"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "job 7: NODE_FAIL (Node down)"
        assert said[1].startswith(f"run runs/{name}: {'ended without a word' if code is None else state}, ")
        assert [line.removeprefix("next: ") for line in said if line.startswith("next: ")] == expected
    (note.parent / "7.out").write_text("of 7\n")
    assert relaunch(["logs", "7"]) == 0
    seen = capsys.readouterr()
    assert seen.out == f"==> {note.parent}/7.out\nof 7\n"
    assert f"run runs/{name}: done, code 0, step 1,210/5,000" in seen.err and "relaunch status 7" in seen.err


@pytest.mark.parametrize(
    "reason, expected",
    [
        ("PartitionTimeLimit", "ask for less"),
        ("BeginTime", "two minutes"),
        ("JobHeldUser", "scontrol release 7`"),
        ("launch failed requeued held", "could not be started"),
        ("DependencyNeverSatisfied", "never begins"),
        ("Priority", "begins by itself"),
    ],
)
def test_why_a_job_waits(scheduler, capsys, reason, expected):
    scheduler(squeue=f"echo '7|PENDING|{reason}|'")
    assert relaunch(["status", "7"]) == 0
    said = capsys.readouterr().out
    assert f"job 7: PENDING ({reason})\nnext: " in said and expected in said


RECORD = (
    "JobId={} ArrayJobId=12 ArrayTaskId={} JobName=a JobState={} Reason={} Dependency=(null) Requeue=1 "
    "Restarts=0 ExitCode={}"
)


def test_an_array_is_shown_by_the_numbers_that_people_type(scheduler, capsys):
    noted("12", "a1", "a2", "a3")
    begun("a1", "done", 0, 5000)
    begun("a2", "failed", 70, 1210, "the loss is not finite")
    lines = [
        RECORD.format(14, 0, "COMPLETED", "None", "0:0"),
        RECORD.format(15, 1, "FAILED", "NonZeroExitCode", "70:0"),
    ]
    told = "\n".join(lines)
    scheduler(squeue="echo '12_2|PENDING|Resources|'", scontrol=f"cat <<'E'\n{told}\nE")
    assert relaunch(["status", "12"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "job 12_0: COMPLETED",
        "job 12_1: FAILED (NonZeroExitCode, exit code 70)",
        "job 12_2: PENDING (Resources)",
    ]
    scheduler(squeue="", scontrol=f"cat <<'E'\n{lines[1]}\nE")
    assert relaunch(["status", "12_1"]) == 0
    said = capsys.readouterr().out
    assert "job 12_1: FAILED" in said and "run runs/a2: failed, code 70" in said and "a1" not in said


@pytest.mark.parametrize(
    "state, code, expected",
    [
        ("FAILED", "0:53", "job 7: FAILED (its node could not write the log, or enter the working folder)"),
        ("FAILED", "3:0", "job 7: FAILED (exit code 3)"),
        ("FAILED", "0:9", "job 7: FAILED (ended by signal 9)"),
        ("OUT_OF_MEMORY", "0:125", "job 7: OUT_OF_MEMORY"),
        ("TIMEOUT", "0:0", "job 7: TIMEOUT"),
    ],
)
def test_no_failure_is_shown_with_code_0(scheduler, capsys, state, code, expected):
    record = f"JobId=7 JobState={state} Reason=None Restarts=0 ExitCode={code}"
    scheduler(squeue="", scontrol=f"echo '{record}'")
    assert relaunch(["status", "7"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == expected


AWAY = "Unable to contact slurm controller (connect failure)"


def test_a_controller_that_does_not_answer_is_no_unknown_job(scheduler, capsys):
    silent = f"echo 'slurm_load_jobs error: {AWAY}' >&2; exit 1"
    scheduler(squeue=silent, scontrol=silent, sacct="echo 'accounting storage is disabled' >&2; exit 1")
    for verb in ("status", "cancel"):
        with pytest.raises(Failure, match="Unable to contact slurm controller") as caught:
            relaunch([verb, "13"])
        assert caught.value.code == 69 and "try again" in caught.value.fix
    noted("13", "r")
    begun("r", "running", None, 1200)
    assert relaunch(["status", "13"]) == 0
    said = capsys.readouterr().out
    assert (
        said.startswith(f"job 13: {AWAY}; the scheduler does not answer")
        and "run runs/r: running, step 1,210" in said
        and "to go on" not in said
    )
    assert "scancel" not in Path("calls").read_text()
    scheduler(squeue="echo 'squeue: error: Munge decode failed: Invalid credential' >&2; exit 1")
    with pytest.raises(Failure, match="Invalid credential"):
        relaunch(["cancel", "14"])
