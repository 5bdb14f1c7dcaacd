"""What `relaunch train` does, as a side: its Training, step by step, in a process set up as its ranks are."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ENDLESS = "--epochs 1000000 --max-steps 1000000000 --save-every 1000000000 --log-interval 1000000000".split()
ENDLESS += "--eval-every 1000000".split()  # these three are measured by themselves


def make_training(config, packed, runtime, folder: Path, spent=None):
    """The training of a config, which never saves."""
    from relaunch.trainers.build import make_batches, make_model, make_optimizer
    from relaunch.trainers.loop import Training
    from relaunch.trainers.rundir import RunDir

    batches = make_batches(config, packed, runtime.device, runtime.rank, runtime.world)
    model = make_model(config, packed.sizes).to(runtime.device)
    optimizer = make_optimizer(config, model)
    training = Training(
        config, {}, runtime, packed, batches, model, optimizer, RunDir(folder), None, spent=spent
    )
    training.save = lambda: None  # an epoch's end saves: that is the checkpoint's time, not the loop's
    return training


def in_a_rank(what, precision: str = "no", environment: dict[str, str] | None = None) -> None:
    """Call `what()` as the product calls a rank's work; ends this process.

    `environment` is what accelerate's launcher would set.
    """
    os.environ |= {
        "ACCELERATE_MIXED_PRECISION": precision,
        "ACCELERATE_USE_CPU": "true",
        **(environment or {}),
    }
    from relaunch.trainers.group import process  # before torch, as there

    def run(_):
        what()
        return 0, None

    sys.exit(process.main(run))


def train(turns, argv: str, root, threads: int, precision: str = "no", environment=None) -> None:
    """A side whose `steps` are those of `relaunch train ARGV`."""

    def what():
        from relaunch.data_prep.packed import open_packed
        from relaunch.trainers import workloads
        from relaunch.trainers.config import parse
        from relaunch.trainers.group.runtime import Runtime

        config = parse([*argv.split(), "--threads", str(threads), *ENDLESS]).config
        apart = workloads.load(config.workload).task.kind == "text"
        runtime = Runtime(config.threads, config.deterministic, apart=apart)
        with runtime.watched(), tempfile.TemporaryDirectory() as folder:
            runtime.settle(config.threads, config.deterministic, config.tf32)
            training = make_training(config, open_packed(config.data, root), runtime, Path(folder))
            loss = "nll" if training.task.kind == "text" else "loss"

            def steps(n: int) -> float:
                for _ in range(n):
                    training.iterate()
                training.sum_pending()
                mean = training.batches.metrics(training.window)[loss]
                training.log()  # the line that users have now and then; the window begins anew
                return mean

            turns(steps=steps)
        runtime.close()

    in_a_rank(what, precision, environment)
