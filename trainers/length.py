"""How many steps a training of --time 30m takes: measured before its first one, and fixed.

    config = length.fixed(config, runtime, packed, batches, model, run, spent)    # with its max_steps

A step's time decides the number of steps and so the schedule: it cannot be taken from the run's own first
steps, whose learning rate depends on that number. What is measured is thrown away, a copy of the model with
an optimizer of its own. The run is then the one of --max-steps, to the bit, and a resume reads the number in
its config.json. A start that ends before it is there begins anew.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time

from relaunch.data_prep import files
from relaunch.data_prep.errors import PREEMPTED, USAGE, Failure
from relaunch.trainers import snapshot, workloads
from relaunch.trainers.build import make_optimizer
from relaunch.trainers.config import RunConfig
from relaunch.trainers.evaluate import score_split
from relaunch.trainers.flags import seconds
from relaunch.trainers.group import process
from relaunch.trainers.loop import Training
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint

WARM_UP = 2  # steps that take longer than those after them
LONGEST, SHARE = 5.0, 0.01  # seconds, and share of --time, that the last steps measured take at least


@dataclasses.dataclass(frozen=True)
class Costs:
    """Seconds of a step, of an evaluation of the whole split, and of a checkpoint."""

    step: float
    evaluation: float
    checkpoint: float

    def beside(self, config: RunConfig, epoch_steps: int, steps: int) -> float:
        """Seconds of evaluating and saving in a training of so many steps."""
        # those that a clock asks for are written beside the steps
        save_every = config.save_every if isinstance(config.save_every, int) else epoch_steps
        every = math.lcm(save_every, epoch_steps)
        saves = steps // save_every + steps // epoch_steps - steps // every
        saves += bool(steps % save_every and steps % epoch_steps)  # at its end
        return -(-steps // (epoch_steps * config.eval_every)) * self.evaluation + saves * self.checkpoint

    def steps_in(self, left: float, config: RunConfig, epoch_steps: int) -> int:
        """The most steps that take no longer than `left` seconds with all that is beside them."""
        low, high = 0, int(max(left, 0) / self.step) + 1
        while high - low > 1:
            steps = (low + high) // 2
            fits = steps * self.step + self.beside(config, epoch_steps, steps) <= left
            low, high = (steps, high) if fits else (low, steps)
        return low


def fixed(config: RunConfig, runtime, packed, batches, model, run: RunDir, spent) -> tuple[RunConfig, str]:
    """The config with the number of steps that its --time holds, the same on all ranks; and a line of it.

    The time counts from the start of the command, with what is measured here. `model` stays as it is.
    Failure 64 if there is none for a step, 75 after a stop signal: the run is not begun yet.
    """
    asked = seconds(config.time or "")
    longest = min(LONGEST, SHARE * asked)
    epoch_steps = workloads.load(config.workload).task.steps_per_epoch(config, packed.sizes)
    with runtime.trial():
        costs = measured(config, runtime, packed, batches, copy.deepcopy(model), run, longest)
    gone = runtime.broadcast(time.time() - spent.began)
    steps = costs.steps_in(asked - gone, config, epoch_steps)
    beside = costs.beside(config, epoch_steps, steps or 1)
    said = f"--time {config.time}: {gone:,.1f} s until here, {figure(costs.step * 1000)} ms a step, "
    said += f"{beside:,.1f} s of evaluation and saving"
    if not steps:
        least = math.ceil(gone + costs.step + beside)
        raise Failure(USAGE, f"{said}: it ends before the first step", f"use at least --time {2 * least}s")
    epochs = f"{figure(steps / epoch_steps)} epoch{'s' * (steps != epoch_steps)}"
    config = dataclasses.replace(config, max_steps=steps, epochs=-(-steps // epoch_steps))
    return config, f"{said}: {steps:,} steps ({epochs})"


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def measured(config: RunConfig, runtime, packed, batches, model, run: RunDir, longest: float) -> Costs:
    """The costs on this rank's share of the machine, the same on all ranks. Trains `model`.

    `longest`: seconds after which there is enough of what repeats.
    """
    training = trial_of(config, runtime, packed, batches, model, run)
    steps_of(training, WARM_UP)
    saved = runtime.on_rank_0(lambda: checkpoint_of(training))
    evaluated = evaluation_of(training, longest)
    return Costs(step_of(training, longest), evaluated, saved)


def trial_of(config: RunConfig, runtime, packed, batches, model, run: RunDir) -> Training:
    """A training of `model` that is measured and thrown away."""
    model.to(runtime.device)
    identity = {"config_hash": "", "data_hash": packed.hash}
    optimizer = make_optimizer(config, model)
    return Training(config, identity, runtime, packed, batches, model, optimizer, run, None)


def step_of(training: Training, longest: float) -> float:
    """Seconds of a step, the mean of so many that they take `longest` seconds."""
    count = 1
    while (took := steps_of(training, count)) < longest:
        count *= 2
    return took / count


def go_on(runtime) -> None:
    if runtime.agree(int(process.asked_to_stop() is not None)):
        what = "stopped while it measured its steps, before the first: nothing to save"
        raise Failure(PREEMPTED, what, "run it again")


def steps_of(training: Training, count: int) -> float:
    """Seconds of so many steps."""
    training.runtime.wait_for_device()
    began = time.perf_counter()
    for i in range(1, count + 1):
        training.advance()
        go_on(training.runtime)
        if i % 64 == 0 or i == count:  # as log lines do
            training.sum_pending()
    return training.runtime.broadcast(time.perf_counter() - began)


def evaluation_of(training: Training, longest: float) -> float:
    """Seconds of scoring the whole split; of a part of it, if that takes `longest`."""
    runtime, packed = training.runtime, training.packed
    began, calls = time.perf_counter(), 0
    scorer = training.task.scorer(training.config, packed, packed.eval_split, runtime.device)

    def enough() -> int:
        nonlocal calls
        go_on(runtime)
        calls += 1  # before each batch of every rank
        return runtime.broadcast(int(calls > 1 and time.perf_counter() - began > longest))

    rows = score_split(runtime, scorer, training.module, stop=enough)
    took = runtime.broadcast(time.perf_counter() - began)
    return took if rows is not None else took / (calls - 1) * -(-scorer.batches // runtime.world)


def checkpoint_of(training: Training) -> float:
    """Seconds of saving, in the run's folder, where nothing is left of it."""
    began, place = time.perf_counter(), RunDir(training.run.path / ".length")
    with files.storage(training.run.path, "--run PATH"):
        try:
            sums = [(training.zeros(), training.zeros())] * training.runtime.world
            checkpoint.save(place, snapshot.take(training, sums), keep=1)
        finally:
            files.remove(place.path)
    return time.perf_counter() - began
