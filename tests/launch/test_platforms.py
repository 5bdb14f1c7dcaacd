"""The node facts of each platform, from environments as they were seen or documented."""

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch import accelerate_config, platforms
from relaunch.launch.platforms import Nodes, fill, find

SEEN = [
    (
        "SLURM",
        {
            "SLURM_STEP_NUM_NODES": "2",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_NODEID": "1",
            "SLURM_STEP_NODELIST": "gpu[003-004]",
            "SLURM_JOB_ID": "16711",
            "SLURM_GPUS_ON_NODE": "8",
        },
        Nodes(platform="SLURM", nodes=2, rank=1, address="gpu003", port=24711, gpus=8),
    ),
    (
        "TrainJob",
        {
            "PET_NNODES": "4",
            "PET_NODE_RANK": "3",
            "PET_MASTER_ADDR": "job-node-0-0.job",
            "PET_MASTER_PORT": "29400",
            "PET_NPROC_PER_NODE": "auto",
        },
        Nodes(platform="Kubeflow", nodes=4, rank=3, address="job-node-0-0.job", port=29400),
    ),
    (
        "PyTorchJob",
        {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"},
        Nodes(platform="Kubernetes", nodes=2, rank=1, address="job-master-0", port=23456),
    ),
    (
        "SkyPilot",
        {
            "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_RANK": "0",
            "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5",
            "SKYPILOT_NUM_GPUS_PER_NODE": "4",
        },
        Nodes(platform="SkyPilot", nodes=2, rank=0, address="10.0.0.4", port=29500, gpus=4),
    ),
    (
        "dstack",
        {
            "DSTACK_NODES_NUM": "2",
            "DSTACK_NODE_RANK": "1",
            "DSTACK_MASTER_NODE_IP": "10.1.1.1",
            "DSTACK_GPUS_PER_NODE": "8",
        },
        Nodes(platform="dstack", nodes=2, rank=1, address="10.1.1.1", port=29500, gpus=8),
    ),
]


@pytest.mark.parametrize("env, expected", [(e, n) for _, e, n in SEEN], ids=[name for name, _, _ in SEEN])
def test_facts_of(env, expected):
    assert find(env) == expected


@pytest.mark.parametrize(
    "env",
    [
        {},
        {
            "SLURM_JOB_ID": "7",
            "SLURM_NNODES": "2",
            "SLURM_NODEID": "0",
        },  # the batch script: nobody else was started
        {"WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": "3", "MASTER_ADDR": "n1"},  # a process of torchrun's
        {"WORLD_SIZE": "8"},
    ],
    ids=["laptop", "batch-script", "worker", "left-over"],
)
def test_a_machine_of_its_own(env):
    assert find(env) is None


ALLOCATED = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_CPUS_PER_NODE": "16(x2)"}
STEP = "srun --ntasks-per-node=1 --cpus-per-task=16 relaunch train mnist --run 'a b'"
ON_ONE = {"SLURMD_NODENAME": "n1"}


@pytest.mark.parametrize(
    "env, typed, expected",
    [
        (ALLOCATED, {}, f"this machine, and not the 2 that SLURM gave; to use them: {STEP}"),
        (ALLOCATED | ON_ONE, {}, f"one of the 2 machines that SLURM gave; to use them: {STEP}"),
        (ALLOCATED | {"SLURM_JOB_NUM_NODES": "1"}, {}, "not the one that SLURM gave; to use it: srun"),
        (ALLOCATED | ON_ONE | {"SLURM_JOB_NUM_NODES": "1"}, {}, ""),
        (ALLOCATED | ON_ONE | SEEN[0][1], {}, ""),
        (ALLOCATED, {"emulate": True}, ""),
        (ALLOCATED, {"machine_rank": 0}, ""),
        ({}, {}, ""),
    ],
    ids=["salloc", "on-the-first", "login-node", "one", "step", "emulated", "by-hand", "laptop"],
)
def test_machines_of_slurm_s_that_a_command_leaves_out(env, typed, expected):
    said = platforms.left_out(env, ["train", "mnist", "--run", "a b"], typed)
    assert expected in said and bool(said) == bool(expected)


def test_a_start_says_which_machines_it_leaves_out(monkeypatch, capsys, tmp_path):
    from relaunch.launch import start

    for name, value in ALLOCATED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Failure):  # and why it cannot start here
        start.main("train", ["mnist", "--data", "digits", "--config", "8gpu"])
    assert "relaunch train uses this machine, and not the 2 that SLURM gave" in capsys.readouterr().err


def test_a_shell_inside_a_step_is_a_machine_of_its_own():
    """`srun -N2 -n8 --pty bash`. What it starts inherits its mark, and has no terminal."""
    shell = SEEN[0][1] | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PTY_PORT": "40123"}
    assert find(shell, typed=True) is None
    assert find(SEEN[0][1] | {"SLURM_PTY_PORT": "40123"}, typed=False) == find(SEEN[0][1], typed=True) == TWO


def test_a_command_on_a_terminal_is_typed():
    """Also when its input and output are files, as behind nohup."""
    code = "import sys; from relaunch.launch import PROGRAM, facts; sys.exit(facts.has_terminal())"
    command = [sys.executable, "-c", code]
    alone = subprocess.run(command, start_new_session=True)
    main, other = os.openpty()

    def own_terminal():
        os.setsid()
        fcntl.ioctl(other, termios.TIOCSCTTY, 0)

    on_one = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=own_terminal,
        pass_fds=[other],
    )
    os.close(main), os.close(other)
    assert (alone.returncode, on_one.returncode) == (0, 1)


def test_ports_stay_below_those_that_linux_hands_out():
    step = SEEN[0][1]
    ports = {find(step | {"SLURM_JOB_ID": str(job)}).port for job in range(0, 50000, 7)}
    assert min(ports) >= 20000 and max(ports) < 32768 and len(ports) > 6000


def test_a_variable_that_is_no_number():
    with pytest.raises(Failure, match="PET_NNODES='many'"):
        find({"PET_NNODES": "many", "PET_NODE_RANK": "0"})


def test_a_launcher_per_gpu_would_be_as_many_trainings():
    with pytest.raises(Failure, match="SLURM started 16 launchers on 2 machine") as caught:
        find(
            {
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_STEP_NUM_TASKS": "16",
                "SLURM_NODEID": "0",
                "SLURM_JOB_ID": "1",
            }
        )
    assert "--ntasks-per-node=1" in caught.value.fix


@pytest.mark.parametrize(
    "hosts, first",
    [
        ("n1", "n1"),
        ("n[1-4]", "n1"),
        ("gpu[003-010,12],login", "gpu003"),
        ("a7,b[1-2]", "a7"),
        ("r[1-2]n[3-4]", "r1n3"),
        ("n[5,9]", "n5"),
        ("", None),
    ],
)
def test_the_first_host_of_a_node_list(hosts, first):
    assert platforms.first_host(hosts) == first


TWO = SEEN[0][2]


def test_what_was_not_typed_is_filled_in():
    assert fill(accelerate_config.read("2x8gpu"), {}, TWO) == {
        "machines": 2,
        "machine_rank": 1,
        "address": "gpu003",
        "port": 24711,
    }


def test_what_was_typed_stays():
    typed = {"machine_rank": 0, "address": "here", "port": 1}
    assert fill(accelerate_config.read("2x8gpu"), typed, TWO) == {"machines": 2, **typed}


def test_a_config_for_one_machine_is_each_machines_share():
    assert fill(accelerate_config.read("8gpu"), {}, TWO)["processes"] == 16
    assert fill(accelerate_config.read("8gpu"), {"processes": 8}, TWO)["processes"] == 8


def test_a_single_machine_needs_nothing():
    assert fill(accelerate_config.read("8gpu"), {"precision": "no"}, None) == {"precision": "no"}
    assert fill(accelerate_config.read("8gpu"), {}, Nodes(platform="SLURM", nodes=1, rank=0)) == {}


def test_another_number_of_machines_than_started():
    with pytest.raises(Failure, match="2x8gpu is for 2 machines and SLURM started 3"):
        fill(accelerate_config.read("2x8gpu"), {}, Nodes(platform="SLURM", nodes=3, rank=0))


def test_the_plan_prints_them():
    from relaunch.launch import facts, plan, show

    asked = accelerate_config.read("2x8gpu")
    todo = plan.make(
        "train", [], asked, accelerate_config.override(asked, **fill(asked, {}, TWO)), facts.Facts(nodes=TWO)
    )
    table = show.table(todo)
    assert (
        re.search(r"platform +SLURM: machine 1 of 2, the first is gpu003:24711", table)
        and "--machine_rank 1 --main_process_ip gpu003" in table
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"),
        ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"),
    ],
    ids=["TrainJob", "PyTorchJob"],
)
def test_two_machines_meet_by_their_environment_alone(relaunch_env, names):
    """The same command twice, with what each pod is told: one training of two processes, not two of one."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    words = [
        "train",
        "mnist",
        "--config",
        "cpu",
        "--epochs",
        "1",
        "-b",
        "16",
        "--threads",
        "1",
        "--run",
        "pods",
        "--resume",
        "auto",
    ]
    pods = [
        subprocess.Popen(
            [sys.executable, "-m", "launch", *words],
            env=os.environ | dict(zip(names, ("2", str(rank), "localhost", str(port)))),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [pod.communicate(timeout=120)[0] for pod in pods]
    finally:
        for pod in pods:
            pod.kill()
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert (
        json.loads(Path("runs/pods/plan.json").read_text())["world"] == 2
        and "2 processes on the CPU" in said[0]
    )
