"""`relaunch submit slurm` against a real SLURM: saved and requeued, killed, preempted, cancelled, refused.

    pytest -m cluster tests/launch/submit/test_slurm.py      # as root; about eight minutes

Trainings are slowed down to a known pace, so that a scheduler has the time to interrupt them on any machine.
"""

import json
import re
import sys
import time

import pytest

from relaunch.launch import platforms
from rigs.cluster import SMALL
from rigs.own import write

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def limited(cluster):
    """A job whose time limit falls into its training. It waits for it while other tests run."""
    words = "--config cpu --epochs 30 --max-steps 900 --save-every 200 --run limited"
    return cluster.submit(*words.split(), time="2", pace=0.1, on="n1")


def test_refusals_are_the_schedulers_own_words_in_one_line(cluster, limited):
    for words, expected in (
        (["--partition", "nope"], "nope"),
        (["--partition", "paid"], "account"),
        (["--emulate", "--gpus-per-node", "8"], "node configuration"),
    ):
        line = cluster.relaunch(
            "submit", "slurm", *SMALL, "--config", "cpu", "--time", "5", "--submit", *words, code=64
        )
        assert line.startswith("relaunch: 64 ") and line.count("\n") == 1 and expected in line
    for verb in ("status", "cancel"):
        assert "relaunch: 65 nobody knows job 999" in cluster.relaunch(verb, "999", code=65)
    assert "Invalid job id" in cluster.relaunch("logs", "999", code=64)


def test_a_workload_of_ones_own_travels_with_its_job(cluster):
    """What is edited after it was submitted is not what runs, also when the job comes back."""
    file = write(cluster.home / "garden")
    small = [str(file), *"--data digits --threads 1 --eval-every 99 --config cpu --nodes 1".split()]
    job = cluster.submit("--run", "garden", pace=0.1, small=small)
    written = file.read_text()
    file.write_text("raise SystemExit('edited')\n")
    cluster.reach("garden", 100)
    cluster.rig.run("scancel", "--signal=USR1", job)  # as its time limit would
    assert cluster.end(job) == "COMPLETED", cluster.log(job)
    assert cluster.restarts(job) == 1 and cluster.status("garden")["state"] == "done"
    assert (cluster.run_of("garden") / "code/flowers.py").read_text() == written


def test_two_nodes_train_one_run(cluster, limited):
    job = cluster.submit("--config", "cpu", "--nodes", "2", "--max-steps", "20", "--run", "pair")
    assert cluster.end(job) == "COMPLETED", cluster.log(job)
    assert json.loads((cluster.run_of("pair") / "plan.json").read_text())["world"] == 2
    assert f"relaunch job {job}: ended with code 0" in cluster.relaunch("logs", job)
    said = cluster.relaunch("status", job)
    assert f"job {job}: COMPLETED" in said and "run runs/pair: done, code 0, step 20" in said


def test_a_step_knows_its_nodes(cluster):
    code = "import os; from relaunch.launch import PROGRAM, platforms; print(platforms.find(os.environ))"
    said = cluster.rig.run(
        "srun", "-N2", "--gpus-per-node=2", "--export=ALL", sys.executable, "-c", code
    ).splitlines()
    found = [eval(line, {"Nodes": platforms.Nodes}) for line in said]
    assert sorted(n.rank for n in found) == [0, 1] and {
        (n.platform, n.nodes, n.address, n.gpus) for n in found
    } == {("SLURM", 2, "n1", 2)}
    for hosts in ("gpu[003-010,12],login1", "n7,n[1-2]", "rack[1-2]node[3-4]", "single"):
        assert cluster.rig.run("scontrol", "show", "hostnames", hosts).split()[0] == platforms.first_host(
            hosts
        )


def test_an_array_of_three_seeds(cluster):
    job = cluster.submit(
        "--config",
        "1gpu",
        "--emulate",
        "--gpus-per-node",
        "1",
        "--max-steps",
        "10",
        "--run",
        "seeds",
        "--sweep",
        "seed=4,5,6",
    )
    cluster.rig.wait(lambda: all(cluster.status(f"seeds-seed{s}")["state"] == "done" for s in (4, 5, 6)), 120)
    assert {
        json.loads((cluster.run_of(f"seeds-seed{s}") / "config.json").read_text())["seed"] for s in (4, 5, 6)
    } == {4, 5, 6}
    cluster.rig.wait(lambda: cluster.log(job).count("ended with code 0") == 3, 20)
    assert len(re.findall(r"devices=\d\n", cluster.log(job))) == 3  # each got one of the fake GPUs
    assert re.findall(r"job (\w+): COMPLETED", cluster.relaunch("status", job)) == [
        f"{job}_{n}" for n in range(3)
    ]


def test_a_chain_goes_on_where_the_job_before_ended(cluster):
    job = cluster.submit("--config", "cpu", "--max-steps", "10", "--run", "chain", "--chain", "2")
    assert cluster.end(str(int(job) + 1)) == "COMPLETED" and cluster.end(job) == "COMPLETED"
    assert "finished already, at step 10/10" in cluster.log(str(int(job) + 1))


def test_cancelled_is_saved_and_not_requeued(cluster):
    job = cluster.submit(
        "--config", "cpu", "--epochs", "90", "--max-steps", "3000", "--run", "cancelled", pace=0.05
    )
    cluster.reach("cancelled", 20)
    cluster.relaunch("cancel", job)
    assert cluster.end(job) == "CANCELLED"
    cluster.rig.wait(lambda: "not requeued by itself" in cluster.log(job), 60)
    time.sleep(3)
    assert cluster.state(job) == "CANCELLED" and cluster.restarts(job) == 0
    status = cluster.status("cancelled")
    assert (status["state"], status["code"]) == ("preempted", 75) and status["step"] >= 20


LONG = [
    "--config",
    "cpu",
    "--nodes",
    "2",
    "--epochs",
    "9",
    "--max-steps",
    "150",
    "--save-every",
    "1000",
    "--keep",
    "9",
]


@pytest.fixture(scope="module")
def undisturbed(cluster) -> str:
    """The weights of the same training on one machine, which nobody interrupted."""
    cluster.relaunch("train", *SMALL, *LONG[4:], "--config", "cpu2", "--run", "undisturbed")
    return cluster.weights("undisturbed", 150)


@pytest.mark.parametrize(
    "partition, said",
    [("main", "saved; requeued"), ("strict", "saved; not requeued by itself: JobState=COMPLETING")],
)
def test_preempted_comes_back_to_the_same_weights(cluster, undisturbed, partition, said):
    """Given time to leave, the job requeues itself. `strict`: SLURM does; only KillWait is left to save."""
    name = f"preempted-{partition}"
    job = cluster.submit(*LONG, "--run", name, "--partition", partition, pace=0.1)
    cluster.reach(name, 20)
    urgent = cluster.rig.run(
        "sbatch",
        "--parsable",
        "--partition=urgent",
        "--nodelist=n2",
        "--exclusive",
        "--time=1",
        "--output=/dev/null",
        "--wrap=sleep 1",
    )
    cluster.rig.wait(lambda: cluster.state(urgent) == "COMPLETED", 90)
    assert cluster.end(job) == "COMPLETED" and cluster.restarts(job) == 1
    assert said in cluster.log(job) and "resumed from step" in cluster.log(job)
    assert cluster.weights(name, 150) == undisturbed


def test_a_killed_node_costs_what_came_after_the_checkpoint(cluster):
    job = cluster.submit(
        "--config",
        "cpu",
        "--nodes",
        "2",
        "--epochs",
        "9",
        "--max-steps",
        "250",
        "--save-every",
        "40",
        "--run",
        "killed",
        pace=0.05,
    )
    cluster.reach("killed", 60)
    cluster.rig.kill_node(2)
    cluster.rig.wait(
        lambda: cluster.restarts(job) == 1, 120
    )  # it may be more in the end: a kill meant for the dead node can reach it late
    cluster.rig.wait(lambda: "no longer answers" in cluster.log(job), 60)
    cluster.rig.start_node(2)
    assert cluster.end(job) == "COMPLETED", cluster.log(job)
    assert cluster.status("killed")["state"] == "done" and "resumed from step" in cluster.log(job)


def test_a_time_limit_is_met_saved_and_requeued(cluster, limited):
    assert (
        cluster.end(limited) == "COMPLETED" and cluster.restarts(limited) >= 1
    )  # its limit stays 2 minutes while other tests run
    log = cluster.log(limited)
    assert "stopped by SIGUSR1, and saved" in log and "saved; requeued" in log and "resumed from step" in log
    assert (
        log.index("saved; requeued") < log.index("start 2 of runs/limited") < log.index("ended with code 0")
    )
