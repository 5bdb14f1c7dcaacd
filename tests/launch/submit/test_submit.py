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


@pytest.mark.parametrize("ended", [1, 27, 137, 143, 155, 156, 200, 255])
def test_no_code_of_a_launcher_becomes_0(written, ended):
    script = written("slurm", *DIGITS, "--time", 5)
    script = re.sub(r"^COMMAND=.*", f"COMMAND=(bash -c 'exit {ended}' x)", script, flags=re.MULTILINE)
    code, said = rehearse(script, srun=SRUN)
    assert code == min(ended, 155) and f"ended with code {code}" in said


def test_the_site_s_lines_are_heard_and_change_nothing_that_follows(written):
    def ends(*lines: str) -> tuple[int, str]:
        Path("site.yaml").write_text(yaml.safe_dump({"lines": list(lines)}))
        script = written("slurm", *DIGITS, "--time", 5, "--run", "r", "--site", "site.yaml")
        return rehearse(script, srun="[[ $* != *true ]] || exit 0; exit 75")

    code, said = ends("exit 3")
    assert code == 3 and "relaunch job 20007: ended with code 3 before the training was started" in said
    code, said = ends("[ -d nowhere ]", "set -euo pipefail")
    assert (
        "relaunch job 20007: code 1 of: [ -d nowhere ]" in said and "saved; requeued" in said and code == 75
    )


def test_a_working_folder_that_a_node_has_not(written):
    script = written("slurm", *DIGITS, "--time", 5).replace(f"cd {Path.cwd()}", "cd nowhere")
    code, said = rehearse(script, srun="echo STARTED")
    assert code == 73 and "nowhere: No such file" in said and "STARTED" not in said


def test_a_container_is_shell_as_it_stands(written, monkeypatch):
    Path("site.yaml").write_text('container: env A="$HOME" run-in -B $HOME:/home {image}\n')
    script = written("slurm", *DIGITS, "--time", 5, "--site", "site.yaml", "--image", "a b.sif")
    code, said = rehearse(
        "HOME='/h o'\n" + script, srun='[[ $* != *true ]] || exit 0; printf "<%s>" "$@"; exit 0'
    )
    assert code == 0 and "<env><A=/h o><run-in><-B></h><o:/home><a b.sif><python3>" in said


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
