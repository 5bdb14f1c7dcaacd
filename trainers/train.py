"""Train a workload in this process, as accelerate starts it.

accelerate launch --config_file accelerate_configs/cpu.yaml -m trainers.train mnist --data digits --epochs 2
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, LOCKED, PREEMPTED, STOPPED, USAGE, Failure
from relaunch.trainers import rundir
from relaunch.trainers.begin import Beginning, begin, command_to_go_on
from relaunch.trainers.config import CHANGEABLE_ON_RESUME, EXTENDABLE, Job, RunConfig, parse
from relaunch.trainers.group import process
from relaunch.trainers.rundir import RunDir


def run(argv: list[str]) -> tuple[int, str | None]:
    job = parse(argv)
    launch = job.launch
    if launch.evaluate:
        from relaunch.trainers.evaluate import evaluate

        if not launch.resume or launch.resume == "auto":
            raise Failure(USAGE, "--evaluate needs a checkpoint", "add --resume RUN|CHECKPOINT|FILE")
        changes = {
            k: getattr(job.config, k) for k in ("data", "eval_batch_size", "threads") if k in job.given
        }
        return evaluate(launch, job.config, changes)
    for name in ("split", "out", "outputs"):
        if getattr(launch, name):
            raise Failure(USAGE, f"--{name} goes with --evaluate")
    # the run belongs to the machine of rank 0: what another one has under its name is of no account
    here = os.environ.get("GROUP_RANK", "0") == "0"
    return train(job, begin(job) if here else Beginning(None, job.config))


def train(job: Job, beginning: Beginning) -> tuple[int, str | None]:
    from relaunch.trainers.group.runtime import Runtime

    config = beginning.config
    runtime = Runtime(config.threads, config.deterministic, job.launch.timeout)
    with runtime.watched():
        beginning = runtime.broadcast(beginning)
        if beginning.config.threads:
            runtime.set_threads(beginning.config.threads)
        return train_together(job, beginning, runtime)


def train_together(job: Job, beginning: Beginning, runtime) -> tuple[int, str | None]:
    from relaunch.data_prep.packed import data_root, open_packed
    from relaunch.data_prep.recipes import ensure
    from relaunch.trainers.build import check_micro_batch, make_model, make_optimizer, make_task
    from relaunch.trainers.loop import Training, total_steps
    from relaunch.trainers.weights import checkpoint
    from relaunch.trainers.weights.source import open_source
    from relaunch.trainers.weights.state import load_weights

    config, existing = beginning.config, beginning.run if beginning.resumes else None
    # everything that can be wrong is found here, before the run is written
    root = data_root(job.launch.data_root)
    runtime.on_every_rank(lambda: runtime.first_here and ensure(config.data, root))
    packed = runtime.on_every_rank(lambda: open_packed(config.data, root))
    task = runtime.on_every_rank(
        lambda: make_task(config, packed, runtime.device, runtime.rank, runtime.world)
    )
    runtime.on_every_rank(lambda: packed.check_split(packed.eval_split))
    model = runtime.on_every_rank(lambda: make_model(config, packed))
    runtime.on_every_rank(lambda: check_micro_batch(config, model, packed, runtime.world))
    if beginning.weights:

        def read():
            source = open_source(beginning.weights)
            return source.weights(), str(source.path)

        weights, where = runtime.on_rank_0(read)
        runtime.on_every_rank(lambda: load_weights(model, weights, where))

    identity = {"config_hash": config_hash(config), "data_hash": packed.hash}
    owned = []  # on rank 0

    def claim():
        """Own the run's folder; find where it stands."""
        with files.storage(existing.path if existing else job.launch.run or rundir.ROOT, "--run PATH"):
            run = existing or rundir.create(job.launch.run, config.workload)
            run.lock()
            owned.append(run)
            if not existing and run.begun():
                raise Failure(
                    LOCKED,
                    f"another process has just begun {run.path}",
                    "add --resume auto, or choose another --run",
                )
            checkpoint.recover(run)
        newest = checkpoint.newest_valid(run) if existing else None
        state = checkpoint.load(newest) if newest else None
        if state and state.meta["data_hash"] != identity["data_hash"]:
            raise Failure(
                USAGE if "data" in job.given else DATA,
                f"{packed.path} is not the data that {run.path} was trained on",
                "give the same --data, or start a new --run",
            )
        if state and state.meta["config_hash"] != identity["config_hash"]:
            raise Failure(
                DATA,
                f"{run.config} is not the config that {newest} was trained with",
                "put back what was changed in it",
            )
        return run.path, state

    path, state = runtime.on_rank_0(claim)
    run = owned[0] if owned else RunDir(path)
    if state:
        runtime.set_threads(state.meta["threads"])
    total = total_steps(config, task.steps_per_epoch)
    if state and (state.meta["step"], state.meta["evaluated"]) >= (total, total):
        if runtime.main:
            run.write_status(
                "done", 0, state.meta["step"], "trained to the end"
            )  # a kill may have come between the two
            process.tell(f"{path}: finished already, at step {state.meta['step']}/{total}")
        runtime.close()
        return 0, str(path)
    model.to(runtime.device)
    opened = []  # on rank 0

    def open_run():
        from relaunch.trainers.metrics import Metrics

        step, evaluated = (state.meta["step"], state.meta["evaluated"]) if state else (0, 0)
        with files.storage(run.path, "--run PATH"):
            files.write_atomic(run.config, files.dump_json(config.to_json()))
            files.write_atomic(run.plan, files.dump_json(plan(job, runtime, packed, task, total)))
            run.cut_metrics(step, evaluated)
            run.write_status("running", step=step)
            opened.append(Metrics(run, step))
            if not state:
                opened[0].describe(config, task, model, packed)

    runtime.on_rank_0(open_run)
    metrics = opened[0] if opened else None
    training = Training(
        config,
        identity,
        runtime,
        task,
        model,
        make_optimizer(config, model),
        run,
        metrics,
        job.launch.stop_after,
    )
    try:
        with runtime.watched():
            if state:
                training.restore(state)
            training.say(headline(training, packed, state))
            code = training.train()
            if code in (PREEMPTED, STOPPED):
                training.say(f"to go on: {command_to_go_on(job.argv, run)}")
    except Exception as error:  # the launcher compares where crashes happened
        if runtime.main:
            code, what = (
                (error.code, error.what)
                if isinstance(error, Failure)
                else (1, f"{type(error).__name__}: {error}")
            )
            run.write_status("failed", code, training.step, what)
        raise
    finally:
        if metrics:
            metrics.close()
    runtime.close()
    return code, str(path)


def headline(training, packed, state) -> str:
    r, c = training.runtime, training.config

    def processes(world: int, precision: str) -> str:
        return f"{world} process{'es' * (world > 1)} in {'fp32' if precision == 'no' else precision}"

    where = f"{processes(r.world, r.precision)} on {r.device.type}, {r.threads} thread{'s' * (r.threads > 1)} each"
    lines = [
        f"{training.run.path}: {c.workload} {c.arch} on {packed.name}, {where}",
        f"batch {c.batch_size} = {r.world} x {c.grad_accum_steps} x {c.batch_size // r.world // c.grad_accum_steps}, "
        f"{training.task.steps_per_epoch} steps an epoch, {training.total} in all",
    ]
    if r.world > 1:
        lines[1] += f"; a process that is missing ends the others after {r.timeout} s"
    if state:
        lines.append(f"resumed from step {state.meta['step']}")
        was = state.meta["world"], state.meta["precision"]
        if was != (r.world, r.precision):
            lines.append(
                f"it was saved by {processes(*was)}: the same samples follow, sums may round differently"
            )
    return "\n".join(lines)


def plan(job: Job, runtime, packed, task, total: int) -> dict:
    """What was launched, for plan.json."""
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
        "host": platform.node(),
        "data": str(packed.path),
        "data_hash": packed.hash,
        "steps_per_epoch": task.steps_per_epoch,
        "total_steps": total,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "accelerate": accelerate.__version__,
        },
    }


def config_hash(config: RunConfig) -> str:
    """Of everything in a config that decides what is trained."""
    kept = {
        k: v for k, v in config.to_json().items() if k not in CHANGEABLE_ON_RESUME | EXTENDABLE | {"data"}
    }
    return hashlib.sha256(files.dump_json(kept).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(process.main(run))
