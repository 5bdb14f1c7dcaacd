"""Measure a workload's training step at some batch sizes: operators, phases, FLOPs and a trace of each.

python -m trainers.profile mnist --batch-size 1,16,64
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import PREEMPTED, Failure
from relaunch.data_prep.talk import give, tell
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.group import process
from relaunch.trainers.job import Job
from relaunch.trainers.profiling import asked, page, results
from relaunch.trainers.workloads import own

WARM_UP = 3  # steps: allocators, kernels and the first epoch's order are ready after them
SECONDS = 1.0  # of steps that are timed, and of those that are profiled
LEAST, MOST = 3, 30  # steps that are profiled: each is some hundred events, which all lie in memory
LONGEST = 300  # steps that are timed


def run(argv: list[str]) -> tuple[int, str | None]:
    if {"-h", "--help"} & set(argv):
        give(asked.HELP)
        return 0, None
    from relaunch.trainers.group.runtime import Runtime

    sizes, words = asked.split(argv)
    job = parse(words, "relaunch profile")
    configs = asked.configs(job, sizes)
    apart = workloads.load(job.config.workload).task.kind == "text"
    runtime = Runtime(job.config.threads, job.config.deterministic, job.launch.timeout, apart)
    runtime.settle(job.config.threads, job.config.deterministic, job.config.tf32)
    with runtime.watched(), own.blamed():
        profile(job, configs, runtime)
    runtime.close()
    return 0, None


def profile(job: Job, configs: list[RunConfig], runtime) -> None:
    """Measure the configs on their data, into --out. Failure 64, 65, 69, 73 or 75."""
    from relaunch.data_prep.packed import data_root, open_packed
    from relaunch.data_prep.recipes import ensure
    from relaunch.trainers.profiling.setting import versions

    root, folder = data_root(job.launch.data_root), Path(job.launch.out or f"profiles/{job.config.workload}")
    runtime.on_every_rank(lambda: runtime.first_here and ensure(job.config.data, root))
    packed = runtime.on_every_rank(lambda: open_packed(job.config.data, root))

    def begin() -> dict:
        with files.storage(folder, "--out FOLDER"):
            folder.mkdir(parents=True, exist_ok=True)
            return results.held(folder, results.about(job.config, packed.name, versions()))

    try:
        measure_all(configs, packed, runtime, folder, runtime.on_rank_0(begin))
    finally:
        with contextlib.suppress(OSError):  # it holds something, or was never made
            folder.rmdir()


def measure_all(configs: list[RunConfig], packed, runtime, folder: Path, found: dict) -> None:
    """Measure one after the other, and write down each as it is found; at the end the page."""
    from relaunch.trainers.profiling.setting import written

    for number, config in enumerate(configs):
        training = prepare(config, packed, runtime)
        if runtime.main:
            told = f"measuring batch {config.batch_size} of {config.workload} {config.arch} on {packed.name}"
            tell(f"relaunch: {told} ({number + 1} of {len(configs)})", sys.stderr)
        window, plain = measure(training)

        def write(config=config, window=window, plain=plain):
            with files.storage(folder, "--out FOLDER"):
                setting = written(window, plain, folder)
                give("\n".join([*page.lines(setting, config.workload), ""]))
                return results.put(folder, found, setting)

        found = runtime.on_rank_0(write)
        del training, window
        runtime.accelerator.free_memory()

    def finish():
        with files.storage(folder, "--out FOLDER"):
            results.write_page(folder, found)
        give(results.told(folder))

    runtime.on_rank_0(finish)


def prepare(config: RunConfig, packed, runtime):
    """A training of this config, before its first step, that belongs to no run."""
    from relaunch.trainers.build import check_step, make_batches, make_model, make_optimizer
    from relaunch.trainers.loop import Training
    from relaunch.trainers.tryout import try_out

    rank, world = runtime.rank, runtime.world
    batches = runtime.on_every_rank(lambda: make_batches(config, packed, runtime.device, rank, world))
    model = runtime.on_every_rank(lambda: make_model(config, packed.sizes))
    runtime.unused = runtime.on_every_rank(lambda: check_step(config, model, packed.sizes, world))
    if config.code:
        runtime.on_every_rank(lambda: try_out(config, packed, batches, model, runtime.device))
    optimizer = make_optimizer(config, model.to(runtime.device))
    return Training(config, {}, runtime, packed, batches, model, optimizer, run=None, metrics=None)


def measure(training) -> tuple:
    """(the profiled Window, None but on rank 0; what steps around it took without the profiler)."""
    from relaunch.trainers.profiling.window import Window, timed

    runtime = training.runtime

    def advance():
        if training.step >= training.total:  # of a small set: its last step is followed by its first
            training.step = 0
        training.advance()

    def some(steps: int) -> list:
        if runtime.agree(int(process.asked_to_stop() is not None)):
            what = f"stopped before batch {training.config.batch_size} was measured; those before it are kept"
            raise Failure(PREEMPTED, what, "run it again")
        took = timed(training, advance, steps)
        training.sum_pending()
        return took

    took = some(WARM_UP)
    fit = max(LEAST, round(SECONDS / max(min(t.wall for t in took), 1e-6)))
    plain, steps = runtime.broadcast((min(fit, LONGEST), min(fit, MOST)))
    before = some(plain)
    if runtime.main:
        window = Window(training)
        window.start()
        for _ in range(steps):
            window.advance(advance)
        window.stop()
    else:
        window = None
        timed(training, advance, steps)
    training.sum_pending()
    return window, before + some(plain)


if __name__ == "__main__":
    sys.exit(process.main(run))
