"""The GPUs that a process sees, whether CUDA computes on them, and what was asked of accelerate against that.

    on_the_cpu = check(dict(os.environ), find(dict(os.environ)))

Facts are found in one place and judged in another, so that every machine can be tried. NVML counts GPUs on
which CUDA does not start; there accelerate would train on the CPU, and say nothing.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from relaunch.data_prep.errors import HARDWARE, Failure
from relaunch.trainers.group.process import Lost


@dataclass(frozen=True)
class Devices:
    """`why` CUDA does not start, in its own words; empty: it computes. `archs`: that torch has code for."""

    count: int = 0
    why: str = ""
    names: tuple[str, ...] = ()
    capability: tuple[int, int] = (0, 0)  # of this process's own
    archs: tuple[str, ...] = ()
    bf16: bool = True


def for_cpu(env: dict) -> bool:
    shown = set(env.get("CUDA_VISIBLE_DEVICES", "").replace(" ", "").split(","))
    # a worker that sees only -1 was asked for the CPU
    return env.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1") or shown == {"-1"}


def find(env: dict) -> Devices:
    """What is there for a process of this environment. Of CUDA nothing is asked where the CPU is wanted."""
    if for_cpu(env):
        return Devices()
    count, local = torch.cuda.device_count(), int(env.get("LOCAL_RANK", 0))
    if not count and "LOCAL_RANK" not in env and env.get("ACCELERATE_USE_CPU", "").lower() != "false":
        return Devices()  # nobody asked for one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pages of them, where we say one line
        try:
            torch.cuda.init()
            mine = min(local, count - 1)
            found = Devices(
                count=count,
                names=tuple(torch.cuda.get_device_name(i) for i in range(count)),
                capability=torch.cuda.get_device_capability(mine),
                archs=tuple(torch.cuda.get_arch_list()),
                bf16=torch.cuda.is_bf16_supported(including_emulation=False),
            )
            if has_code(found.capability, found.archs):
                torch.ones(1, device=f"cuda:{mine}").add_(1).item()
            return found
        except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
            return Devices(count=count, why=reason(str(error) or type(error).__name__))


def reason(text: str) -> str:
    """The telling part of what torch says when CUDA does not start."""
    if number := re.search(r"Error \d+: .*", text):
        return number[0].strip()
    return re.split(r"\.\s+(?=[A-Z])", text.strip().splitlines()[0])[0].rstrip(".")


def has_code(capability: tuple[int, int], archs: tuple[str, ...]) -> bool:
    """Whether one of `archs` (sm_80, sm_90a, compute_120) runs on a GPU of this capability.

    Machine code runs on its generation from its own minor version on, with a letter on that alone; what is
    compiled at the start (compute) on everything newer. AMD's names (gfx) are not judged.
    """
    for arch in archs:
        if not (match := re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch)):
            return True
        made_for, letter = (int(match[2]), int(match[3])), match[4]
        if letter and made_for == capability or not letter and made_for <= capability:
            if match[1] == "compute" or made_for[0] == capability[0]:
                return True
    return not archs


REMEDIES = (  # for what CUDA says; else nvidia-smi may know more
    ("too old", "update NVIDIA's driver, or install a torch that was built for this one"),
    ("Error 802", "start NVIDIA's fabric manager (systemctl start nvidia-fabricmanager)"),
    ("not compiled", "install the CUDA build of torch"),
    ("busy or unavailable", "end what else uses this GPU"),
    ("", "see whether nvidia-smi lists it"),
)


def check(env: dict, found: Devices) -> bool:
    """Compare what accelerate was asked for (its environment variables) with `found`; True: on the CPU.

    Failure 69 where accelerate would go on with less than was asked, and say nothing.
    """
    use_cpu = env.get("ACCELERATE_USE_CPU", "").lower()
    local, world = int(env.get("LOCAL_WORLD_SIZE", 1)), int(env.get("WORLD_SIZE", 1))
    precision, cpu, gpus = env.get("ACCELERATE_MIXED_PRECISION", "no"), for_cpu(env), found.count
    said = f" (CUDA: {found.why})" if found.why else ""
    if "LOCAL_RANK" not in env and use_cpu and "MASTER_ADDR" in env:
        raise Failure(
            HARDWARE,
            "several processes were asked for and accelerate started one (it does so for MULTI_CPU)",
            "use accelerate_configs/cpu2.yaml; if one was asked for, unset MASTER_ADDR",
        )
    if not cpu and "LOCAL_RANK" in env and gpus < local:
        raise Failure(
            HARDWARE,
            f"{local} GPU processes were started on a machine with {gpus} GPU{'s' * (gpus != 1)}"
            + (f" ({world} in all)" if world != local else "")
            + said,
            "use " + suited(gpus),
        )
    if not cpu and use_cpu == "false" and gpus == 0:
        raise Failure(
            HARDWARE, f"the config asks for a GPU and this machine has none{said}", "use " + suited(0)
        )
    if found.why and gpus:
        remedy = next(remedy for part, remedy in REMEDIES if part in found.why)
        raise Failure(HARDWARE, f"CUDA does not start: {found.why}", f"{remedy}, or use {suited(0)}")
    if gpus and not has_code(found.capability, found.archs):
        mine = f"{found.names[int(env.get('LOCAL_RANK', 0))]} (sm_{found.capability[0]}{found.capability[1]})"
        what = f"torch {torch.__version__} has no code for {mine}, only for {', '.join(found.archs)}"
        other = "one of CUDA 12.6, which has sm_50 to sm_90" if found.capability < (7, 5) else "a newer one"
        raise Failure(HARDWARE, what, f"install {other}, or use {suited(0)}")
    cpu = cpu or gpus == 0
    if precision == "fp16" and cpu:
        raise Failure(
            HARDWARE,
            "fp16 needs a GPU (on a CPU accelerate would train in fp32 and call it fp16)",
            "use " + suited(0),
        )
    if precision == "bf16" and not cpu and not found.bf16:
        raise Failure(HARDWARE, "this GPU does not compute in bf16", "use accelerate_configs/fp16.yaml")
    if precision not in ("no", "fp16", "bf16"):
        raise Failure(HARDWARE, f"mixed precision {precision!r} is not supported", "use no, fp16 or bf16")
    return cpu


def suited(gpus: int) -> str:
    if gpus == 0:
        return "accelerate_configs/cpu.yaml, or cpu2.yaml for two processes"
    return "accelerate_configs/1gpu.yaml" if gpus == 1 else f"8gpu.yaml with --num_processes {gpus}"


# NCCL's errors that say no more than that another rank is gone: who that is, Peers finds out
OF_A_PEER = "ncclRemoteError|remote process|connection (closed|reset)|closed by (remote|peer)|timed out|abort"


@contextmanager
def connecting():
    """What NCCL itself cannot do becomes Failure 69 of the rank that it befalls, with NCCL's last line."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "NCCL error" not in text or re.search(OF_A_PEER, text, re.I):
            raise
        lines = [line.strip() for line in text.partition("Last error:")[2].splitlines() if line.strip()]
        said = lines[-1] if lines else re.sub(r"NCCL error in: \S+, ", "", text.strip().splitlines()[0])
        fix = "NCCL_DEBUG=INFO says more"
        if "/dev/shm" in said:
            fix = "make /dev/shm larger: docker run --shm-size 1g, or a memory volume at /dev/shm"
        if "Duplicate GPU" in said:
            fix = "give each process a GPU of its own: see gpu_ids and CUDA_VISIBLE_DEVICES"
        raise Lost(HARDWARE, f"NCCL: {said}", fix, speaks=True) from error
