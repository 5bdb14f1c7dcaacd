"""What people see of a real SLURM: odd names, jobs that never start, a controller that is away, salloc.

pytest -m cluster tests/launch/submit/test_slurm_seen.py      # as root; about a minute
"""

import re
import subprocess
import sys

import pytest

from relaunch.launch import PROGRAM
from rigs.cluster import SMALL

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TINY = [*SMALL, "--config", "cpu", "--max-steps", "2"]


def here(cluster, folder, *words, code: int = 0, **variables) -> str:
    """A command typed in a folder: all that it says."""
    done = subprocess.run(
        [sys.executable, PROGRAM, *words],
        **{"cwd": folder, "env": cluster.rig.environ | variables, "capture_output": True, "text": True},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_any_folder_run_and_job_name(cluster):
    folder, name = cluster.home / """100%j # it's "x" packjob""", """a # 5%x 'b' "c" packjob"""
    folder.mkdir()
    said = here(cluster, folder, "submit", "slurm", *TINY, "--time", "5", "--run", name, "--submit")
    job = re.match(r"job (\d+)", said)[1]
    assert cluster.end(job) == "COMPLETED"
    record = cluster.rig.run("scontrol", "-o", "show", "job", job)
    assert f"JobName={name} " in record and f"WorkDir={folder} " in record
    log = folder / "runs/jobs" / name / f"{job}.out"
    assert f"relaunch job {job}: ended with code 0" in log.read_text()
    assert (folder / "runs" / name / "status.json").exists()
    said = here(cluster, folder, "status", job)
    assert f"job {job}: COMPLETED" in said and f"run runs/{name}: done, code 0, step 2/2" in said
    assert "next: relaunch runs show 'runs/" in said


def test_jobs_that_never_come_to_train(cluster):
    def submitted(name: str, site: str) -> str:
        (cluster.home / f"{name}.yaml").write_text(site)
        words = ["submit", "slurm", *TINY, "--time", "5", "--run", name, "--site", f"{name}.yaml", "--submit"]
        return re.match(r"job (\d+)", cluster.relaunch(*words))[1]

    line, python = submitted("line", "lines: ['false', 'exit 3']"), submitted("python", "python: /no/python")
    script = cluster.relaunch("submit", "slurm", *TINY, "--time", "5", "--run", "unwritten")
    (cluster.home / "unwritten.sh").write_text(script)  # and no mkdir for its log
    unwritten = cluster.rig.run("sbatch", "--parsable", cluster.home / "unwritten.sh")
    assert {cluster.end(job) for job in (line, python, unwritten)} == {"FAILED"}
    log = cluster.log(line)
    assert f"relaunch job {line}: code 1 of: false" in log
    assert f"relaunch job {line}: ended with code 3 before the training was started" in log
    log = cluster.log(python)
    assert "/no/python: No such file or directory" in log and "ended with code 127" in log
    assert "exit code 3" in cluster.relaunch("status", line)
    said = cluster.relaunch("status", unwritten)
    assert f"job {unwritten}: FAILED (" in said and "its node could not write the log" in said


def test_a_controller_that_is_away_says_nothing_of_a_job(cluster):
    conf = (cluster.rig.root / "slurm.conf").read_text()
    away = cluster.rig.root / "away.conf"
    away.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=9", conf))
    for verb in ("status", "cancel"):
        said = here(cluster, cluster.home, verb, "424242", code=69, SLURM_CONF=str(away))
        assert "Unable to contact slurm controller" in said and "nobody knows" not in said


def test_salloc_s_shell_is_told_how_to_use_its_nodes(cluster):
    command = ["salloc", "-N2", "--time=2", sys.executable, PROGRAM, "train", *TINY, "--dry-run"]
    done = subprocess.run(command, cwd=cluster.home, env=cluster.rig.environ, capture_output=True, text=True)
    assert "relaunch train uses this machine, and not the 2 that SLURM gave; to use them: " in done.stderr
    step = re.search(r"(srun --ntasks-per-node=1 .*)", done.stderr)[1].split(" relaunch ")[0].split()
    inside = ["salloc", "-N2", "--time=2", *step, sys.executable, PROGRAM, "train", *TINY, "--dry-run"]
    done = subprocess.run(inside, cwd=cluster.home, env=cluster.rig.environ, capture_output=True, text=True)
    assert done.stdout.count("number 0") == done.stdout.count("number 1") == 1, done.stdout + done.stderr
    assert "that SLURM gave" not in done.stderr
