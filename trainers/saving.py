"""Checkpoints beside the training: copied at a step's boundary, checked and written by a thread of rank 0.

saver = Saver(runtime, run)
saver.save(training, last=False)    # on every rank
saver.settle()                      # until it is committed, or to hear why not

One is in flight: the next save waits for the one before. Its thread is given values and never the training,
which goes on meanwhile; what it meets is raised in the training's own thread. A process that ends at once (by
os._exit, or a signal) loses what is in flight, and no half of it has a checkpoint's name.
"""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Callable, Sequence

from relaunch.data_prep.errors import STORAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers import goodput, silent, snapshot
from relaunch.trainers.interval import between_saves, failures
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.kept import Kept

PAUSE = 60.0  # s after a full disk until --save-every TIME counts again: no alarm at each step


class Write:
    """A checkpoint on its way to the disk."""

    def __init__(self, step: int, commit: Callable[[], None]):
        self.step, self.commit = step, commit
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run, name=f"save step {step}")
        self.thread.start()

    def run(self) -> None:
        try:
            self.commit()
        except BaseException as error:  # raised in `end`
            self.error = error

    def end(self) -> None:
        """Wait for it, and raise what it met."""
        self.thread.join()
        if self.error:
            raise self.error


class Saver:
    """Of one training. On ranks other than 0 nothing is ever in flight."""

    def __init__(self, runtime, run):
        self.runtime, self.run = runtime, run
        self.kept: list[Kept] = []  # the model's state and the optimizer's, from the first save on
        self.write: Write | None = None  # in flight
        self.wanted = False  # by rank 0's clock; on all ranks
        self.began = time.monotonic()  # the last save, or the training: what --save-every TIME counts from
        self.cost = 0.0  # seconds that the training stood still for the last

    @property
    def failed(self) -> bool:
        """Whether the one in flight has met an error: the next boundary is to hear of it."""
        return self.write is not None and self.write.error is not None

    def due(self, every: int | str) -> bool:
        """Whether rank 0's clock says that it is time for another, where --save-every is a time."""
        if isinstance(every, int) or self.wanted or not self.runtime.main:
            return False
        if self.write and self.write.thread.is_alive():
            return False
        return time.monotonic() - self.began >= (between_saves(every, self.cost) or 0.0)

    def save(self, training, last: bool) -> None:
        """Begin to commit the training's state. A full disk costs this checkpoint and a line.

        `last`: it is the run's last one, waited for, and a full disk is Failure 73.
        """
        self.began, self.wanted = time.monotonic(), False
        found = self.runtime.gather(((training.window, training.epoch_sums), silent.digest(training)))
        open_sums, digests = zip(*found) if found else ((), ())

        def begin():
            self.end()
            silent.refuse_unless_equal(digests, self.runtime.peers.group.hosts, training.step)
            began = time.monotonic()
            for window, epoch_sums in open_sums:
                training.refuse_unless_finite(window + epoch_sums)
            try:
                self.write = Write(training.step, self.work(training, open_sums))
            except OSError as error:  # of the metrics: they come before their checkpoint
                self.unsaved(training.step, error, last)
            self.cost, before = time.monotonic() - began, self.cost
            if last:
                self.end(last)
            elif not before and (between := failures(training.config.save_every)):
                every = goodput.amount(between_saves(training.config.save_every, self.cost) or 0.0)
                cost = f"a save costs {1e3 * self.cost:,.0f} ms of training"
                training.say(f"--save-every auto: {cost}; with one failure in {between}, one each {every}")

        self.runtime.on_rank_0(begin)

    def work(self, training, open_sums: Sequence) -> Callable[[], None]:
        """What is to be done of this step's checkpoint when its state is copied, which it is here."""
        run, metrics, spent, step = training.run, training.metrics, training.spent, training.step
        logged = metrics.sealed()
        state = snapshot.take(training, list(open_sums))
        meta = copy.deepcopy(state.meta)  # the open sums go on
        parts = self.copied(state.model, state.optimizer)
        keep, protected = training.config.keep, frozenset(training.protected)
        record = spent.record(step, training.samples)

        def commit() -> None:
            began = time.perf_counter()
            metrics.to_disk()
            checkpoint.commit(run, parts, meta, keep, protected, logged)
            run.write_status("running", step=step)
            spent.keep(record, saved=True, took=time.perf_counter() - began)

        return commit

    def copied(self, *parts: dict) -> list[Kept]:
        """The tensors' values, in memory that stays: its pages cost four times the copy when they are new."""
        if not self.kept or not all(kept.fits(tensors) for kept, tensors in zip(self.kept, parts)):
            self.kept = []
            self.kept = [Kept(tensors, self.runtime.device.type == "cuda") for tensors in parts]
        for kept, tensors in zip(self.kept, parts):
            kept.copy(tensors)
        return self.kept

    def settle(self) -> None:
        """On every rank: wait for the one in flight; whatever it met is met by all."""
        self.runtime.on_rank_0(self.end)

    def end(self, last: bool = False) -> None:
        """Wait for the one in flight, and raise what it met, less a full disk's error."""
        write, self.write = self.write, None
        if write:
            try:
                write.end()
            except OSError as error:
                self.unsaved(write.step, error, last)

    def unsaved(self, step: int, error: OSError, last: bool) -> None:
        if last:
            what = f"the last checkpoint could not be written ({error})"
            raise Failure(STORAGE, what, "free some space and run it again with --resume auto")
        tell(f"relaunch: ALARM: no checkpoint of step {step} ({error}); training goes on", sys.stderr)
        self.run.write_status("running", step=step)  # with what is saved all the same
        self.began = time.monotonic() + PAUSE

    def drain(self) -> None:
        """As the training ends by an error of its own: wait for the one in flight; its error is a line."""
        step = self.write.step if self.write else 0
        try:
            self.end()
        except Exception as error:
            tell(f"relaunch: ALARM: no checkpoint of step {step} ({error})", sys.stderr)
