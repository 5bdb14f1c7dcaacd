"""The training loop: step, log, evaluate, save."""

from __future__ import annotations

import contextlib
import math
import sys
import time

import torch
from tqdm import tqdm

from relaunch.data_prep.errors import DIVERGED, PREEMPTED, STOPPED, STORAGE, Failure
from relaunch.trainers import lines, snapshot
from relaunch.trainers.evaluate import score_split
from relaunch.trainers.group import process
from relaunch.trainers.group.faults import fault
from relaunch.trainers.schedule import due, learning_rate
from relaunch.trainers.tasks import order
from relaunch.trainers.weights import checkpoint

NO_STOP, BY_SIGNAL, BY_REQUEST = 0, 1, 2
PENDING = 128  # micro-batches whose metrics wait on the device, at most


class Training:
    """One run in this process: the model, its optimizer, its position, and what is done at each step."""

    def __init__(
        self, config, identity: dict, runtime, task, model, optimizer, run, metrics, stop_after: int | None
    ):
        """`identity` goes into each state.json as it is; `metrics` is None on all ranks but 0."""
        self.config, self.identity, self.runtime, self.task = config, identity, runtime, task
        self.run, self.metrics = run, metrics
        self.module = model
        self.model = runtime.wrap(model)
        self.optimizer = optimizer
        if runtime.accelerator.scaler:  # else accelerate's own is needed for nothing, and costs 120 us a step
            optimizer._step_supports_amp_scaling = False  # a fused one would skip in its kernel, unseen
            self.optimizer = runtime.accelerator.prepare(optimizer)
        self.stop_after = stop_after or math.inf
        self.total = total_steps(config, task.steps_per_epoch)
        self.step = self.skipped = self.evaluated = 0
        self.best: dict | None = None
        self.protected: set[int] = set()  # steps whose checkpoints stay
        self.window, self.epoch_sums = self.zeros(), self.zeros()  # of this rank
        self.pending_metrics: list = []  # not yet in the window: adding them up waits for the device
        self.stop = NO_STOP
        self.polled = 0.0
        on_cpu = runtime.device.type == "cpu"
        self.generator = (
            torch.default_generator if on_cpu else torch.cuda.default_generators[torch.cuda.current_device()]
        )
        self.bar = tqdm(disable=True)
        self.restart_clock()

    # the loop -----------------------------------------------------------------------------------------------

    def train(self) -> int:
        """Train to the end or to a stop; returns the exit code."""
        if not self.agree_to_stop() and self.owes_evaluation():
            self.evaluate()
            self.save()
        show_bar = self.runtime.main and sys.stderr.isatty()
        self.bar = tqdm(total=self.total, initial=self.step, unit="step", disable=not show_bar)
        while self.step < self.total and not self.stop:
            self.iterate()
        self.bar.close()
        return self.finish()

    def iterate(self):
        """One step, and what falls due after it."""
        c, epoch = self.config, self.task.steps_per_epoch
        self.advance()
        self.bar.update()
        self.agree_to_stop()
        if due(self.step, c.log_interval, self.total):
            self.log()
        elif len(self.pending_metrics) >= PENDING:
            self.sum_pending()
        if self.step % epoch == 0:
            self.log_epoch()
        if due(self.step, epoch * c.eval_every, self.total):
            self.evaluate()
        if self.stop or due(self.step, c.save_every, self.total) or self.step % epoch == 0:
            self.save()

    def advance(self):
        """One optimizer step over one global batch."""
        c, step, accelerator = self.config, self.step, self.runtime.accelerator
        rate = learning_rate(c, step, self.task.steps_per_epoch, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for micro in range(c.grad_accum_steps):
            started = time.perf_counter()
            batch = self.task.batch(step, micro)
            self.waited += time.perf_counter() - started
            self.generator.manual_seed(order.key("dropout", c.seed, step, micro, self.runtime.rank))
            last = micro == c.grad_accum_steps - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.model):
                loss, metrics = self.task.loss(self.model, batch)
                accelerator.backward(loss / c.grad_accum_steps if c.grad_accum_steps > 1 else loss)
            self.pending_metrics.append(metrics)
        if c.clip:
            accelerator.clip_grad_norm_(self.model.parameters(), c.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.skipped += self.runtime.precision == "fp16" and self.optimizer.step_was_skipped
        self.step += 1
        fault("step", self.step)

    # stopping -----------------------------------------------------------------------------------------------

    def agree_to_stop(self) -> int:
        """Why all ranks stop here, if any was asked to."""
        self.stop = self.stop or self.runtime.agree(self.asked())
        return self.stop

    def asked(self) -> int:
        """Why this rank would stop after the step just taken. The STOP file is looked for once a second."""
        why = BY_SIGNAL if process.asked_to_stop() or self.step >= self.stop_after else NO_STOP
        now = time.monotonic()
        if self.runtime.main and (why or now - self.polled > 1):
            self.polled = now
            if self.run.stop.exists():
                return BY_REQUEST
        return why

    def finish(self) -> int:
        """Write down how it ended, and say so; returns the exit code."""
        code, state, why = self.outcome()
        if self.runtime.main:
            self.run.write_status(state, code, self.step, why)
        self.say(lines.last_line(self, why))
        return code

    def outcome(self) -> tuple[int, str, str]:
        """(exit code, state of status.json, reason)."""
        if self.step == self.total and not self.owes_evaluation():
            return 0, "done", "trained to the end"
        saved = "and saved" if self.step else "before the first step: nothing to save"
        if self.stop == BY_REQUEST:
            return STOPPED, "stopped", f"stopped by the STOP file, {saved}"
        if number := process.asked_to_stop():
            by = number.name
        else:
            by = "--stop-after" if self.step >= self.stop_after else "a signal to another process"
        return PREEMPTED, "preempted", f"stopped by {by}, {saved}"

    # logging ------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> float:
        return self.step / self.task.steps_per_epoch

    def zeros(self) -> list[float]:
        return [0.0] * self.task.sums

    def restart_clock(self):
        self.clock, self.waited, self.clocked_from = time.perf_counter(), 0.0, self.step
        if self.runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def sum_pending(self):
        """Add the pending metrics to the window. Waits for the device."""
        if self.pending_metrics:
            self.task.add(self.window, self.pending_metrics)
            self.pending_metrics.clear()

    def log(self):
        """Record the window of steps since the last record. Failure 70 if its loss is not finite."""
        self.sum_pending()  # waits for the device: the clock below is true
        self.epoch_sums = [a + b for a, b in zip(self.epoch_sums, self.window)]
        sums = self.runtime.sum(self.window)
        self.window = self.zeros()
        self.refuse_unless_finite(sums)
        elapsed = time.perf_counter() - self.clock
        done = self.task.samples_done(self.step) - self.task.samples_done(self.clocked_from)
        values = self.task.metrics(sums)
        if self.runtime.accelerator.scaler:
            values["skipped"] = self.skipped
        values |= {
            "lr": learning_rate(self.config, self.step - 1, self.task.steps_per_epoch, self.total),
            "samples_per_s": done / elapsed,
            "data_wait_share": self.waited / elapsed,
            "peak_memory_mb": lines.peak_memory_mb(self.runtime.device),
        }
        self.record("train", values)
        self.restart_clock()

    def log_epoch(self):
        """Record the epoch's mean."""
        self.sum_pending()
        sums = self.runtime.sum([a + b for a, b in zip(self.epoch_sums, self.window)])
        # the window goes on into the next epoch and is added there whole
        self.epoch_sums = [-a for a in self.window]
        self.record("train", {f"epoch_{name}": value for name, value in self.task.metrics(sums).items()})

    def record(self, split: str, values: dict):
        if self.metrics:
            samples = self.task.samples_done(self.step)
            position = {"step": self.step, "samples": samples, "epoch": self.epoch, "split": split}
            self.metrics.log(position | values)
            self.say(lines.record_line(self, split, values))

    def refuse_unless_finite(self, sums, where: str = ""):
        if not all(map(math.isfinite, sums)):
            what = f"the loss{where} is not finite after step {self.step}"
            raise Failure(DIVERGED, what, "lower --lr, or set --clip")

    def say(self, text: str):
        if self.runtime.main:
            process.tell(text, write=tqdm.write)

    # evaluating and saving ----------------------------------------------------------------------------------

    def owes_evaluation(self) -> bool:
        at = due(self.step, self.task.steps_per_epoch * self.config.eval_every, self.total)
        return self.step > 0 and at and self.evaluated != self.step

    def evaluate(self):
        """Score the evaluation split and remember the best. A stop in between leaves it owed."""
        split = self.task.packed.eval_split
        rows = score_split(self.runtime, self.task, self.module, split, stop=self.agree_to_stop)
        if rows is None:
            return
        values = self.runtime.broadcast(self.task.summarise(rows) if self.runtime.main else None)
        self.refuse_unless_finite(values.values(), f" on {split}")
        self.evaluated = self.step
        metric = self.task.best
        value, sign = values[metric], 1 if metric == "top1" else -1
        if self.best is None or sign * value > sign * self.best["value"]:
            self.best = {"step": self.step, "metric": metric, "value": value}
        self.record("val", values)
        if self.metrics and self.task.packed.kind == "text":
            from relaunch.trainers.generate import sample_text

            text = sample_text(self.module, self.task.packed, 60, 0.8, self.config.seed, bptt=self.task.bptt)
            self.metrics.text("generated", self.step, text)
        self.restart_clock()

    def save(self):
        """Commit a checkpoint. A full disk costs this one and a line; at the run's end it is Failure 73."""
        self.sum_pending()
        open_sums = self.runtime.gather((self.window, self.epoch_sums))
        final = self.stop or self.step == self.total

        def write():
            for window, epoch_sums in open_sums:
                self.refuse_unless_finite(window + epoch_sums)
            try:
                self.metrics.sync()
                state = snapshot.take(self, open_sums)
                checkpoint.save(self.run, state, self.config.keep, self.protected)
                self.run.write_status("running", step=self.step)
            except OSError as error:
                if final:
                    what = f"the last checkpoint could not be written ({error})"
                    raise Failure(STORAGE, what, "free some space and run it again with --resume auto")
                alarm = f"no checkpoint of step {self.step} ({error}); training goes on"
                process.tell(f"relaunch: ALARM: {alarm}", sys.stderr)

        self.runtime.on_rank_0(write)


def total_steps(config, steps_per_epoch: int) -> int:
    return min(config.epochs * steps_per_epoch, config.max_steps or sys.maxsize)
