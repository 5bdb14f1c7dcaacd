"""Jobs on a real SLURM that is in trouble: a cut link, a silent controller, jobs inside jobs, suspended ones.

pytest -m cluster tests/launch/submit/test_slurm_trouble.py      # as root; about five minutes
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from relaunch.launch import PROGRAM
from rigs.cluster import SMALL

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

LONG = "--config cpu --epochs 9 --max-steps 150 --save-every 1000 --eval-every 99 --keep 9".split()


def test_a_cut_link_costs_minutes_and_not_the_time_limit(cluster):
    """The run ends for want of the other rank, and srun never hears of that node's end."""
    words = ["slurm", *SMALL, *LONG, "--nodes", "2", "--timeout", "20", "--run", "cut", "--time", "30"]
    script = cluster.relaunch("submit", *words, "--env", "RELAUNCH_FAULT=step=*,do=sleep:0.1")
    for waits, shorter in (("sleep 60", "sleep 8"), ("--wait=60", "--wait=8")):
        assert waits in script
        script = script.replace(waits, shorter)
    (cluster.home / "runs/jobs/cut").mkdir(parents=True)
    (cluster.home / "cut.sh").write_text(script)
    job = cluster.rig.run("sbatch", "--parsable", cluster.home / "cut.sh")
    cluster.reach("cut", 20)
    cluster.rig.cut(1, 2)
    began = time.monotonic()
    try:
        assert cluster.end(job) == "FAILED"
    finally:
        cluster.rig.mend(1, 2)
    assert f"relaunch job {job}: ended with code 76" in cluster.log(job), cluster.log(job)
    assert time.monotonic() - began < 90 and cluster.status("cut")["code"] == 76
    idle = ["sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D"]
    cluster.rig.wait(lambda: cluster.rig.run(*idle) == "2", 120)


def test_a_silent_controller_loses_no_requeue(cluster):
    job = cluster.submit(*LONG, "--run", "silent", pace=0.1)
    cluster.reach("silent", 20)
    with cluster.rig.silent():
        os.kill(cluster.status("silent")["pid"], signal.SIGUSR1)  # which else the controller would pass on
        cluster.rig.wait(lambda: cluster.status("silent")["state"] == "preempted", 60)
        time.sleep(40)
    cluster.rig.wait(lambda: "saved; requeued" in cluster.log(job), 120)
    assert cluster.end(job) == "COMPLETED" and cluster.restarts(job) == 1, cluster.log(job)


def test_a_job_that_is_submitted_by_a_task_of_an_array_is_its_own(cluster):
    """Of a task that came back, too: the child is requeued, not its parent, and counts its own starts."""
    words = ["submit", "slurm", *SMALL, *LONG, "--run", "child", "--time", "10", "--submit"]
    slow = ["--env", "RELAUNCH_FAULT=step=*,do=sleep:0.1"]
    command = shlex.join([sys.executable, PROGRAM, *words, *slow])
    wrap = f"export SLURM_RESTART_COUNT=99 SBATCH_EXPORT=NONE SBATCH_TIMELIMIT=1; {command}; sleep 1000"
    parent = cluster.rig.run(
        *("sbatch", "--parsable", "--array=3", "--time=10", f"--chdir={cluster.home}"),
        *(f"--output={cluster.home}/parent.out", f"--wrap={wrap}"),
    )
    said = cluster.home / "parent.out"
    cluster.rig.wait(lambda: said.exists() and re.match(r"job \d+; run", said.read_text()), 60)
    child = re.match(r"job (\d+)", said.read_text()).group(1)
    cluster.reach("child", 20)
    cluster.rig.run("scancel", "--signal=USR1", child)  # as its time limit would
    cluster.rig.wait(lambda: "saved; requeued" in cluster.log(child), 60)
    assert cluster.restarts(f"{parent}_3") == 0 and cluster.state(f"{parent}_3") == "RUNNING"
    assert cluster.end(child) == "COMPLETED" and cluster.restarts(child) == 1, cluster.log(child)
    assert f"relaunch job {child}: start 1 of runs/child" in cluster.log(child)
    cluster.rig.run("scancel", parent)


def test_an_interactive_shell_is_a_machine_of_its_own(cluster):
    """Two nodes and four tasks of which one is a shell with a terminal; the step that it starts is one."""
    code = "import os; from relaunch.launch import PROGRAM, facts, platforms; "
    code += "print('FOUND', platforms.find(os.environ, facts.has_terminal()))"
    found = shlex.join([sys.executable, "-c", code])
    inner = f"{found}; srun --overlap -N2 -n2 --ntasks-per-node=1 --export=ALL {found}"
    outer = shlex.join(["srun", "-N2", "-n4", "--pty", "bash", "-c", inner])
    done = subprocess.run(
        ["script", "-qec", outer, str(cluster.home / "typescript")],
        cwd=cluster.home,
        env=cluster.rig.environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = re.findall(r"FOUND (.*?)\r?\n", done.stdout)
    assert said[0] == "None" and len(said) == 3, done.stdout
    assert all("nodes=2" in line for line in said[1:]) and {"rank=0", "rank=1"} <= set(
        re.findall(r"rank=\d", done.stdout)
    )


def test_suspended_for_longer_than_the_timeout(cluster):
    """Nobody was missing: whoever slept waits anew. Rank 1 is found waiting for rank 0, which is slow."""
    slow = ["--env", "RELAUNCH_FAULT=step=*,rank=0,do=sleep:0.1"]
    job = cluster.submit(*LONG, "--nodes", "2", "--timeout", "20", "--run", "slept", *slow)
    cluster.reach("slept", 20)
    cluster.rig.run("scontrol", "suspend", job)
    time.sleep(15)  # each would wait for 10
    cluster.rig.run("scontrol", "resume", job)
    assert cluster.end(job) == "COMPLETED" and cluster.restarts(job) == 0, cluster.log(job)
