"""accelerate_configs/: accelerate takes each unchanged, and launch.accelerate_config reads the same."""

import shlex
from pathlib import Path

import pytest
import yaml

from relaunch.data_prep.errors import Failure
from relaunch.launch import accelerate_config

WANTED = {  # name: processes, machines, multi, cpu, precision
    "cpu": (1, 1, False, True, "no"),
    "cpu2": (2, 1, True, True, "no"),
    "cpu_bf16": (1, 1, False, True, "bf16"),
    "1gpu": (1, 1, False, False, "no"),
    "8gpu": (8, 1, True, False, "no"),
    "fp16": (1, 1, False, False, "fp16"),
    "8gpu_fp16": (8, 1, True, False, "fp16"),
    "bf16": (1, 1, False, False, "bf16"),
    "2x8gpu": (16, 2, True, False, "no"),
}
GOOD = {
    "distributed_type": "MULTI_GPU",
    "num_processes": 2,
    "use_cpu": True,
    "mixed_precision": "no",
    "gpu_ids": "-1,-1",
}


def test_the_set_is_complete():
    assert accelerate_config.names() == sorted(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_both_readers_agree(name):
    from accelerate.commands.config.config_args import load_config_from_file

    ours, theirs = (
        accelerate_config.read(name),
        load_config_from_file(str(accelerate_config.FOLDER / f"{name}.yaml")),
    )
    assert (ours.processes, ours.machines, ours.multi, ours.use_cpu, ours.precision) == WANTED[name]
    assert (
        theirs.num_processes,
        theirs.num_machines,
        theirs.distributed_type.value == "MULTI_GPU",
        theirs.use_cpu,
        theirs.mixed_precision,
    ) == WANTED[name]
    assert (theirs.gpu_ids or "all") == ours.gpu_ids


@pytest.mark.parametrize("name", WANTED)
def test_accelerate_accepts_the_whole_command(name):
    """The command in the comment on top, through accelerate's own parsing and validation."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    text = (accelerate_config.FOLDER / f"{name}.yaml").read_text()
    command = next(line[1:].strip() for line in text.splitlines() if "accelerate launch" in line)
    assert f"relaunch train cifar10 --config {name}" in text
    words = shlex.split(command.replace("HOST", "127.0.0.1"))[2:]
    words[words.index("--config_file") + 1] = str(accelerate_config.FOLDER / f"{name}.yaml")
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert (
        args.num_processes,
        args.num_machines,
        bool(args.multi_gpu),
        args.use_cpu,
        args.mixed_precision,
    ) == WANTED[name]
    assert (
        args.module and args.training_script == "trainers.train" and args.training_script_args == ["cifar10"]
    )


def test_keys_are_those_of_the_installed_accelerate():
    from accelerate.commands.config.config_args import ClusterConfig

    assert set(ClusterConfig.__dataclass_fields__) | {"fp16", "dynamo_backend"} == accelerate_config.KEYS


def test_what_accelerate_config_writes_is_taken(tmp_path):
    from accelerate.commands.config.default import write_basic_config

    path = tmp_path / "basic.yaml"
    write_basic_config(save_location=str(path))
    assert accelerate_config.read(str(path)).processes == 1


@pytest.mark.parametrize(
    "change, says",
    [
        ({"mixed_precision": False}, "quote it: mixed_precision: 'no'"),
        ({"distributed_type": False}, "quote it: distributed_type: 'NO'"),
        ({"num_proceses": 2}, "did you mean num_processes?"),
        ({"batch_size": 2}, "flags of `relaunch train`"),
        ({"num_processes": None}, "num_processes: None is not a whole number"),
        ({"num_processes": "two"}, "num_processes: two is not a whole number"),
        ({"num_processes": 0}, "num_processes: 0 is not a whole number"),
        ({"distributed_type": "MULTI_CPU"}, "use --config cpu2"),
        ({"distributed_type": "FSDP"}, "not something Relaunch trains with"),
        ({"distributed_type": "NO"}, "makes accelerate start one process"),
        ({"deepspeed_config": {"zero_stage": 2}}, "deepspeed_config asks for something"),
        ({"dynamo_backend": "INDUCTOR"}, "dynamo_backend: INDUCTOR"),
        ({"compute_environment": "AMAZON_SAGEMAKER"}, "compute_environment: AMAZON_SAGEMAKER"),
        ({"mixed_precision": "fp8"}, "mixed_precision: fp8"),
        ({"mixed_precision": 16}, "mixed_precision: 16 is not a word"),
        ({"use_cpu": "yes please"}, "neither true nor false"),
        ({"gpu_ids": 0}, "quote it: gpu_ids: '0'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, change, says):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(Failure) as caught:
        accelerate_config.read(str(path))
    assert caught.value.code == 64 and says in caught.value.line() and "mine.yaml" in caught.value.line()
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize(
    "text, says",
    [
        ("mixed_precision: no\ndistributed_type: 'NO'\n", "quote it: mixed_precision: 'no'"),
        ("distributed_type: MULTI_GPU\n", "without num_processes"),
        ("num_processes: 2\n", "distributed_type is missing"),
        ("distributed_type: [\n", "not YAML at line 2"),
        ("", "holds no settings"),
        ("\x00", "not YAML"),
        ("num_processes: " + "[" * 9000, "not YAML"),
        ("num_processes: 2026-13-41\n", "cannot be read (month must be in"),
    ],
)
def test_broken_files_are_one_line(tmp_path, text, says):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(Failure) as caught:
        accelerate_config.read(str(path))
    assert caught.value.code == 64 and says in caught.value.line()


def test_a_missing_config_lists_what_there_is(tmp_path):
    with pytest.raises(Failure) as caught:
        accelerate_config.read("8gpuu")
    assert (
        caught.value.code == 64 and "did you mean 8gpu?" in caught.value.fix and "2x8gpu" in caught.value.fix
    )
    with pytest.raises(Failure):
        accelerate_config.read(str(tmp_path))  # a folder


def test_one_process_needs_no_count(tmp_path):
    path = Path(tmp_path / "mine.yaml")
    path.write_text("distributed_type: 'NO'\nmixed_precision: null\nfp16: true\n")
    assert (accelerate_config.read(str(path)).processes, accelerate_config.read(str(path)).precision) == (
        1,
        "fp16",
    )
