"""What is asked against what is there: every start passes here before anything is written.

preflight.check(plan)    # raises the first Failure; problems(plan) lists all
"""

from __future__ import annotations

from relaunch.data_prep.errors import HARDWARE, STORAGE, USAGE, Failure
from relaunch.launch.facts import has_address, is_free
from relaunch.launch.plan import Plan
from relaunch.trainers import shards, workloads
from relaunch.trainers.tasks.task import instead


def check(plan: Plan) -> None:
    for problem in problems(plan):
        raise problem


def problems(plan: Plan) -> list[Failure]:
    """All that stands against this plan, most basic first. Pure, but for several machines' names and port."""
    return [
        p
        for p in (
            machines(plan),
            port(plan),
            devices(plan),
            precision(plan),
            threads(plan),
            batch(plan),
            fits(plan),
            steps(plan),
            disk(plan),
        )
        if p
    ]


def machines(plan: Plan) -> Failure | None:
    accelerate = plan.accelerate
    if accelerate.processes % accelerate.machines:
        return Failure(
            USAGE,
            f"{accelerate.processes} processes cannot be shared evenly by {accelerate.machines} machines",
            "num_processes counts all machines together: make it a multiple",
        )
    if accelerate.machine_rank >= accelerate.machines:
        return Failure(
            USAGE,
            f"machine_rank {accelerate.machine_rank} does not exist among {accelerate.machines} machines",
            f"ranks go from 0 to {accelerate.machines - 1}",
        )
    if accelerate.machines == 1:
        return None
    fix = "say --main-process-ip HOST on every machine: the name or address of the first"
    if not accelerate.address:
        return Failure(
            USAGE,
            f"{accelerate.name} is for {accelerate.machines} machines and does not say where the first is",
            fix,
        )
    if not has_address(accelerate.address):
        return Failure(USAGE, f"no machine is called {accelerate.address!r} here", fix)
    return None


def port(plan: Plan) -> Failure | None:
    """On the first of several machines, where the rendezvous is. One machine alone takes any free port."""
    accelerate = plan.accelerate
    if accelerate.machines > 1 and accelerate.machine_rank == 0 and not is_free(accelerate.port or 29500):
        return Failure(
            HARDWARE,
            f"port {accelerate.port or 29500} is taken on this machine, the first",
            "choose another: --main-process-port N on every machine",
        )
    return None


def devices(plan: Plan) -> Failure | None:
    accelerate, facts = plan.accelerate, plan.facts
    if accelerate.use_cpu:
        return None
    seen, chosen = facts.gpus, accelerate.gpu_ids.replace(" ", "").split(",")
    if accelerate.gpu_ids != "all":  # accelerate sets CUDA_VISIBLE_DEVICES to these, whatever it was
        absent = [i for i in chosen if i.isdigit() and int(i) >= facts.gpus_installed]
        if absent and facts.gpus_installed:
            return Failure(
                HARDWARE,
                f"{accelerate.name} names GPU {absent[0]} of a machine whose GPUs are numbered 0 to "
                f"{facts.gpus_installed - 1}",
                "correct gpu_ids in it, or write gpu_ids: all",
            )
        seen = len(chosen) - len(absent)
    if plan.local <= seen:
        return None
    here = f"this machine has {facts.gpus_installed or 'none'}"
    if seen < facts.gpus_installed:
        hides = "gpu_ids" if accelerate.gpu_ids != "all" else "CUDA_VISIBLE_DEVICES"
        here = f"{hides} shows {seen} of this machine's {facts.gpus_installed}"
    if facts.mig:
        here = "of the MIG devices in CUDA_VISIBLE_DEVICES a process sees the first alone"
    need = (
        "a GPU"
        if plan.local == 1
        else f"{plan.local} GPUs on each machine"
        if accelerate.machines > 1
        else f"{plan.local} GPUs"
    )
    return Failure(HARDWARE, f"{accelerate.name} needs {need} and {here}", suited(seen, plan.local))


def suited(gpus: int, wanted: int) -> str:
    if gpus == 0:
        return "use --config cpu" + (
            ", or add --emulate to try its processes on the CPU" if wanted > 1 else ""
        )
    return "use --config 1gpu" if gpus == 1 else f"use --num-processes {gpus}"


def precision(plan: Plan) -> Failure | None:
    if plan.accelerate.precision == "fp16" and plan.accelerate.use_cpu:
        return Failure(
            HARDWARE,
            "fp16 needs a GPU (on a CPU accelerate would train in fp32 and call it fp16)",
            "leave --mixed-precision out, or use bf16",
        )
    return None


def threads(plan: Plan) -> Failure | None:
    """Of a new run. One that was begun keeps those that it began with: they decide its bits."""
    if plan.config is None or not plan.config.threads or plan.place and plan.place.resumes:
        return None
    asked, cores = plan.config.threads, plan.facts.cores
    if asked <= cores:
        return None
    what = f"--threads {asked} is more than this machine's {cores} core{'s' * (cores > 1)}"
    return Failure(USAGE, what, f"use --threads {cores} or fewer, or leave it out")


def batch(plan: Plan) -> Failure | None:
    if plan.config is None:
        return None
    return shards.problem(plan.config, plan.accelerate.processes)


def fits(plan: Plan) -> Failure | None:
    """Whether images have a size that their network takes, and are not shifted out of sight."""
    config, data = plan.config, plan.data
    if config is None or data is None or data.sizes is None or data.sizes.kind != "images":
        return None
    sizes, size = data.sizes, "x".join(map(str, data.sizes.shape[1:]))
    high, wide = sizes.shape[1:]
    crop = getattr(config.options, "crop", 0)  # options of one's own may lack it
    if crop >= min(high, wide) and not (plan.place and plan.place.resumes):
        what = f"--crop {crop} would shift the {size} images of {sizes.data} out of sight"
        return Failure(USAGE, what, f"use less than {min(high, wide)}; an eighth of the size is usual")
    sides = workloads.load(config.workload).sides.get(config.arch)
    if sides and high == wide and high not in sides:
        what = f"{config.workload}'s {config.arch} takes images of {sides[0]}x{sides[0]}, and those of"
        return Failure(USAGE, f"{what} {sizes.data} are {size}", instead(sizes))
    return None


def steps(plan: Plan) -> Failure | None:
    try:
        if plan.epoch_steps is None:
            return None  # the data is not packed yet
    except Failure as failure:  # the task says what its data does not fill
        return failure
    return None


def disk(plan: Plan) -> Failure | None:
    if plan.place is None:
        return None
    if not plan.facts.writable:
        return Failure(
            STORAGE,
            f"{plan.place.run} cannot be written: the folder above it is another user's, or read-only",
            "choose another place with --run PATH",
        )
    if plan.facts.free < 10e6:  # bytes; not even a small model's checkpoints
        return Failure(
            STORAGE,
            f"{plan.facts.free / 1e6:.1f} MB are free where {plan.place.run} goes",
            "free some space, or choose another place with --run PATH",
        )
    return None
