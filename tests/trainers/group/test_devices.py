"""What was asked of accelerate, against the machine: facts are given, so that every machine can be tried."""

import pytest
import torch
import torch.distributed as dist

from relaunch.data_prep.errors import Failure
from relaunch.trainers.group import devices
from relaunch.trainers.group.devices import Devices, check
from relaunch.trainers.group.process import Lost
from relaunch.trainers.group.runtime import Runtime

SIMPLE = {"ACCELERATE_USE_CPU": "True"}  # what accelerate exports for cpu.yaml
ONE_GPU = {"ACCELERATE_USE_CPU": "False"}  # for 1gpu.yaml


def ranks(local: int, world: int | None = None, **more: str) -> dict:
    return {
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(local),
        "WORLD_SIZE": str(world or local),
        "MASTER_ADDR": "127.0.0.1",
        **more,
    }


def refusal(env: dict, gpus: int | Devices, bf16: bool = True) -> str:
    with pytest.raises(Failure) as failure:
        check(env, Devices(count=gpus, bf16=bf16) if isinstance(gpus, int) else gpus)
    assert failure.value.code == 69 and failure.value.fix
    return failure.value.line()


@pytest.mark.parametrize(
    "env, gpus, cpu",
    [
        ({}, 0, True),
        ({}, 1, False),  # python -m trainers.train
        (SIMPLE, 0, True),
        (SIMPLE, 8, True),
        (ONE_GPU, 1, False),
        (ranks(2, CUDA_VISIBLE_DEVICES="-1,-1"), 0, True),  # cpu2.yaml
        (ranks(2, ACCELERATE_USE_CPU="true"), 0, True),  # torchrun
        (ranks(8), 8, False),
        (ranks(8, 16), 8, False),
        (ranks(2), 8, False),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, 1, False),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, 1, False),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, 0, True),
    ],
)
def test_what_is_there_goes_on(env, gpus, cpu):
    assert check(env, Devices(count=gpus)) is cpu


def test_eight_processes_without_a_gpu():
    assert (
        "8 GPU processes were started on a machine with 0 GPUs; use accelerate_configs/cpu.yaml"
        in refusal(ranks(8), 0)
    )


def test_more_processes_than_gpus():
    assert (
        "8 GPU processes were started on a machine with 1 GPU; use accelerate_configs/1gpu.yaml"
        in refusal(ranks(8), 1)
    )
    assert "4 GPUs (16 in all); use 8gpu.yaml with --num_processes 4" in refusal(ranks(8, 16), 4)


def test_one_gpu_and_none_is_there():
    assert "asks for a GPU and this machine has none" in refusal(ONE_GPU, 0)


@pytest.mark.parametrize("env", [{}, SIMPLE, ranks(2, CUDA_VISIBLE_DEVICES="-1,-1")])
def test_fp16_on_a_cpu(env):
    assert "fp16 needs a GPU" in refusal(env | {"ACCELERATE_MIXED_PRECISION": "fp16"}, 0)
    if env:
        assert "fp16 needs a GPU" in refusal(env | {"ACCELERATE_MIXED_PRECISION": "fp16"}, 8)


def test_bf16_on_an_old_gpu():
    assert "does not compute in bf16; use accelerate_configs/fp16.yaml" in refusal(
        {"ACCELERATE_MIXED_PRECISION": "bf16"}, 1, bf16=False
    )


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_other_precisions(precision):
    assert precision in refusal({"ACCELERATE_MIXED_PRECISION": precision}, 1)


def test_several_cpu_processes_that_turned_out_to_be_one():
    """accelerate's MULTI_CPU: it exports an address to meet at, and starts one process."""
    line = refusal({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, 0)
    assert "several processes were asked for and accelerate started one" in line and "cpu2.yaml" in line


# a GPU that is there and does not compute ------------------------------------------------------------

OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
    "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
FABRIC = (
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling "
    "NumCudaDevices() that might have already set an error? Error 802: system not yet initialized"
)
BUSY = (
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nSearch for `cudaErrorDevicesUnavailable'"
)


@pytest.mark.parametrize(
    "text, said, fix",
    [
        (
            OLD,
            "The NVIDIA driver on your system is too old (found version 11040); ",
            "update NVIDIA's driver",
        ),
        (FABRIC, "Error 802: system not yet initialized; ", "systemctl start nvidia-fabricmanager"),
        (BUSY, "CUDA error: CUDA-capable device(s) is/are busy or unavailable; ", "end what else uses"),
        ("CUDA error: unknown error", "CUDA error: unknown error; ", "see whether nvidia-smi lists it"),
    ],
)
@pytest.mark.parametrize("env", [{}, ONE_GPU, ranks(1), {"ACCELERATE_MIXED_PRECISION": "bf16"}])
def test_cuda_that_does_not_start(env, text, said, fix):
    """NVML counts the GPU all the same, and accelerate would train on the CPU."""
    line = refusal(env, Devices(count=1, why=devices.reason(text), bf16=False))
    assert line.startswith(f"relaunch: 69 CUDA does not start: {said}") and fix in line and "cpu.yaml" in line


def test_why_there_is_no_gpu():
    none = Devices(why="Torch not compiled with CUDA enabled")
    assert "this machine has none (CUDA: Torch not compiled with CUDA enabled); use" in refusal(ONE_GPU, none)
    assert "with 0 GPUs (CUDA: Torch not compiled with CUDA enabled); use" in refusal(ranks(2), none)


WHEELS = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")


def test_a_gpu_that_torch_has_no_code_for():
    v100 = Devices(count=1, names=("Tesla V100-SXM2-16GB",), capability=(7, 0), archs=WHEELS)
    line = refusal(ONE_GPU, v100)
    assert f"torch {torch.__version__} has no code for Tesla V100-SXM2-16GB (sm_70), only for sm_75, " in line
    assert "install one of CUDA 12.6" in line


@pytest.mark.parametrize(
    "capability, archs, has",
    [
        ((7, 5), WHEELS, True),
        ((7, 0), WHEELS, False),
        ((8, 9), WHEELS, True),  # RTX 40: sm_86 runs there
        ((8, 6), ("sm_89",), False),
        ((9, 0), ("sm_90a",), True),
        ((10, 3), ("sm_100a",), False),  # that exact one only
        ((10, 3), ("sm_100",), True),
        ((13, 0), WHEELS, True),  # compiled at the start
        ((13, 0), ("sm_120",), False),
        ((9, 4), ("gfx942",), True),  # AMD's are not judged
        ((9, 0), (), True),
    ],
)
def test_what_runs_where(capability, archs, has):
    assert devices.has_code(capability, archs) is has


@pytest.mark.skipif(torch.cuda.is_available(), reason="here CUDA starts")
def test_cuda_is_asked_for_its_own_reason(monkeypatch, relaunch_env):
    """The real one: this machine has no driver, or torch no CUDA. Nothing is asked where nobody wants it."""
    assert devices.find({}) == devices.find({"ACCELERATE_USE_CPU": "true"}) == Devices()
    assert devices.find(ONE_GPU).why and not devices.find(ONE_GPU).count
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # as NVML would
    found = devices.find({})
    assert found.count == 1 and "NVIDIA driver" in found.why or "compiled" in found.why
    with pytest.raises(Failure, match="CUDA does not start: ") as failure:
        Runtime(1)
    assert failure.value.code == 69


@pytest.mark.skipif(torch.cuda.is_available(), reason="here accelerate chooses CUDA")
def test_another_device_than_was_planned_is_refused(monkeypatch, relaunch_env):
    monkeypatch.setattr(devices, "find", lambda env: Devices(count=1))
    with pytest.raises(Failure, match="cuda was planned, and accelerate chose cpu") as failure:
        Runtime(1)
    assert failure.value.code == 69


# NCCL ------------------------------------------------------------------------------------------------

NCCL = """NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, {}, NCCL version 2.27.3
{}
Last error:
{}"""


@pytest.mark.parametrize(
    "error, fix",
    [
        (
            "Error while creating shared memory segment /dev/shm/nccl-O5wFYz (size 9637888), "
            "error: No space left on device (28)",
            "--shm-size",
        ),
        ("Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000", "a GPU of its own"),
        ("socketStartConnect: Connect to 10.0.0.1<4711> failed : No route to host", "NCCL_DEBUG=INFO"),
    ],
)
def test_nccls_own_errors_are_its_last_line(error, fix):
    text = NCCL.format(
        "unhandled system error (run with NCCL_DEBUG=INFO for details)", "ncclSystemError", error
    )
    with pytest.raises(Lost) as lost, devices.connecting():
        raise dist.DistBackendError(text)
    assert lost.value.code == 69 and lost.value.what == f"NCCL: {error}" and fix in lost.value.fix


def test_nccl_without_a_last_line():
    text = NCCL.format("unhandled cuda error", "ncclUnhandledCudaError: Call to CUDA function failed.", "")
    with pytest.raises(Lost, match="^NCCL: unhandled cuda error, NCCL version 2.27.3$"), devices.connecting():
        raise dist.DistBackendError(text)


@pytest.mark.parametrize("error", ["socketProgress: Connection closed by remote peer n1<4711>", ""])
def test_a_lost_peer_stays_one(error):
    text = NCCL.format("remote process exited or there was a network error", "ncclRemoteError", error)
    with pytest.raises(dist.DistBackendError), devices.connecting():
        raise dist.DistBackendError(text)
