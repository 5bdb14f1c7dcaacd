"""Train a workload in this process, as accelerate starts it.

accelerate launch --config_file accelerate_configs/cpu.yaml -m trainers.train mnist --data digits --epochs 2
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import time

from relaunch.data_prep import files
from relaunch.data_prep.errors import PREEMPTED, STOPPED, USAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers import origin, records, workloads
from relaunch.trainers.begin import Beginning, begin, command_of, command_to_go_on
from relaunch.trainers.claim import claim
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.cores import physical_cores
from relaunch.trainers.group import log, process, stacks
from relaunch.trainers.job import Job
from relaunch.trainers.launched import record_of
from relaunch.trainers.profiling import steps
from relaunch.trainers.resumed import CHANGEABLE_ON_RESUME, EXTENDABLE
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.schedule import log_interval, patience_spent, total_steps
from relaunch.trainers.workloads import own

TIME = "%Y-%m-%dT%H:%M:%S%z"


def run(argv: list[str]) -> tuple[int, str | None]:
    job = parse(argv)
    launch = job.launch
    if launch.evaluate:
        from relaunch.trainers.evaluate import changes_of, evaluate

        if not launch.resume or launch.resume == "auto":
            raise Failure(USAGE, "--evaluate needs a checkpoint", "add --resume RUN|CHECKPOINT|FILE")
        if launch.verify_data:
            raise Failure(USAGE, "--verify-data is for trainings", "relaunch prep NAME --verify hashes a set")
        return evaluate(launch, job.config, changes_of(job.config, job.given))
    for name in ("split", "out", "outputs"):
        if getattr(launch, name):
            raise Failure(USAGE, f"--{name} goes with --evaluate")
    # the run belongs to the machine of rank 0: what another one has under its name is of no account
    here = os.environ.get("GROUP_RANK", "0") == "0"
    return train(job, begin(job) if here else Beginning(None, job.config))


def train(job: Job, beginning: Beginning) -> tuple[int, str | None]:
    from relaunch.trainers.group.runtime import Runtime

    config = beginning.config
    apart = workloads.load(config.workload).task.kind == "text"
    runtime = Runtime(config.threads, config.deterministic, job.launch.timeout, apart)
    with runtime.watched():
        beginning = runtime.broadcast(beginning)
        config = beginning.config
        runtime.settle(config.threads, config.deterministic, config.tf32)
        return train_together(job, beginning, runtime)


def train_together(job: Job, beginning: Beginning, runtime) -> tuple[int, str | None]:
    from relaunch.data_prep import spot
    from relaunch.data_prep.packed import data_root, open_packed
    from relaunch.data_prep.recipes import ensure
    from relaunch.trainers.build import check_step, fit_inputs, make_batches, make_model, make_optimizer
    from relaunch.trainers.compiling import chosen
    from relaunch.trainers.fitting import fitted
    from relaunch.trainers.length import fixed
    from relaunch.trainers.lines import headline, why_done
    from relaunch.trainers.loop import Training
    from relaunch.trainers.metrics import Metrics
    from relaunch.trainers.profiling.during import profiled
    from relaunch.trainers.snapshot import restore
    from relaunch.trainers.spent import Spent
    from relaunch.trainers.tryout import try_out

    config, rank, world = beginning.config, runtime.rank, runtime.world
    # everything that can be wrong is found here, before the run is written
    root = data_root(job.launch.data_root)
    runtime.on_every_rank(lambda: runtime.first_here and ensure(config.data, root))
    packed = runtime.on_every_rank(lambda: open_packed(config.data, root))
    runtime.on_every_rank(lambda: runtime.first_here and spot.check(packed, job.launch.verify_data))
    if job.launch.micro_batch and not beginning.resumes:
        config = fitted(config, packed, runtime)
    batches = runtime.on_every_rank(lambda: make_batches(config, packed, runtime.device, rank, world))
    runtime.on_every_rank(lambda: packed.check_split(packed.eval_split))
    work = workloads.load(config.workload)
    epoch_steps = work.task.steps_per_epoch(config, packed.sizes)
    total = total_steps(config, epoch_steps)
    steps.check(job.launch.profile_steps, total)
    model = runtime.on_every_rank(lambda: make_model(config, packed.sizes))
    runtime.unused = runtime.on_every_rank(lambda: check_step(config, model, packed.sizes, world))
    if config.code:
        runtime.on_every_rank(lambda: try_out(config, packed, batches, model, runtime.device))
    runtime.on_every_rank(lambda: fit_inputs(config, packed, model))
    record, forked = beginning.origin, None
    if beginning.weights:
        weights, record = runtime.on_rank_0(
            lambda: origin.read_weights(beginning.weights, record, config, packed, model)
        )
        where = record["init"]["path"]
        fresh = runtime.on_every_rank(lambda: origin.fill(model, weights, where, beginning.fresh_head))
        record = {"init": record["init"] | {"fresh": fresh}}
    if beginning.fork:
        typed = "data" in job.given
        forked = runtime.on_rank_0(
            lambda: origin.read_fork(beginning.fork, record, config, model, packed, typed)
        )

    claimed = []  # on rank 0, with the lock

    def claim_run():
        run, state = claim(beginning, job, packed)
        claimed.append(run)
        return run.path, state

    path, state = runtime.on_rank_0(claim_run)
    run = claimed[0] if claimed else RunDir(path)
    seen = state.meta.get("data") if state else None
    runtime.on_every_rank(lambda: runtime.first_here and spot.compare(packed, seen))
    begun = "" if state else origin.said(record)  # and not resumed
    if state:
        record = origin.recorded(state.meta)
    state = state or forked
    if state:
        runtime.set_threads(state.meta["threads"])
        if runtime.main and runtime.threads > (cores := physical_cores()):
            kept = f"{runtime.threads} threads a process, as it began: other threads, other bits"
            tell(f"relaunch: {path} keeps its {kept}; here are {cores} cores", sys.stderr)
    step, evaluated = (state.meta["step"], state.meta["evaluated"]) if state else (0, 0)
    if not (beginning.resumes or beginning.fork or "log_interval" in job.given):
        config = dataclasses.replace(config, log_interval=log_interval(config, epoch_steps))
    since_best = state.meta.get("since_best", 0) if state else 0
    impatient = evaluated == step and patience_spent(config, since_best)
    if state and not begun and (impatient or (step, evaluated) >= (total, total)):
        why = why_done(config, step, total, state.meta["best"], since_best)
        if runtime.main:
            run.write_status("done", 0, step, why)  # a kill may have come between the two
            said = f"; {why}; a larger --patience goes on" if impatient and step < total else ""
            tell(f"{path}: finished already, at step {step}/{total}{said}")
        runtime.close()
        return 0, str(path)
    # beside our launcher, which shows a crash's last lines, one rank of a machine speaks
    aloud = runtime.first_here or "RELAUNCH_OUTCOME" not in os.environ
    stacks.keep(RunDir(path))
    if process.began:  # else the streams are those of somebody's program
        log.keep(RunDir(path).log(rank), f"rank {rank} of {world}", aloud)
    samples = state.meta["samples"] if state else 0
    spent = Spent(claimed[0] if claimed else None, step, samples)
    held: list[str] = []
    if config.time and not config.max_steps:
        config, said = fixed(config, runtime, packed, batches, model, RunDir(path), spent)
        held, total = [said], total_steps(config, epoch_steps)
        steps.check(job.launch.profile_steps, total)
    if config.compile == "auto":
        config, said = chosen(config, runtime, packed, batches, model, RunDir(path), total)
        held.append(said)
    model.to(runtime.device)

    def write_down():
        with files.storage(run.path, "--run PATH"):
            launched = record_of(job, runtime, packed, epoch_steps, total) | record
            launched["starts"] = [*records.starts(run), {"step": step, "time": time.strftime(TIME)}]
            launched["rollbacks"] = state.meta.get("rollbacks", []) if state else []
            files.write_atomic(run.plan, files.dump_json(launched))  # first: what is begun has its record
            run.cut_metrics(step, evaluated)  # by the intervals that are in the config
            if work.code:
                work.code.write(run.code)
            files.write_atomic(run.config, files.dump_json(config.to_json()))  # last: with it, it is begun
            run.write_status("running", step=step)
            spent.write(step, samples, saved=True)

    opened = []  # on rank 0

    def open_metrics():
        with files.storage(run.path, "--run PATH"):
            opened.append(Metrics(run, step))
            if begun or not state:
                opened[0].describe(config, work.task, batches, model, packed)
            opened[0].text("command", step, command_of(job.argv))
            if begun:
                opened[0].text("begun", step, begun)

    runtime.on_rank_0(write_down)
    training = None
    try:
        with runtime.watched():
            runtime.on_rank_0(open_metrics)
            training = Training(
                config,
                {
                    "config_hash": config_hash(config),
                    "data_hash": packed.hash,
                    "data": spot.look(packed),
                    **record,
                },
                runtime,
                packed,
                batches,
                model,
                make_optimizer(config, model),
                run,
                opened[0] if opened else None,
                job.launch.stop_after,
                spent,
            )
            if state:
                restore(training, state)
            training.say(headline(training, packed, state, begun))
            for line in [*held, *(origin.notes(record, beginning.fresh_head) if begun else ())]:
                training.say(line)
            if begun and forked:  # from here on its parent is not needed any more
                training.save()
                training.saver.settle()
                for line in runtime.on_rank_0(lambda: origin.keep_best(run, record, training.best)):
                    training.say(line)
            with profiled(training, job.launch.profile_steps):
                code = training.train()
            if code in (PREEMPTED, STOPPED):
                training.say(f"to go on: {command_to_go_on(job.argv, run)}")
            for metrics in opened:
                metrics.done(code)
    except Exception as error:  # the launcher compares where crashes happened
        if training:
            training.saver.drain()
        if training and training.step > step:
            error = blamed_later(error, runtime.world)
        else:
            error = own.blame(error) or error
        if runtime.main:
            ours = isinstance(error, Failure)
            code, what = (error.code, error.what) if ours else (1, f"{type(error).__name__}: {error}")
            run.write_status("failed", code, training.step if training else step, what)
            if training:
                spent.write(training.step, training.samples)
        raise error
    finally:
        if close := getattr(batches, "close", None):  # of one's own, they may have nothing to close
            close()
        for metrics in opened:
            metrics.close()
    runtime.close()
    return code, str(path)


def blamed_later(error: Exception, world: int) -> Exception:
    """What ends a training after its first step; a mistake in somebody's own files is said with its line."""
    if not (found := own.blame_later(error)):
        return error
    failure, where = found
    tell(where, sys.stderr)
    if world == 1:
        return failure
    return process.Lost(failure.code, failure.what, failure.fix, speaks=True)  # the others wait for this rank


def config_hash(config: RunConfig) -> str:
    """Of everything in a config that decides what is trained."""
    kept = {
        k: v for k, v in config.to_json().items() if k not in CHANGEABLE_ON_RESUME | EXTENDABLE | {"data"}
    }
    return hashlib.sha256(files.dump_json(kept).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(process.main(run))
