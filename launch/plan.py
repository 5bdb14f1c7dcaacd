"""What a start will do, worked out before it does anything: a pure function of the config, the flags and the machine.

    plan.make("train", ["mnist"], engine.read("cpu2"), facts.gather()).command
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from launch.engine import Engine
from launch.facts import Facts
from trainers.config import RunConfig

# Left over from whatever started us, these would make a single process look for companions that nobody started.
GROUP_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT",
                   "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What runs where. `command` is exactly what will be started, with `variables` added to the environment."""

    verb: str
    engine: Engine  # the config with the typed flags over it
    facts: Facts
    config: RunConfig | None  # what will be trained; None: nothing
    local: int  # processes on this machine
    direct: bool  # one process: started without the engine between it and us
    command: tuple[str, ...]
    engine_command: tuple[str, ...]  # what does the same without us
    variables: dict[str, str]

    @property
    def device(self) -> str:
        return "cpu" if self.engine.use_cpu else "gpu"


def make(verb: str, argv: list[str], asked: Engine, engine: Engine, facts: Facts, config: RunConfig | None = None) -> Plan:
    """Plan `trainers.VERB argv`. `asked` is the config as written, `engine` the same with the typed flags over it."""
    module = ("-m", f"trainers.{verb}", *argv)
    words = ("--config_file", str(engine.path), *overrides(asked, engine), *module)
    direct = engine.processes == 1 and engine.machines == 1
    variables = {"RELAUNCH_CONFIG": engine.name}
    if direct:
        # what accelerate's own launcher of one process exports, except threads, which the worker sets itself
        variables |= {"ACCELERATE_USE_CPU": str(engine.use_cpu), "ACCELERATE_MIXED_PRECISION": engine.precision,
                      "ACCELERATE_DYNAMO_BACKEND": "NO"}
        if engine.gpu_ids != "all" and not engine.use_cpu:
            variables["CUDA_VISIBLE_DEVICES"] = engine.gpu_ids
    else:
        variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "120"  # seconds; its 30 may be less than a step and a save
    return Plan(verb=verb, engine=engine, facts=facts, config=config, local=engine.processes // engine.machines, direct=direct,
                command=(sys.executable, *(module if direct else ("-m", "accelerate.commands.launch", *words))),
                engine_command=("accelerate", "launch", *words), variables=variables)


def overrides(asked: Engine, engine: Engine) -> list[str]:
    """The engine's flags for what differs from its config file, and for what the file cannot say."""
    several, flags = engine.processes > 1, []
    if several and not asked.multi:
        flags += ["--multi_gpu"]
    if several and engine.use_cpu and ("," not in engine.gpu_ids or set(engine.gpu_ids.split(",")) != {"-1"}):
        flags += ["--gpu_ids=-1,-1"]  # how the processes learn that they are to use the CPU
    for name, flag in (("processes", "--num_processes"), ("precision", "--mixed_precision"), ("machine_rank", "--machine_rank"),
                       ("address", "--main_process_ip"), ("port", "--main_process_port")):
        if getattr(engine, name) != getattr(asked, name):
            flags += [flag, str(getattr(engine, name))]
    if several and engine.machines == 1 and engine.port is None:
        flags += ["--main_process_port", "0"]  # any free one: two runs on a machine must not meet
    return flags


def environment(plan: Plan, inherited: dict[str, str]) -> dict[str, str]:
    """The environment that the command runs in. A user's own setting of the engine's timeout stays."""
    left_over = GROUP_VARIABLES if plan.direct else ()
    kept = {k: v for k, v in inherited.items() if k not in left_over and not k.startswith("ACCELERATE_")}
    timeout = {k: v for k, v in inherited.items() if k == "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"}
    return kept | plan.variables | timeout
