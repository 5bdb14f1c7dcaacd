"""What `relaunch submit slurm` writes, and what submit refuses. Stand-ins for SLURM let the script run."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from relaunch.data_prep.errors import Failure
from relaunch.launch import PROGRAM, platforms
from relaunch.launch.submit import describe, slurm
from rigs.submitting import DIGITS, SRUN, digits_as, directives, rehearse

HOSTILE = 'x\'; touch hacked; echo $(id) `id` "$HOME" \\'


def test_a_job_on_two_nodes(written):
    script = written(
        "slurm",
        "cifar10",
        "--config",
        "8gpu",
        "--nodes",
        2,
        "--time",
        "4:00:00",
        "--batch-size",
        256,
        "--data",
        digits_as("cifar10"),
        "--partition",
        "gpu",
        "--account",
        "lab",
        "--qos",
        "high",
        "--constraint",
        "a100|h100",
        "--module",
        "cuda/12.4",
        "--run",
        "first",
    )
    found = directives(script)
    assert {
        k: found[k]
        for k in (
            "nodes",
            "ntasks-per-node",
            "gpus-per-node",
            "time",
            "partition",
            "account",
            "qos",
            "constraint",
            "open-mode",
        )
    } == {
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "8",
        "time": "4:00:00",
        "partition": "gpu",
        "account": "lab",
        "qos": "high",
        "constraint": "a100|h100",
        "open-mode": "append",
    }
    assert found["output"] == str(Path.cwd() / "runs/jobs/first/%j.out") and "requeue" in found
    assert found["signal"] == f"USR1@{slurm.AHEAD}"
    assert "--config 8gpu" in script and "--num-processes 16 --num-machines 2" in script
    assert (
        r"\"\$SLURM_NODEID\"" in script
        and "module load cuda/12.4" in script
        and script.startswith("#!/bin/bash -l\n")
    )
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_each_node_gets_its_own_rank_and_the_same_rendezvous(written):
    script = written("slurm", *DIGITS, "--nodes", 2, "--time", 5)
    code, said = rehearse(
        script.replace(f"({shlex.quote(describe.sys.executable)} {shlex.quote(PROGRAM)}", "(echo LAUNCH"),
        srun=SRUN,
    )
    line = next(line for line in said.splitlines() if line.startswith("LAUNCH"))
    port = platforms.FIRST_PORT + 20007 % platforms.PORTS  # as each step's own environment would tell it
    assert f"--main-process-ip n1 --main-process-port {port} --machine-rank 1" in line and code == 0


ENDS = [  # (launcher's code, what the run noted, the job's state, restarts so far) -> (requeued, code)
    (75, None, "RUNNING", 0, True, 75),
    (1, 75, "RUNNING", 0, True, 75),
    (0, 0, "RUNNING", 0, False, 0),
    (143, 0, "RUNNING", 0, False, 0),
    (75, None, "CANCELLED", 0, False, 75),
    (75, None, "COMPLETING", 0, False, 75),
    (75, None, "RUNNING", 2, False, 75),
    (78, 78, "RUNNING", 0, False, 78),
    (65, None, "RUNNING", 0, False, 65),
    (1, None, "RUNNING", 0, False, 1),
    (169, None, "RUNNING", 0, False, 69),
    (101, 75, "RUNNING", 0, True, 75),
    (137, None, "RUNNING", 0, False, 137),
]


@pytest.mark.parametrize("launcher, noted, state, count, requeued, code", ENDS)
def test_requeued_on_75_alone_and_never_after_a_cancel(
    written, monkeypatch, launcher, noted, state, count, requeued, code
):
    script = written("slurm", *DIGITS, "--time", 5, "--run", "r", "--requeues", 2)
    Path("runs/r").mkdir(parents=True)
    Path("runs/r/status.json").write_text(
        '{\n  "state": "preempted",\n  "code": 75\n}\n'
    )  # of the start before: not this one's
    note = (
        f"""printf '{{\\n  "code": {noted},\\n  "step": 9\\n}}\\n' >runs/r/status.json; """
        if noted is not None
        else ""
    )
    monkeypatch.setenv("STATE", state)
    monkeypatch.setenv("RESTARTS", str(count))
    got, said = rehearse(
        script,
        srun=f"[[ $* != *true ]] || exit 0; {note}exit {launcher}",
    )
    assert got == code and ("REQUEUED 20007" in said) == requeued, said
    assert requeued or "not requeued" in said or f"ended with code {code}" in said
    assert f"start {count + 1} of runs/r" in said


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


def test_a_lost_node_is_requeued(written):
    script = written("slurm", *DIGITS, "--time", 5, "--nodes", 2)
    code, said = rehearse(script, srun="[[ $* != *true ]] || exit 1; exit 137")
    assert code == 137 and "no longer answers; requeued" in said and "REQUEUED" in said


def test_a_launcher_that_failed_outranks_those_that_were_stopped_for_it(written):
    """srun ends with the highest code: 75 is above 69, and would bring back a job that can never begin."""
    script = written("slurm", *DIGITS, "--time", 5, "--nodes", 2)
    both = (
        "[[ $* != *true ]] || exit 0; while [[ $1 == --* ]]; do shift; done; worst=0; "
        'for n in 0 1; do SLURM_NODEID=$n "$@"; c=$?; [ $c -le $worst ] || worst=$c; done; exit $worst'
    )
    for codes, seen in (("75 75", 75), ("75 69", 69), ("0 0", 0), ("75 1", 1), ("0 76", 76), ("75 137", 137)):
        launcher = f"#!/bin/bash\nset -- {codes}\nshift $SLURM_NODEID\nexit $1\n"
        Path("launcher").write_text(launcher)
        Path("launcher").chmod(0o755)
        code, said = rehearse(
            script.replace(f"({shlex.quote(describe.sys.executable)} {shlex.quote(PROGRAM)}", "(./launcher"),
            srun=both,
        )
        assert code == seen and ("REQUEUED" in said) == (codes == "75 75"), said


def test_a_task_of_an_array_requeues_itself_only(written):
    script = written(
        "slurm", *DIGITS, "--time", 5, "--run", "s", "--sweep", "seed=1,2", "--sweep", "lr=0.1,0.01"
    )
    assert directives(script)["array"] == "0-3" and directives(script)["output"].endswith("%A_%a.out")
    code, said = rehearse(
        "export SLURM_ARRAY_JOB_ID=20000 SLURM_ARRAY_TASK_ID=3\n" + script,
        srun='[[ $* != *true ]] || exit 0; echo "$@" | grep -o -- "--seed.*"; exit 75',
    )
    assert "REQUEUED 20000_3" in said and "--seed 2 --lr 0.01 --run runs/s-seed2-lr0.01 --resume auto" in said


def test_nothing_of_the_users_is_read_by_a_shell(written):
    Path("site.yaml").write_text(yaml.safe_dump({"modules": [HOSTILE], "container": "env"}))
    script = written(
        "slurm",
        *DIGITS,
        "--time",
        5,
        "--run",
        f"{os.getcwd()}/a {HOSTILE}".replace('"', "").replace("\\", ""),
        "--site",
        "site.yaml",
        "--env",
        f"NOTE={HOSTILE}",
        "--data-root",
        HOSTILE,
        "--name",
        "n",
    )
    code, said = rehearse(
        script, srun='[[ $* != *true ]] || exit 0; printf "<%s>\\n" "$@"; echo "NOTE=$NOTE"'
    )
    assert (
        code == 0
        and not Path("hacked").exists()
        and f"<{HOSTILE}>" in said
        and f"NOTE={HOSTILE}" in said
        and f"module load {HOSTILE}" in said
    )


def test_other_weights_are_only_begun_with(written):
    with pytest.raises(Failure, match="no run or checkpoint 'runs/first'"):
        written("slurm", *DIGITS, "--time", 5, "--run", "tuned", "--resume", "runs/first@best")
    Path("runs/first").mkdir(parents=True)
    script = written("slurm", *DIGITS, "--time", 5, "--run", "tuned", "--resume", "runs/first@best")
    say = '[[ $* != *true ]] || exit 0; echo "$@"'
    assert "--run runs/tuned --resume runs/first@best" in rehearse(script, srun=say)[1]
    Path("runs/tuned").mkdir(parents=True)
    Path("runs/tuned/config.json").touch()
    assert "--run runs/tuned --resume auto" in rehearse(script, srun=say)[1]


def test_no_tensors_are_needed():
    code = (
        "import sys; from relaunch.launch import submit; "
        f"submit.main({['slurm', *DIGITS, '--time', '5']}); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [describe.sys.executable, "-c", code],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_pages_commands_are_taken(written):
    from relaunch.launch.__main__ import VERBS

    page = (Path(describe.__file__).parents[2] / "docs/clusters.md").read_text()
    Path("site.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL).group(1))
    digits_as("cifar10")
    lines = "\n".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line.split("|")[0]) for line in lines if line]
    assert len(commands) > 8 and all(words[0] == "relaunch" and words[1] in VERBS for words in commands)
    for words in commands:
        if words[1] == "submit":
            written(*[word for word in words[2:] if word != "--submit"])
