"""The training loop: step, log, evaluate, save; and everything between a step and its checkpoint."""

from __future__ import annotations

import contextlib
import math
import sys
import time

import torch
from tqdm import tqdm

from relaunch.data_prep.errors import DIVERGED, PREEMPTED, STOPPED, STORAGE, Failure
from relaunch.trainers.build import load_optimizer, load_weights, optimizer_state, weights_of
from relaunch.trainers.evaluate import score_split
from relaunch.trainers.group import process
from relaunch.trainers.group.faults import fault
from relaunch.trainers.schedule import due, learning_rate
from relaunch.trainers.tasks import order
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.checkpoint import State

NO_STOP, BY_SIGNAL, BY_REQUEST = 0, 1, 2


class Training:
    """One run in this process: the model, its optimizer, its position, and what happens at a step's boundary."""

    def __init__(
        self, config, identity: dict, runtime, task, model, optimizer, run, metrics, stop_after: int | None
    ):
        self.config, self.identity, self.runtime, self.task, self.run, self.metrics = (
            config,
            identity,
            runtime,
            task,
            run,
            metrics,
        )
        self.module = model
        self.model = runtime.accelerator.prepare(model)
        self.optimizer = optimizer
        if (
            runtime.accelerator.scaler
        ):  # accelerate's own optimizer is needed for nothing else, and costs 120 us a step
            optimizer._step_supports_amp_scaling = False  # a fused one would skip in its kernel, unseen
            self.optimizer = runtime.accelerator.prepare(optimizer)
        self.stop_after = stop_after or math.inf
        self.total = total_steps(config, task.steps_per_epoch)
        self.step = self.skipped = self.evaluated = 0
        self.best: dict | None = None
        self.protected: set[int] = set()
        self.window, self.epoch_sums = self.zeros(), self.zeros()  # of this rank
        self.pending_metrics: list = []  # micro-batches not yet in the window: adding them up waits for the device
        self.stop = NO_STOP
        self.polled = 0.0
        self.generator = (
            torch.default_generator
            if runtime.device.type == "cpu"
            else torch.cuda.default_generators[torch.cuda.current_device()]
        )
        self.bar = tqdm(disable=True)
        self.restart_clock()

    def zeros(self):
        return [0.0] * self.task.sums

    def restart_clock(self):
        self.clock, self.waited, self.clocked_from = time.perf_counter(), 0.0, self.step
        if self.runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    # one step ------------------------------------------------------------------------------------------------------

    def advance(self):
        """One optimizer step over one global batch."""
        c, step = self.config, self.step
        rate = learning_rate(c, step, self.task.steps_per_epoch, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for micro in range(c.grad_accum_steps):
            started = time.perf_counter()
            batch = self.task.batch(step, micro)
            self.waited += time.perf_counter() - started
            self.generator.manual_seed(order.key("dropout", c.seed, step, micro, self.runtime.rank))
            last = micro == c.grad_accum_steps - 1
            with contextlib.nullcontext() if last else self.runtime.accelerator.no_sync(self.model):
                loss, seen = self.task.loss(self.model, batch)
                self.runtime.accelerator.backward(
                    loss / c.grad_accum_steps if c.grad_accum_steps > 1 else loss
                )
            self.pending_metrics.append(seen)
        if c.clip:
            self.runtime.accelerator.clip_grad_norm_(self.model.parameters(), c.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.skipped += self.runtime.precision == "fp16" and self.optimizer.step_was_skipped
        self.step += 1
        fault("step", self.step)

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

    # what happens at a boundary ------------------------------------------------------------------------------------

    @property
    def epoch(self) -> float:
        return self.step / self.task.steps_per_epoch

    def add_up(self):
        if self.pending_metrics:
            self.task.add(self.window, self.pending_metrics)
            self.pending_metrics.clear()

    def log(self):
        """Record the window of steps since the last record. Failure 70 if its loss is not finite."""
        self.add_up()  # waits for the device: the clock below is true
        self.epoch_sums = [a + b for a, b in zip(self.epoch_sums, self.window)]
        sums = self.runtime.sum(self.window)
        self.window = self.zeros()
        self.refuse_unless_finite(sums)
        elapsed = time.perf_counter() - self.clock
        done = self.task.samples_done(self.step) - self.task.samples_done(self.clocked_from)
        skipped = {"skipped": self.skipped} if self.runtime.accelerator.scaler else {}
        self.record(
            "train",
            self.task.metrics(sums),
            skipped
            | {
                "lr": learning_rate(self.config, self.step - 1, self.task.steps_per_epoch, self.total),
                "samples_per_s": done / elapsed,
                "data_wait_share": self.waited / elapsed,
                "peak_memory_mb": peak_memory_mb(self.runtime.device),
            },
        )
        self.restart_clock()

    def refuse_unless_finite(self, sums, where: str = ""):
        if not all(map(math.isfinite, sums)):
            raise Failure(
                DIVERGED, f"the loss{where} is not finite after step {self.step}", "lower --lr, or set --clip"
            )

    def record(self, split: str, values: dict, extra: dict | None = None):
        if self.metrics:
            self.metrics.log(
                {
                    "step": self.step,
                    "samples": self.task.samples_done(self.step),
                    "epoch": self.epoch,
                    "split": split,
                    **values,
                    **(extra or {}),
                }
            )
            self.say(
                f"step {self.step}/{self.total}  epoch {self.epoch:.2f}  {split:5}  "
                + shown({**values, **(extra or {})})
            )

    def say(self, text: str):
        if self.runtime.main:
            process.tell(text, write=tqdm.write)

    def evaluate(self):
        """Score the evaluation split, and remember the best. A stop in between leaves it owed to the resumed run."""
        split = self.task.packed.eval_split
        rows = score_split(self.runtime, self.task, self.module, split, stop=self.agree_to_stop)
        if rows is None:
            return
        values = self.runtime.broadcast(self.task.summarise(rows) if self.runtime.main else None)
        self.refuse_unless_finite(values.values(), f" on {split}")
        self.evaluated = self.step
        value = values[self.task.best]
        if self.best is None or (
            value > self.best["value"] if self.task.best == "top1" else value < self.best["value"]
        ):
            self.best = {"step": self.step, "metric": self.task.best, "value": value}
        self.record("val", values)
        if self.metrics and self.task.packed.kind == "text":
            from relaunch.trainers.generate import sample_text

            text = sample_text(self.module, self.task.packed, 60, 0.8, self.config.seed, bptt=self.task.bptt)
            self.metrics.text("generated", self.step, text)
        self.restart_clock()

    def owes_evaluation(self) -> bool:
        at = due(self.step, self.task.steps_per_epoch * self.config.eval_every, self.total)
        return self.step > 0 and at and self.evaluated != self.step

    def save(self):
        """Commit a checkpoint. A full disk costs this one and a line; at the run's end it is Failure 73."""
        self.add_up()
        open_sums = self.runtime.gather((self.window, self.epoch_sums))
        final = self.stop or self.step == self.total

        def write():
            for window, epoch_sums in open_sums:
                self.refuse_unless_finite(window + epoch_sums)
            try:
                self.metrics.sync()
                checkpoint.save(
                    self.run,
                    State(
                        weights_of(self.module),
                        optimizer_state(self.optimizer, self.module),
                        self.meta(open_sums),
                    ),
                    self.config.keep,
                    self.protected,
                )
                self.run.write_status("running", step=self.step)
            except OSError as error:
                if final:
                    raise Failure(
                        STORAGE,
                        f"the last checkpoint could not be written ({error})",
                        "free some space and run it again with --resume auto",
                    ) from error
                process.tell(
                    f"relaunch: ALARM: no checkpoint of step {self.step} ({error}); training goes on",
                    sys.stderr,
                )

        self.runtime.on_rank_0(write)

    def meta(self, open_sums: list) -> dict:
        scaler = self.runtime.accelerator.scaler
        return {
            "step": self.step,
            "samples": self.task.samples_done(self.step),
            "skipped": self.skipped,
            "evaluated": self.evaluated,
            "best": self.best,
            "open_sums": open_sums,
            "scaler": scaler.state_dict() if scaler else None,
            "world": self.runtime.world,
            "threads": self.runtime.threads,
            "precision": self.runtime.precision,
            "global_batch": self.config.batch_size,
            "config": self.config.to_json(),
            **self.identity,
        }

    def warm_up(self):
        """Two passes that are thrown away. After a first one DDP regroups the gradients, and with three or more ranks that
        changes how they round: a resumed run must sum as the one that it continues did.
        """
        if self.runtime.world > 2:
            for _ in range(2):
                self.runtime.accelerator.backward(self.task.loss(self.model, self.task.batch(0, 0))[0])
            self.optimizer.zero_grad()

    def restore(self, state: State):
        """Take up a checkpoint's state, the same on every rank."""
        self.warm_up()
        meta = state.meta
        load_weights(self.module, state.model, "the checkpoint")
        load_optimizer(self.optimizer, self.module, state.optimizer)
        self.step, self.skipped, self.evaluated, self.best = (
            meta[k] for k in ("step", "skipped", "evaluated", "best")
        )
        self.protected = {self.step}
        if len(meta["open_sums"]) == self.runtime.world:
            mine = meta["open_sums"][self.runtime.rank]
        else:  # another world size: rank 0 takes what all had summed
            mine = [[sum(column) for column in zip(*(part[i] for part in meta["open_sums"]))] for i in (0, 1)]
            mine = mine if self.runtime.main else [self.zeros(), self.zeros()]
        self.window, self.epoch_sums = mine
        if self.runtime.accelerator.scaler and meta["scaler"]:
            self.runtime.accelerator.scaler.load_state_dict(meta["scaler"])
        self.restart_clock()

    # the loop ------------------------------------------------------------------------------------------------------

    def train(self) -> int:
        """Train to the end or to a stop; returns the exit code."""
        if not self.agree_to_stop() and self.owes_evaluation():
            self.evaluate()
            self.save()
        self.bar = tqdm(
            total=self.total,
            initial=self.step,
            unit="step",
            disable=not (self.runtime.main and sys.stderr.isatty()),
        )
        while self.step < self.total and not self.stop:
            self.turn()
        self.bar.close()
        return self.leave()

    def turn(self):
        """One step and what falls due after it."""
        c, spe = self.config, self.task.steps_per_epoch
        self.advance()
        self.bar.update()
        self.agree_to_stop()
        if due(self.step, c.log_interval, self.total):
            self.log()
        elif len(self.pending_metrics) >= 128:  # bounds what is kept on the device
            self.add_up()
        if self.step % spe == 0:
            self.end_epoch()
        if due(self.step, spe * c.eval_every, self.total):
            self.evaluate()
        if self.stop or due(self.step, c.save_every, self.total) or self.step % spe == 0:
            self.save()

    def end_epoch(self):
        """Record the epoch's mean."""
        self.add_up()
        sums = self.runtime.sum([a + b for a, b in zip(self.epoch_sums, self.window)])
        self.epoch_sums = [
            -a for a in self.window
        ]  # the window goes on into the next epoch and is added there whole
        self.record("train", {f"epoch_{name}": value for name, value in self.task.metrics(sums).items()})

    def leave(self) -> int:
        if self.step == self.total and not self.owes_evaluation():
            code, state, why = 0, "done", "trained to the end"
        elif self.stop == BY_REQUEST:
            code, state, why = STOPPED, "stopped", "stopped by the STOP file, and saved"
        else:
            number = process.asked_to_stop()
            by = (
                number.name
                if number
                else "--stop-after"
                if self.step >= self.stop_after
                else "a signal to another process"
            )
            code, state, why = PREEMPTED, "preempted", f"stopped by {by}, and saved"
        if self.step == 0 and code:
            why = why.replace("and saved", "before the first step: nothing to save")
        if self.runtime.main:
            self.run.write_status(state, code, self.step, why)
            if self.stop == BY_REQUEST:
                self.run.stop.unlink(missing_ok=True)
        best = (
            f"; best {self.best['metric']} {self.best['value']:.2f} at step {self.best['step']}"
            if self.best
            else ""
        )
        self.say(f"{self.run.path}: {why}, step {self.step}/{self.total}{best}")
        return code


def total_steps(config, steps_per_epoch: int) -> int:
    return min(config.epochs * steps_per_epoch, config.max_steps or sys.maxsize)


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory of this process: on the GPU since the last record, else resident over its life. In 10^6 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource

    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    )


UNITS = {"samples_per_s": " samples/s", "peak_memory_mb": " MB"}


def shown(values: dict) -> str:
    """`loss 1.2345  top1 56.1 %` for a line of the log."""
    parts = []
    for name, value in values.items():
        if name == "data_wait_share":
            parts.append(f"data wait {100 * value:.0f} %")
        elif name in ("samples_per_s", "peak_memory_mb"):
            parts.append(f"{value:,.0f}{UNITS[name]}")
        else:
            parts.append(
                f"{name} "
                + (f"{value:.4f}" if name.endswith(("loss", "nll")) else f"{value:.4g}")
                + (" %" if "top" in name else "")
            )
    return "  ".join(parts)
