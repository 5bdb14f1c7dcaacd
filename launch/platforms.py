"""Which machine of how many this is, as the platform that started us says it in the environment.

    platforms.find(os.environ)    # Nodes(platform="SLURM", nodes=2, rank=1, address="n1", port=24711, gpus=8)

Pure functions of the environment: a plan prints what they find, and a start on several machines fills in from
it what was not typed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import command
from relaunch.launch.accelerate_config import AccelerateConfig


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """This machine among those that the platform started together. `gpus` are each machine's, if known."""

    platform: str
    nodes: int
    rank: int
    address: str | None = None  # of the first machine
    port: int | None = None  # free on the first machine, the same everywhere
    gpus: int | None = None


def find(env: Mapping[str, str], typed: bool = False) -> Nodes | None:
    """The platform's facts; None on a machine of its own. Failure 64 for what no platform writes.

    `typed`: this process has a terminal. In a shell on it (`srun --pty`, salloc) nobody else got the command.
    The mark of such a shell alone says nothing: the steps and jobs that are started from it inherit it.
    """
    if typed and "SLURM_PTY_PORT" in env:
        return None
    for platform, marks, count, rank, address, port, gpus in TABLE:
        a_process_s = "LOCAL_RANK" in env and platform == "Kubernetes"  # there the names are not a machine's
        if all(mark in env for mark in marks.split()) and not a_process_s:
            tasks = number(env, "SLURM_STEP_NUM_TASKS", 0)
            if platform == "SLURM" and tasks > number(env, count, 1):
                raise Failure(
                    USAGE,
                    f"SLURM started {tasks} launchers on {env[count]} machine(s)",
                    "add --ntasks-per-node=1 to srun: a launcher starts its machine's processes",
                )
            return Nodes(
                platform=platform,
                nodes=number(env, count, 1),
                rank=number(env, rank, 0),
                address=address(env),
                port=port(env),
                gpus=int(env[gpus]) if env.get(gpus, "").isdigit() else None,
            )
    return None


def left_out(env: Mapping[str, str], words: Sequence[str], flags: Mapping, typed: bool = False) -> str:
    """What of SLURM's machines a command leaves unused that is in no step of theirs; empty: nothing.

    `salloc` opens its shell on the login node, or on the first of the machines that it was given.
    """
    machines, on_one = number(env, "SLURM_JOB_NUM_NODES", 0), "SLURMD_NODENAME" in env
    alone = {"-h", "--help"} & {*words} or {"emulate", "machine_rank"} & {*flags}
    if alone or find(env, typed) or not machines or machines == 1 and on_one:
        return ""
    cpus = re.match(r"\d+", env.get("SLURM_JOB_CPUS_PER_NODE", ""))  # a step gets one, if none is said
    shared = ["--overlap"] if "SLURM_STEP_ID" in env else []  # the shell's own step has the processors
    step = [
        "srun",
        *shared,
        "--ntasks-per-node=1",
        *([f"--cpus-per-task={cpus[0]}"] if cpus else []),
        "relaunch",
    ]
    given, them = ("the one", "it") if machines == 1 else (f"the {machines}", "them")
    uses = f"one of {given} machines" if on_one else f"this machine, and not {given}"
    return f"relaunch {words[0]} uses {uses} that SLURM gave; to use {them}: {command([*step, *words])}"


def number(env: Mapping[str, str], name: str, otherwise: int) -> int:
    value = env.get(name, "")
    if value and not value.isdigit():
        raise Failure(
            USAGE, f"the environment says {name}={value!r}, which is not a number", "unset it, or correct it"
        )
    return int(value) if value else otherwise


def first_host(hosts: str) -> str | None:
    """The first name of SLURM's `gpu[003-010,12],login1`, as `scontrol show hostnames` would print it."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", hosts)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first.group()) if first else None


# Of a SLURM job: the same on every node, and another than the neighbour's job's. Below 32768, where those
# begin that Linux hands out by itself.
FIRST_PORT, PORTS = 20000, 12000


def _first_line(name: str):
    return lambda env: next(iter(env.get(name, "").split()), None)


# where a platform starts a command per machine and says nothing of a port: below those that Linux hands out
_FREE = 29500

# (platform, variables that give it away, machines, rank, address of the first, port, GPUs of a machine).
# Under SLURM only a step has companions: the batch script itself runs on the first node alone.
TABLE = (
    (
        "SkyPilot",
        "SKYPILOT_NODE_RANK",
        "SKYPILOT_NUM_NODES",
        "SKYPILOT_NODE_RANK",
        _first_line("SKYPILOT_NODE_IPS"),
        lambda env: _FREE,
        "SKYPILOT_NUM_GPUS_PER_NODE",
    ),
    (
        "dstack",
        "DSTACK_NODE_RANK",
        "DSTACK_NODES_NUM",
        "DSTACK_NODE_RANK",
        _first_line("DSTACK_MASTER_NODE_IP"),
        lambda env: _FREE,
        "DSTACK_GPUS_PER_NODE",
    ),
    (
        "SLURM",
        "SLURM_STEP_NUM_NODES",
        "SLURM_STEP_NUM_NODES",
        "SLURM_NODEID",
        lambda env: first_host(env.get("SLURM_STEP_NODELIST", "")),
        lambda env: FIRST_PORT + number(env, "SLURM_JOB_ID", 0) % PORTS,
        "SLURM_GPUS_ON_NODE",
    ),
    (
        "Kubeflow",
        "PET_NODE_RANK",
        "PET_NNODES",
        "PET_NODE_RANK",
        _first_line("PET_MASTER_ADDR"),
        lambda env: number(env, "PET_MASTER_PORT", _FREE),
        "PET_NPROC_PER_NODE",
    ),
    # PyTorchJob v1, PAI-DLC, AIHC: torch's names, counting machines instead of processes
    (
        "Kubernetes",
        "WORLD_SIZE RANK MASTER_ADDR",
        "WORLD_SIZE",
        "RANK",
        _first_line("MASTER_ADDR"),
        lambda env: number(env, "MASTER_PORT", _FREE),
        "",
    ),
)


def fill(asked: AccelerateConfig, typed: dict, found: Nodes | None) -> dict:
    """The typed flags, with those added that the platform knows. Nothing is added on a machine of its own.

    A config for one machine is taken as each one's share. Failure 64 if the counts of machines contradict.
    """
    if found is None or found.nodes == 1:
        return typed
    machines = typed.get("machines", asked.machines if asked.machines > 1 else found.nodes)
    if machines != found.nodes:
        raise Failure(
            USAGE,
            f"{asked.name} is for {machines} machines and {found.platform} started {found.nodes}",
            f"add --num-machines {found.nodes} --num-processes N (all machines together)",
        )
    known = {"machines": machines, "machine_rank": found.rank, "address": found.address, "port": found.port}
    if asked.machines == 1:
        known["processes"] = asked.processes * machines
    return {k: v for k, v in known.items() if v is not None} | typed
