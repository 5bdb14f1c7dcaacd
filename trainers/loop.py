"""The training loop: step, log, evaluate, save."""

from __future__ import annotations

import math
import os
import sys
import time

import torch
from tqdm import tqdm

from relaunch.data_prep.errors import DIVERGED, Failure
from relaunch.data_prep.talk import fitted, tell
from relaunch.trainers import ending, lines, rollback, shards, update, workloads
from relaunch.trainers.average import Average
from relaunch.trainers.ending import BY_REQUEST, BY_SIGNAL, CHECK, NO_STOP, NOT_FINITE, SAVE, UNSAVED
from relaunch.trainers.evaluate import score_split
from relaunch.trainers.group import process
from relaunch.trainers.group.elastic import Elastic
from relaunch.trainers.guard import Guard, NotFinite
from relaunch.trainers.saving import Saver
from relaunch.trainers.schedule import due, learning_rate, patience_spent, total_steps
from relaunch.trainers.spent import Spent

PENDING, PENDING_BYTES = 128, 32e6  # of micro-batches whose metrics wait on the device, at most


class Training:
    """One run in this process: the model, its optimizer, its position, and what is done at each step."""

    def __init__(
        self,
        config,
        identity: dict,
        runtime,
        packed,
        batches,
        model,
        optimizer,
        run,
        metrics,
        stop_after=None,
        spent: Spent | None = None,
    ):
        """`identity` goes into each state.json as it is; `metrics` is None on all ranks but 0."""
        self.config, self.identity, self.runtime = config, identity, runtime
        self.task, self.packed, self.batches = workloads.load(config.workload).task, packed, batches
        self.epoch_steps = self.task.steps_per_epoch(config, packed.sizes)
        self.scorer = None  # of the evaluation split, from the first evaluation on
        self.run, self.metrics = run, metrics
        self.spent = spent or Spent()
        self.module = model
        wrapped = runtime.alone(model) if config.elastic_exact else runtime.wrap(model)
        self.model = runtime.compiled(wrapped) if config.compile == "on" else wrapped
        self.elastic = Elastic(runtime, model) if config.elastic_exact else None
        self.shards = shards.of(config, runtime.world) // runtime.world  # of this process
        self.average = Average(model, config.ema) if config.ema else None
        self.scored = self.average.module if self.average else model
        self.optimizer = optimizer
        if runtime.accelerator.scaler:  # else accelerate's own is needed for nothing, and costs 120 us a step
            optimizer._step_supports_amp_scaling = False  # a fused one would skip in its kernel, unseen
            self.optimizer = runtime.accelerator.prepare(optimizer)
        self.stop_after = stop_after or math.inf
        self.total = total_steps(config, self.epoch_steps)
        self.step = self.skipped = self.evaluated = 0
        self.best: dict | None = None
        self.since_best = 0  # evaluations in a row that brought nothing better
        self.protected: set[int] = set()  # steps whose checkpoints stay
        self.saver = Saver(runtime, run)
        self.window, self.epoch_sums = self.zeros(), self.zeros()  # of this rank
        self.pending_metrics: list = []  # not yet in the window: adding them up waits for the device
        self.pending_bytes = 0
        self.rollbacks: list[dict] = []  # see rollback
        self.guard = Guard(self)
        self.stop, self.polled = NO_STOP, 0.0
        self.generators = [torch.default_generator]  # on a GPU, too: a model may draw from either
        if runtime.device.type == "cuda":
            self.generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
        self.bar = tqdm(disable=True)
        self.restart_clock()

    # the loop -----------------------------------------------------------------------------------------------

    def train(self) -> int:
        """Train to the end or to a stop; returns the exit code."""
        if not self.agree_to_stop() and self.owes_evaluation():
            self.evaluate()
            self.save()
        show_bar = self.runtime.main and sys.stderr.isatty()
        bar = {"total": self.total, "initial": self.step, "unit": "step", "disable": not show_bar}
        self.bar = tqdm(**bar, smoothing=0)  # the time that is left is of all steps, as the log's
        while not self.ends and not self.stop:
            try:
                self.iterate()
            except NotFinite as found:
                rollback.go_back(self, found)
        self.bar.close()
        return ending.finish(self)

    def iterate(self):
        """One step, and what falls due after it."""
        c, epoch = self.config, self.epoch_steps
        self.advance()
        self.spent.switch("communication")
        self.agree_to_stop()
        self.spent.switch("other")
        self.bar.update()
        if due(self.step, c.log_interval, self.total, within=epoch):  # a window ends with its epoch
            self.log()
        elif len(self.pending_metrics) >= PENDING or self.pending_bytes > PENDING_BYTES:
            self.sum_pending()
        if self.step % epoch == 0:
            self.log_epoch()
        if due(self.step, epoch * c.eval_every, self.total):
            self.evaluate()
        due_by_steps = due(self.step, c.save_every, self.total) or self.step % epoch == 0
        if self.stop or self.saver.wanted or due_by_steps:
            self.save()

    def advance(self):
        """One optimizer step over one global batch."""
        update.take(self)

    # stopping -----------------------------------------------------------------------------------------------

    def agree_to_stop(self) -> int:
        """Why all ranks stop here, if any was asked to."""
        while not self.stop and (said := self.runtime.agree(self.asked())):
            if said == NOT_FINITE:
                self.guard.refuse(self)
            elif said == UNSAVED:
                self.saver.settle()
            elif said == SAVE:
                self.saver.wanted = True
            elif said == CHECK:
                self.guard.suspects = True
            else:
                self.stop = said
        return self.stop

    def asked(self) -> int:
        """Why this rank would stop after the step just taken. The STOP file is looked for once a second."""
        if self.guard.found or self.saver.failed:
            return NOT_FINITE if self.guard.found else UNSAVED
        why = BY_SIGNAL if process.asked_to_stop() or self.step >= self.stop_after else NO_STOP
        now = time.monotonic()
        if self.runtime.main and (why or now - self.polled > 1):
            self.polled = now
            if os.path.exists(self.run.stop):  # False, too, where a server does not answer
                return BY_REQUEST
        if why or self.saver.due(self.config.save_every):
            return why or SAVE
        return CHECK if self.guard.far and not self.guard.suspects else NO_STOP

    def vouch(self):
        """Before anything is written of the steps taken: that a device found nothing wrong with the last."""
        if self.guard.on_device:
            with self.runtime.waiting():
                self.guard.read()
            if self.runtime.agree(bool(self.guard.found)):
                self.guard.refuse(self)

    def forget(self):
        """Drop what steps left behind that are not in a checkpoint, before one is restored."""
        self.optimizer.zero_grad()
        self.pending_metrics.clear()
        self.pending_bytes = 0
        self.guard.forget()

    # logging ------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> float:
        return self.step / self.epoch_steps

    @property
    def samples(self) -> int:
        """Trained on so far, by all ranks."""
        return self.task.samples_done(self.config, self.packed.sizes, self.step)

    def zeros(self) -> list[float]:
        return [0.0] * self.batches.sums

    def restart_clock(self):
        self.clock, self.clocked_from = time.perf_counter(), self.samples
        self.waited_before = self.spent.seconds["input"]
        if self.runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def sum_pending(self):
        """Add the pending metrics to the window. Waits for the device."""
        if self.pending_metrics:
            before = self.spent.cause
            self.spent.switch("compute")
            with self.runtime.waiting():
                self.batches.add(self.window, self.pending_metrics)
            self.pending_metrics.clear()
            self.pending_bytes = 0
            self.spent.switch(before)

    def log(self):
        """Record the window of steps since the last record. Failure 70 if its loss is not finite."""
        self.vouch()
        self.sum_pending()  # waits for the device: the clock below is true
        self.epoch_sums = [a + b for a, b in zip(self.epoch_sums, self.window)]
        sums = self.summed(self.window)
        self.window = self.zeros()
        self.refuse_unless_finite(sums)
        if not sums[-1]:  # of steps that were all left out
            return
        elapsed = time.perf_counter() - self.clock
        values = self.batches.metrics(sums)
        if self.runtime.accelerator.scaler:
            values["skipped"] = self.skipped
        values |= {
            "lr": learning_rate(self.config, self.step - 1, self.epoch_steps, self.total),
            "samples_per_s": (self.samples - self.clocked_from) / elapsed,
            "data_wait_share": (self.spent.seconds["input"] - self.waited_before) / elapsed,
            "peak_memory_mb": lines.peak_memory_mb(self.runtime.device),
        }
        self.record("train", values)
        self.restart_clock()

    def log_epoch(self):
        """Record the epoch's mean, over the windows in it."""
        sums = self.summed(self.epoch_sums)
        self.epoch_sums = self.zeros()
        if not sums[-1]:
            return
        self.record("train", {f"epoch_{name}": value for name, value in self.batches.metrics(sums).items()})

    def summed(self, values: list[float]) -> list[float]:
        """The sum over ranks."""
        self.spent.switch("communication")
        sums = self.runtime.sum(values)
        self.spent.switch("other")
        return sums

    def record(self, split: str, values: dict):
        if self.metrics:
            position = {"step": self.step, "samples": self.samples, "epoch": self.epoch, "split": split}
            self.metrics.log(position | values, lines.time_left(self))
            scored = self.packed.eval_split if split == "val" else split  # which may be test
            self.say(lines.record_line(self, scored, values))

    def refuse_unless_finite(self, sums, where: str = ""):
        if not all(map(math.isfinite, sums)):
            what = f"the loss{where} is not finite after step {self.step}"
            raise Failure(DIVERGED, what, "lower --lr, or set --clip")

    def say(self, text: str):
        if self.runtime.main:
            tell(fitted(text), write=tqdm.write)

    # evaluating and saving ----------------------------------------------------------------------------------

    @property
    def ends(self) -> bool:
        return self.step == self.total or patience_spent(self.config, self.since_best)

    def owes_evaluation(self) -> bool:
        at = due(self.step, self.epoch_steps * self.config.eval_every, self.total)
        return self.step > 0 and at and self.evaluated != self.step

    def evaluate(self):
        """Score the evaluation split and remember the best. A stop in between leaves it owed."""
        self.spent.switch("compute")
        self.runtime.wait_for_device()
        self.spent.switch("evaluation")
        split, facts = self.packed.eval_split, self.task.facts
        if self.scorer is None:
            self.scorer = self.task.scorer(self.config, self.packed, split, self.runtime.device)
        rows = score_split(self.runtime, self.scorer, self.scored, stop=self.agree_to_stop)
        if rows is None:
            return
        values = self.runtime.broadcast(self.task.summarise(rows) if self.runtime.main else None)
        self.refuse_unless_finite(values.values(), f" on {split}")
        self.evaluated = self.step
        metric, better = facts.best
        value, sign = values[metric], 1 if better == "max" else -1
        if self.best is None or sign * value > sign * self.best["value"]:
            self.best, self.since_best = {"step": self.step, "metric": metric, "value": value}, 0
        else:
            self.since_best += 1
        self.record("val", values)
        if self.metrics:
            self.metrics.show(self.step, self.task.show(self.config, self.scored, self.packed))
        self.restart_clock()

    def save(self):
        """Begin to commit a checkpoint of this step; at the run's end, until it is committed."""
        self.vouch()
        self.sum_pending()
        self.spent.account(self)
        self.saver.save(self, last=bool(self.stop) or self.ends)
