"""What a job's script does where a cluster is in trouble: stand-ins for SLURM's commands let it run."""

from pathlib import Path

import pytest

from rigs.submitting import DIGITS, rehearse

# what a job inherits that is submitted from inside a task of an array, or from a job that came back
PARENTS = {
    "SLURM_ARRAY_JOB_ID": "11",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_RESTART_COUNT": "99",
    "SLURM_STEP_NUM_NODES": "9",
}


@pytest.mark.parametrize("sweep", [[], ["--sweep", "seed=1,2"]])
def test_what_a_script_inherits_does_not_steer_it(written, sweep):
    """Handed in by hand, from inside another job: only what SLURM sets anew for each counts."""
    script = written("slurm", *DIGITS, "--time", 5, "--run", "r", *sweep)
    inherited = "".join(f"export {name}={value}\n" for name, value in PARENTS.items())
    code, said = rehearse(inherited + script, srun="[[ $* != *true ]] || exit 0; exit 75")
    if sweep:  # SLURM would have set these
        assert code == 64 and "no task of the sweep: 7" in said and "REQUEUED" not in said
    else:
        assert code == 75 and "start 1 of runs/r" in said and "REQUEUED 20007" in said


SILENT = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


@pytest.mark.parametrize(
    "answers, requeued, expected",
    [
        ([SILENT] * 9 + ["show", SILENT, "show", "requeue"], True, "saved; requeued"),
        (["show", SILENT, "STATE=CANCELLED show"], False, "not requeued by itself: JobState=CANCELLED"),
        (
            ["show", "echo 'Requested operation is presently disabled for job 7' >&2; exit 1"] * 9,
            False,
            "not requeued (Requested operation is presently disabled for job 7); submit it again",
        ),
        (
            ["echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"] * 9,
            False,
            "not requeued (Invalid job id specified)",
        ),
    ],
    ids=["silent", "cancelled meanwhile", "refused", "forgotten"],
)
def test_a_controller_that_is_silent_is_asked_again(written, answers, requeued, expected):
    script = written("slurm", *DIGITS, "--time", 5, "--run", "r")
    for number, answer in enumerate(["show", *answers]):  # the first is asked at the start
        Path(f"answer{number}").write_text(answer)
    scontrol = """
    n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) >n
    show() { [ $word = show ] || exit 9; echo "JobId=7 JobState=${STATE:-RUNNING} Restarts=0"; }
    requeue() { [ $word = requeue ] || exit 9; echo REQUEUED >>requeued; }
    [ "$1" = requeue ] && word=requeue || word=show
    . ./answer$n"""
    code, said = rehearse(script, srun="exit 75", scontrol=scontrol, sleep="exit 0")
    assert code == 75 and ("REQUEUED" in said) == requeued and expected in said, said


@pytest.mark.parametrize(
    "noted, steps, left",
    [
        (76, "StepId=20007.0 State=RUNNING", True),  # the controller still waits for the node's last word
        (None, "StepId=20007.batch State=RUNNING", True),
        (None, "StepId=20007.0 State=RUNNING", False),  # it trains
        (1, "StepId=20007.0 State=RUNNING", False),  # it crashed, and may be started again by its launcher
        (None, "", False),  # the controller is silent
    ],
)
def test_srun_is_left_when_the_run_or_the_step_has_ended(written, noted, steps, left):
    """As where the link between two nodes is cut: srun is never told that the other one's task has ended."""
    script = written("slurm", *DIGITS, "--time", 5, "--nodes", 2, "--run", "r")
    Path("runs/r").mkdir(parents=True)
    note = f"""printf '{{\n  "code": {noted}\n}}\n' >runs/r/status.json; """ if noted else ""
    scontrol = f"""case $* in *hostnames*) echo n1;; *step*) touch asked; [ -e seen ] || echo StepId=20007.0;
      [ ! -e seen ] || echo {steps}; touch seen;; *) echo JobState=RUNNING;; esac"""
    srun = f"[[ $* != *true ]] || exit 1; {note}read -t {15 if left else 1} <> <(:); touch heard"
    code, said = rehearse(script, srun=srun, scontrol=scontrol)
    assert Path("asked").exists() and Path("heard").exists() != left, said
    assert code == (76 if noted == 76 else 137 if left else noted or 0) and "Killed" not in said
