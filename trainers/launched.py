"""What was launched, for plan.json: the command, the machine, the data and the versions of a start."""

from __future__ import annotations

import os
import platform

from relaunch.data_prep import VERSION
from relaunch.trainers import hardware
from relaunch.trainers.job import Job


def record_of(job: Job, runtime, packed, epoch_steps: int, total: int) -> dict:
    """Of this start, beside where it began."""
    import accelerate
    import torch

    gpu = (
        torch.cuda.get_device_name()
        if runtime.device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "command": ["trainers.train", *job.argv],
        "config": os.environ.get("RELAUNCH_CONFIG"),
        "world": runtime.world,
        "device": runtime.device.type,
        "device_name": gpu,
        "precision": runtime.precision,
        "threads": runtime.threads,
        "keeps_memory": runtime.keeps_memory,  # which changes no bit, and so needs no setting
        "host": platform.node(),
        **hardware.here(),
        "data": str(packed.path),
        "data_hash": packed.hash,
        "eval_split": packed.eval_split,
        "steps_per_epoch": epoch_steps,
        "total_steps": total,
        "versions": {
            "python": platform.python_version(),
            "relaunch": VERSION,
            "torch": torch.__version__,
            "accelerate": accelerate.__version__,
        },
    }
