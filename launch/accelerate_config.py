"""What an accelerate YAML asks for, read without accelerate, which imports torch; and its mistakes explained.

    accelerate_config.read("8gpu").processes    # 8

accelerate itself refuses unknown keys with a traceback, does not check values, and quietly starts one process
where several were meant; every mistake here is one line.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import nearest, offered

FOLDER = Path(__file__).resolve().parent.parent / "accelerate_configs"
PRECISIONS = ("no", "fp16", "bf16")
RENDEZVOUS = ("static", "c10d")  # ways in which several machines find each other

# The keys of accelerate's ClusterConfig, which refuses all others. A test compares the installed one's.
KEYS = frozenset(
    """
    compute_environment debug distributed_type downcast_bf16 dynamo_backend dynamo_config enable_cpu_affinity
    fp16 gpu_ids machine_rank main_process_ip main_process_port main_training_function mixed_precision
    num_machines num_processes rdzv_backend same_network use_cpu command_file commands deepspeed_config
    fp8_config fsdp_config megatron_lm_config mpirun_config parallelism_config tpu_env tpu_name
    tpu_use_cluster tpu_use_sudo tpu_vm tpu_zone""".split()
)

# Ways to train that Relaunch does not have; `accelerate config` may leave empty values of these behind.
FOREIGN = (
    "deepspeed_config",
    "dynamo_config",
    "fp8_config",
    "fsdp_config",
    "megatron_lm_config",
    "mpirun_config",
    "parallelism_config",
    "tpu_use_cluster",
)


@dataclass(frozen=True, kw_only=True)
class AccelerateConfig:
    """The part of an accelerate config that decides what runs where."""

    name: str  # as people type it: cpu2, or a file's path
    path: Path
    processes: int = 1  # on all machines together
    machines: int = 1
    machine_rank: int = 0
    address: str | None = None  # of the first machine
    port: int | None = None
    rendezvous: str = "static"
    multi: bool = False  # accelerate starts its own process group
    use_cpu: bool = False
    precision: str = "no"
    gpu_ids: str = "all"


def names() -> list[str]:
    """The configs that come with Relaunch."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def locate(name: str) -> Path:
    """The file that `--config NAME|PATH` means. Failure 64 lists what there is."""
    for path in (FOLDER / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    fix = f"{offered(name, names())}, or the path of a file that `accelerate config` wrote"
    raise Failure(USAGE, f"no config {name!r}", fix)


def read(name: str) -> AccelerateConfig:
    """Read and check one config. A mistake is Failure 64 that names the file, the key and what to write."""
    path = locate(name)

    def wrong(what: str, fix: str) -> Failure:
        return Failure(USAGE, f"{path.name}: {what}", fix)

    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, RecursionError) as error:  # the latter of very deep lists
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        raise wrong(
            f"not YAML{f' at line {mark.line + 1}' if mark else ''} ({problem or 'cannot be read'})",
            "compare it with a file of accelerate_configs/",
        ) from error
    except (OSError, ValueError) as error:  # the latter of no UTF-8, and of days that no month has
        raise wrong(f"cannot be read ({error})", "compare it with a file of accelerate_configs/") from error
    if not isinstance(values, dict):
        raise wrong("holds no settings", "compare it with a file of accelerate_configs/")
    check_keys(values, wrong)
    check_kinds(values, wrong)

    kind = values["distributed_type"]
    if kind == "MULTI_CPU":
        raise wrong(
            "distributed_type: MULTI_CPU makes accelerate start one process, whatever num_processes says",
            "use --config cpu2 with --num-processes N",
        )
    if kind not in ("NO", "MULTI_GPU"):
        raise wrong(
            f"distributed_type: {kind} is not something Relaunch trains with", "write 'NO' or MULTI_GPU"
        )
    multi = kind == "MULTI_GPU"
    if multi and "num_processes" not in values:
        raise wrong(
            "distributed_type: MULTI_GPU without num_processes", "add num_processes: N, all machines together"
        )
    processes, machines = values.get("num_processes", 1), values.get("num_machines", 1)
    if processes > 1 and not multi:
        raise wrong(
            f"num_processes: {processes} with distributed_type: 'NO' makes accelerate start one process",
            "write distributed_type: MULTI_GPU, or use --config cpu2 for processes on the CPU",
        )
    if values.get("mixed_precision") is None:
        values["mixed_precision"] = "fp16" if values.get("fp16") is True else "no"
    if values["mixed_precision"] not in PRECISIONS:
        raise wrong(
            f"mixed_precision: {values['mixed_precision']} is not something Relaunch trains in",
            "write 'no', fp16 or bf16",
        )
    if values.get("rdzv_backend", "static") not in RENDEZVOUS:
        raise wrong(
            f"rdzv_backend: {values['rdzv_backend']} is not a rendezvous that Relaunch uses",
            "write static or c10d",
        )
    return AccelerateConfig(
        name=path.stem if path.parent == FOLDER else name,
        path=path,
        processes=processes,
        machines=machines,
        machine_rank=values.get("machine_rank", 0),
        address=values.get("main_process_ip"),
        port=values.get("main_process_port"),
        rendezvous=values.get("rdzv_backend", "static"),
        multi=multi,
        use_cpu=values.get("use_cpu", False),
        precision=values["mixed_precision"],
        gpu_ids=values.get("gpu_ids") or "all",
    )


def check_keys(values: dict, wrong) -> None:
    for key in values:
        if key not in KEYS:
            near = nearest(str(key), sorted(KEYS))
            raise wrong(
                f"accelerate does not know the key {key!r}",
                f"did you mean {near}?"
                if near
                else "remove it; settings of the training are flags of `relaunch train`",
            )
    if "distributed_type" not in values:
        raise wrong(
            "distributed_type is missing", "add distributed_type: 'NO' for one process, MULTI_GPU for several"
        )
    for key in FOREIGN:
        if values.get(key):
            raise wrong(f"{key} asks for something that Relaunch does not use", "remove it")
    for key, empty in (("dynamo_backend", "NO"), ("compute_environment", "LOCAL_MACHINE")):
        if values.get(key) is not None and values[key] is not False and str(values[key]).upper() != empty:
            raise wrong(
                f"{key}: {values[key]} is something that Relaunch does not use", f"write {key}: {empty!r}"
            )


def check_kinds(values: dict, wrong) -> None:
    """Types and ranges, none of which accelerate checks."""
    for key, word in (("distributed_type", "NO"), ("mixed_precision", "no")):
        if values.get(key) is False:
            raise wrong(f"YAML reads {key}: {word} as false", f"quote it: {key}: '{word}'")
        if values.get(key) is not None and not isinstance(values[key], str):
            raise wrong(f"{key}: {values[key]} is not a word", f"compare it with a file of {FOLDER.name}/")
    if not isinstance(values.get("use_cpu", False), bool):
        raise wrong(
            f"use_cpu: {values['use_cpu']} is neither true nor false", "write use_cpu: true, or false"
        )
    for key, least in (
        ("num_processes", 1),
        ("num_machines", 1),
        ("machine_rank", 0),
        ("main_process_port", 0),
    ):
        value = values.get(key, least)
        if value is None and key == "main_process_port":
            continue
        if type(value) is not int or value < least:
            raise wrong(
                f"{key}: {value} is not a whole number from {least} up",
                f"write {key}: {max(least, 1)}, for example",
            )
    ids = values.get("gpu_ids")
    if ids is not None and not isinstance(ids, str):
        raise wrong(
            f"gpu_ids: {ids} is a number to YAML and accelerate needs text", f"quote it: gpu_ids: '{ids}'"
        )


def override(accelerate: AccelerateConfig, **changes) -> AccelerateConfig:
    """The config with the flags that were typed over it. Values are not None."""
    return dataclasses.replace(accelerate, **{k: v for k, v in changes.items() if v is not None})
