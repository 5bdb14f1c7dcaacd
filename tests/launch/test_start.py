"""From a command line to its plan: pure functions given invented machines; and what an end of a start is."""

import json
import signal
import sys

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch import accelerate_config, command, draft, facts, plan, preflight, supervise
from relaunch.launch.facts import Facts
from relaunch.trainers import PROGRAM

LAPTOP = Facts(cores=2)
ONE = Facts(gpus=1, gpus_installed=1, cores=8)
FOUR = Facts(gpus=4, gpus_installed=4, cores=32)
EIGHT = Facts(gpus=8, gpus_installed=8, cores=64)
HIDDEN = Facts(gpus=4, gpus_installed=8, cores=64)  # CUDA_VISIBLE_DEVICES=0,1,2,3


def planned(machine: Facts, name: str, *argv: str, verb="train") -> plan.Plan:
    typed, rest = command.split(list(argv) or ["mnist"])
    emulate = typed.pop("emulate", False)
    asked = accelerate_config.read(name)
    return plan.make(
        verb,
        rest,
        asked,
        accelerate_config.override(asked, **typed),
        machine,
        draft.beginning(command.job(rest), 0).config,
        emulate=emulate,
    )


def refusal(todo: plan.Plan) -> str:
    with pytest.raises(Failure) as caught:
        preflight.check(todo)
    assert "\n" not in caught.value.line() and caught.value.fix
    return caught.value.line()


@pytest.mark.parametrize(
    "machine, name",
    [
        (LAPTOP, "cpu"),
        (LAPTOP, "cpu2"),
        (EIGHT, "cpu2"),
        (ONE, "1gpu"),
        (ONE, "fp16"),
        (ONE, "bf16"),
        (EIGHT, "8gpu"),
        (EIGHT, "8gpu_fp16"),
        (EIGHT, "1gpu"),
    ],
)
def test_what_fits_is_let_through(machine, name):
    preflight.check(planned(machine, name))


@pytest.mark.parametrize(
    "machine, name, argv, says",
    [
        (LAPTOP, "8gpu", (), "69 8gpu needs 8 GPUs and this machine has none; use --config cpu"),
        (FOUR, "8gpu", (), "69 8gpu needs 8 GPUs and this machine has 4; use --num-processes 4"),
        (ONE, "8gpu_fp16", (), "this machine has 1; use --config 1gpu"),
        (HIDDEN, "8gpu", (), "CUDA_VISIBLE_DEVICES shows 4 of this machine's 8; use --num-processes 4"),
        (LAPTOP, "1gpu", (), "69 1gpu needs a GPU and this machine has none; use --config cpu"),
        (LAPTOP, "fp16", (), "69 fp16 needs a GPU"),
        (LAPTOP, "cpu", ("mnist", "--mixed-precision", "fp16"), "69 fp16 needs a GPU (on a CPU"),
        (
            LAPTOP,
            "cpu2",
            ("mnist", "--batch-size", "63"),
            "64 --batch-size 63 (over all processes) does not divide by 2 processes",
        ),
        (
            LAPTOP,
            "cpu2",
            ("mnist", "-b", "6", "--grad-accum-steps", "2"),
            "2 processes x 2 micro-batches; use --batch-size 4 or 8",
        ),
        (EIGHT, "2x8gpu", (), "64 no machine is called 'first-machine' here; say --main-process-ip HOST"),
        (
            EIGHT,
            "2x8gpu",
            ("mnist", "--num-processes", "15"),
            "64 15 processes cannot be shared evenly by 2 machines",
        ),
        (EIGHT, "2x8gpu", ("mnist", "--machine-rank", "2"), "64 machine_rank 2 does not exist"),
        (
            FOUR,
            "2x8gpu",
            ("mnist", "--main-process-ip", "127.0.0.1"),
            "69 2x8gpu needs 8 GPUs on each machine",
        ),
    ],
)
def test_what_would_silently_go_wrong_is_refused(machine, name, argv, says):
    assert says in refusal(planned(machine, name, *argv))


def test_the_config_may_choose_gpus(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("distributed_type: MULTI_GPU\nnum_processes: 2\ngpu_ids: 2,9\n")
    assert "69" in refusal(planned(EIGHT, str(path))) and "numbered 0 to 7" in refusal(
        planned(EIGHT, str(path))
    )
    path.write_text("distributed_type: 'NO'\ngpu_ids: '3'\n")
    todo = planned(EIGHT, str(path))
    preflight.check(todo)
    assert todo.variables["CUDA_VISIBLE_DEVICES"] == "3"


def test_one_process_is_started_without_accelerate():
    todo = planned(LAPTOP, "cpu", "mnist", "--epochs", "2")
    assert todo.direct and todo.command == (sys.executable, PROGRAM, "train", "mnist", "--epochs", "2")
    env = plan.environment(
        todo, {"HOME": "/h", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "ACCELERATE_USE_FSDP": "1"}
    )
    assert env == {
        "HOME": "/h",
        "PYTHONSAFEPATH": "1",
        "RELAUNCH_CONFIG": "cpu",
        "ACCELERATE_USE_CPU": "True",
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
    }
    assert planned(LAPTOP, "cpu2", "mnist", "--num-processes", "1").direct


def test_the_variables_are_those_of_accelerates_own_launcher():
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    for name in ("cpu", "1gpu", "fp16", "bf16"):
        todo = planned(ONE, name)
        args, _, _ = _validate_launch_command(
            launch_command_parser().parse_args(list(todo.accelerate_command[2:]))
        )
        command, theirs = prepare_simple_launcher_cmd_env(args)
        assert command[1:] == ["-m", "trainers.train", *todo.command[3:]] and todo.command[1] == PROGRAM
        assert {k: theirs[k] for k in todo.variables if k in theirs} == {
            k: v for k, v in todo.variables.items() if k not in ("RELAUNCH_CONFIG", "PYTHONSAFEPATH")
        }


@pytest.mark.parametrize(
    "name, argv, flags",
    [
        ("cpu2", ("mnist",), ["--main_process_port", "0"]),
        ("cpu2", ("mnist", "--num_processes=3"), ["--num_processes", "3", "--main_process_port", "0"]),
        (
            "cpu",
            ("mnist", "--num-processes", "2", "--mixed-precision", "bf16"),
            [
                "--multi_gpu",
                "--gpu_ids=-1,-1",
                "--num_processes",
                "2",
                "--mixed_precision",
                "bf16",
                "--main_process_port",
                "0",
            ],
        ),
        ("8gpu", ("mnist", "--main-process-port", "29501"), ["--main_process_port", "29501"]),
        (
            "2x8gpu",
            ("mnist", "--main-process-ip", "n1", "--machine-rank", "1"),
            ["--machine_rank", "1", "--main_process_ip", "n1"],
        ),
    ],
)
def test_several_go_through_accelerate(name, argv, flags):
    todo = planned(EIGHT, name, *argv)
    file = str(accelerate_config.FOLDER / f"{name}.yaml")
    assert todo.command[1:] == (
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        file,
        *flags,
        "--log_dir",  # or it leaves a folder in the temporary one
        "/dev/null",
        PROGRAM,
        "train",
        "mnist",
    )
    assert todo.accelerate_command[:3] == ("accelerate", "launch", "--config_file")


def test_a_resumed_run_is_planned_with_its_own_batch(tmp_path):
    run = tmp_path / "first"
    run.mkdir()
    first = command.job(["mnist", "-b", "9", "--run", str(run)])
    (run / "config.json").write_text(json.dumps(first.config.to_json()))
    argv = ["mnist", "--run", str(run), "--resume", "auto", "--num-processes", "3"]
    preflight.check(planned(LAPTOP, "cpu2", *argv))
    with pytest.raises(Failure) as caught:
        planned(LAPTOP, "cpu2", *argv, "--lr", "3")
    assert caught.value.code == 64 and "differs from this run's" in caught.value.line()


@pytest.mark.parametrize(
    "installed, setting, count",
    [
        (8, None, 8),
        (8, "", 0),
        (8, "-1", 0),
        (8, "-1,-1", 0),
        (8, "0, 3", 2),
        (8, "0,-1,3", 1),
        (2, "0,5", 1),
        (8, "GPU-5ebe9f43", 1),
        (1, "MIG-5ebe9f43,MIG-7c1e1d2a", 1),
        (8, "MIG-5ebe9f43", 1),
        (0, "MIG-5ebe9f43", 0),
        (0, "0,1", 0),
        (0, None, 0),
    ],
)
def test_visible_gpus(installed, setting, count):
    assert facts.visible(installed, setting) == count


def test_gpus_of_a_container(tmp_path):
    for n in range(4):
        folder = tmp_path / f"proc/driver/nvidia/gpus/0000:0{n}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 16\n")
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert facts.installed_gpus(tmp_path) == ("NVIDIA H100", "NVIDIA H100")


@pytest.mark.parametrize(
    "smi, names",
    [
        (None, ("NVIDIA GPU",) * 2),
        ("echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'", ("NVIDIA L4",)),
        ("echo NVIDIA-SMI has failed; exit 9", ("NVIDIA GPU",) * 2),
    ],
)
def test_gpus_of_a_sandbox_are_its_device_nodes(tmp_path, monkeypatch, smi, names):
    """There the driver's files are missing, and nvidia-smi may be, or fails."""
    for folder in ("dev", "bin"):
        (tmp_path / folder).mkdir()
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / "dev" / name).touch()
    if smi:
        (tmp_path / "bin/nvidia-smi").write_text(f"#!/bin/sh\n{smi}\n")
        (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert facts.installed_gpus(tmp_path) == names


def test_several_mig_devices_are_one_for_a_process():
    sliced = facts.Facts(gpus=1, gpus_installed=1, mig=True)
    line = preflight.devices(planned(sliced, "8gpu", "mnist", "--num-processes", "2")).line()
    assert (
        "of the MIG devices in CUDA_VISIBLE_DEVICES a process sees the first alone; use --config 1gpu" in line
    )
    assert preflight.devices(planned(sliced, "1gpu", "mnist")) is None


@pytest.mark.parametrize(
    "status, outcome, asked, code, says",
    [
        (0, '{"code": 75, "run": "runs/a"}', None, 75, ""),
        (1, '{"code": 0, "run": "runs/a"}', None, 0, ""),  # accelerate fell over after the work was done
        (1, '{"code": 75, "run": "runs/a"}', signal.SIGTERM, 75, ""),
        (-9, '{"code": 75, "run": "runs/a"}', None, 75, ""),
        (
            1,
            '{"code": 75, "run": "runs/a"}',
            None,
            1,
            "exit code 1",
        ),  # one crashed, and accelerate stopped the others
        (-15, "", signal.SIGINT, 75, "before the first step"),
        (-9, "", None, 137, "SIGKILL"),
        (-11, "", None, 139, "SIGSEGV"),
        (-9, "", signal.SIGTERM, 137, "SIGKILL"),
        (1, "", None, 1, "exit code 1"),
        (0, '{"co', None, 1, "exit code 0"),
        (1, "", signal.SIGTERM, 1, "exit code 1"),
    ],
)
def test_ends_are_judged(status, outcome, asked, code, says):
    end = supervise.judge(status, outcome, asked, insisted=False)
    assert end.code == code and says in end.what and bool(end.what) == bool(says)


def test_what_a_worker_has_said_is_known_and_not_said_again():
    outcome = json.dumps({"code": 65, "run": None, "told": {"what": "the data; is bad", "fix": "repair it"}})
    end = supervise.judge(0, outcome, None, insisted=False)
    assert (end.code, end.what, end.told.what, end.told.fix) == (65, "", "the data; is bad", "repair it")
    assert "what" not in supervise.read(outcome)  # which would end those that do not leave by themselves
