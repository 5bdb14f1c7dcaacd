"""What a start will do, worked out before: a pure function of the config, the flags and the machine.

cpu2 = accelerate_config.read("cpu2")
plan.make("train", ["mnist"], cpu2, cpu2, facts.gather()).command
"""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep.sizes import Sizes
from relaunch.launch.accelerate_config import AccelerateConfig
from relaunch.launch.facts import Facts
from relaunch.trainers import PROGRAM, shards, workloads
from relaunch.trainers.config import RunConfig

# Left over from whatever started us, these make a single process look for companions that nobody started.
GROUP_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
)


ACCELERATE = ("-m", "accelerate.commands.launch")
NO_LOGS = ("--log_dir", os.devnull)  # or each start leaves a folder for them in the temporary one


@dataclass(frozen=True, kw_only=True)
class Data:
    """The packed set to train on; its sizes are None before it is packed."""

    name: str
    where: str
    hash: str = ""
    sizes: Sizes | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """The run's folder, and where in the training it stands."""

    run: str
    step: int | None = None  # its newest checkpoint, which is gone on from
    resumes: bool = False  # whether the run was begun before
    begun: str = ""  # with whose weights or state, unless it goes on from a checkpoint of its own


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What runs where. `command` is what will be started, with `variables` added to the environment."""

    verb: str
    argv: tuple[str, ...]  # the worker's words as typed
    accelerate: AccelerateConfig  # the config with the typed flags over it
    facts: Facts
    config: RunConfig | None  # what will be trained; None: nothing
    data: Data | None
    place: Place | None
    emulated: bool
    timeout: int | None  # seconds after which a process that is missing ends the others
    fits: bool  # its micro-batches to the memory, when it starts (--micro-batch auto)
    local: int  # processes on this machine
    direct: bool  # one process: started without accelerate between it and us
    command: tuple[str, ...]
    accelerate_command: tuple[str, ...]  # what does the same without us, typed in this folder
    variables: dict[str, str]

    @property
    def threads(self) -> int:
        """CPU threads of each process, as the worker will set them."""
        return (self.config and self.config.threads) or max(1, self.facts.cores // self.local)

    @property
    def micro_batch(self) -> int:
        assert self.config, "nothing is trained"
        return shards.micro_batch(self.config, self.accelerate.processes)

    @property
    def epoch_steps(self) -> int | None:
        """Steps of an epoch; None before the data is packed. Failure 64 where it does not fill one."""
        if self.config is None or self.data is None or self.data.sizes is None:
            return None
        return workloads.load(self.config.workload).task.steps_per_epoch(self.config, self.data.sizes)

    @property
    def total_steps(self) -> int | None:
        assert self.config, "nothing is trained"
        if self.config.time and not self.config.max_steps:  # measured when it starts
            return None
        limits = [self.config.max_steps, self.epoch_steps and self.epoch_steps * self.config.epochs]
        return min((n for n in limits if n), default=None)


def make(
    verb: str,
    argv: list[str],
    asked: AccelerateConfig,
    accelerate: AccelerateConfig,
    facts: Facts,
    config: RunConfig | None = None,
    data: Data | None = None,
    place: Place | None = None,
    emulate: bool = False,
    timeout: int | None = None,
    fits: bool = False,
) -> Plan:
    """Plan `trainers.VERB argv`. `asked`: the config as written; `accelerate`: with typed flags over it."""
    if emulate:
        accelerate = emulated(accelerate)
    program = (PROGRAM, verb, *argv)
    typed = ("-m", f"{facts.package}.{verb}", *argv) if facts.package else program
    # accelerate's own patience at the rendezvous: one form takes the first setting, the other the second
    patience = (
        ("--rdzv_conf", f"timeout={timeout},join_timeout={timeout}")
        if accelerate.machines > 1 and timeout
        else ()
    )
    words = ("--config_file", str(accelerate.path), *overrides(asked, accelerate), *patience)
    direct = accelerate.processes == 1 and accelerate.machines == 1
    variables = {"RELAUNCH_CONFIG": accelerate.name, "PYTHONSAFEPATH": "1"}
    if direct:
        # what accelerate's own launcher of one process exports, except threads, which the worker sets itself
        variables |= {
            "ACCELERATE_USE_CPU": str(accelerate.use_cpu),
            "ACCELERATE_MIXED_PRECISION": accelerate.precision,
            "ACCELERATE_DYNAMO_BACKEND": "NO",
        }
        if accelerate.gpu_ids != "all" and not accelerate.use_cpu:
            variables["CUDA_VISIBLE_DEVICES"] = accelerate.gpu_ids
    else:
        # seconds; its 30 may be less than a step and a save
        variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "120"
        # a host that is gone would be a page of C++ frames before our line
        variables["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    if verb == "profile" or any(word.startswith("--profile-steps") for word in argv):
        # its profiler warns of memory that is older than itself, which nobody can mend
        variables["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    return Plan(
        verb=verb,
        argv=tuple(argv),
        accelerate=accelerate,
        facts=facts,
        config=config,
        data=data,
        place=place,
        emulated=emulate,
        timeout=timeout,
        fits=fits,
        local=accelerate.processes // accelerate.machines,
        direct=direct,
        variables=variables,
        command=(sys.executable, *(() if direct else (*ACCELERATE, *words, *NO_LOGS)), *program),
        accelerate_command=("accelerate", "launch", *words, *typed),
    )


def with_run(plan: Plan, run: Path) -> Plan:
    """The same plan, with its run's folder chosen."""
    assert plan.place, "nothing is trained"
    placed = dataclasses.replace(plan, place=dataclasses.replace(plan.place, run=str(run)))
    return with_arguments(placed, "--run", str(run))


def with_smallest_micro_batches(plan: Plan) -> Plan:
    """The same plan with the smallest that --micro-batch auto may choose: what it needs at least."""
    assert plan.config, "nothing is trained"
    sizes = shards.micro_batches(plan.config, plan.accelerate.processes)
    config = dataclasses.replace(plan.config, grad_accum_steps=sizes[-1] // sizes[0])
    return dataclasses.replace(plan, config=config)


def with_arguments(plan: Plan, *words: str) -> Plan:
    """The same plan with more arguments for the worker."""
    return dataclasses.replace(
        plan, command=(*plan.command, *words), accelerate_command=(*plan.accelerate_command, *words)
    )


def emulated(accelerate: AccelerateConfig) -> AccelerateConfig:
    """The same processes, all on this machine's CPU. There float16 has no arithmetic: it becomes float32."""
    return dataclasses.replace(
        accelerate,
        use_cpu=True,
        gpu_ids="all",
        machines=1,
        machine_rank=0,
        address=None,
        port=None,
        precision="no" if accelerate.precision == "fp16" else accelerate.precision,
    )


def overrides(asked: AccelerateConfig, accelerate: AccelerateConfig) -> list[str]:
    """accelerate's flags for what differs from its config file, and for what the file cannot say."""
    several, flags = accelerate.processes > 1, []
    if several and not asked.multi:
        flags += ["--multi_gpu"]
    if (
        several
        and accelerate.use_cpu
        and ("," not in accelerate.gpu_ids or set(accelerate.gpu_ids.split(",")) != {"-1"})
    ):
        flags += ["--gpu_ids=-1,-1"]  # how the processes learn that they are to use the CPU
    elif accelerate.use_cpu and not asked.use_cpu:
        flags += ["--cpu"]
    for name, flag in (
        ("processes", "--num_processes"),
        ("precision", "--mixed_precision"),
        ("machines", "--num_machines"),
        ("machine_rank", "--machine_rank"),
        ("address", "--main_process_ip"),
        ("port", "--main_process_port"),
    ):
        value = getattr(accelerate, name)
        if value is not None and value != getattr(asked, name):
            flags += [flag, str(value)]
    if accelerate.machines > 1 and accelerate.rendezvous != "static":
        flags += ["--rdzv_backend", accelerate.rendezvous]  # accelerate overlooks it in its config
    if several and accelerate.machines == 1 and accelerate.port is None:
        flags += ["--main_process_port", "0"]  # any free one: there may be two runs on a machine
    return flags


def environment(plan: Plan, inherited: dict[str, str]) -> dict[str, str]:
    """The environment of the command. A user's own setting of accelerate's timeout and log level stays."""
    left_over = GROUP_VARIABLES if plan.direct else ()
    kept = {k: v for k, v in inherited.items() if k not in left_over and not k.startswith("ACCELERATE_")}
    theirs = {
        k: v for k, v in inherited.items() if k in ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "TORCH_CPP_LOG_LEVEL")
    }
    return kept | plan.variables | theirs
