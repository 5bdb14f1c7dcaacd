"""A few steps of a running training under the profiler: `relaunch train … --profile-steps 100:110`.

with profiled(training, "100:110"):
    training.train()    # trains the same bits, and leaves RUN/profile-100-110
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from relaunch.data_prep.talk import tell
from relaunch.trainers.profiling import page, results, steps
from relaunch.trainers.profiling.setting import versions, written
from relaunch.trainers.profiling.window import Took, Window, clocked, synchronize, wait

WARM_UP = 2  # steps of a start that are compared with nothing


@contextlib.contextmanager
def profiled(training, text: str | None) -> Iterator[None]:
    """Within it the training's steps of the window A:B are profiled, by rank 0; the others only train.

    If the training ends inside the window, what there is of it is written.
    """
    if not text or not training.runtime.main:
        yield
        return
    recorder = Recorder(training, *steps.window(text))
    if training.step >= recorder.last:
        training.say(f"--profile-steps {text}: this training goes on from step {training.step}, after them")
        yield
        return
    training.advance = recorder.advance
    try:
        yield
        if recorder.window:
            recorder.end()
    finally:
        del training.advance
        if recorder.window:  # after an error
            recorder.window.stop()


class Recorder:
    """Stands in for a training's `advance`."""

    def __init__(self, training, first: int, last: int):
        self.training, self.step = training, training.advance
        self.first, self.last = first, last
        self.plain: list[Took] = []  # of the steps right before the window
        self.settled = max(training.step + WARM_UP, first - (last - first))  # from here on steps are compared
        self.window: Window | None = None

    def advance(self) -> None:
        training, device = self.training, self.training.runtime.device
        if self.window is None and self.first <= training.step < self.last:
            wait(self.plain, device)
            self.window = Window(training)
            self.window.start()
        if self.window:
            self.window.advance(self.step)
            if training.step == self.last:
                self.end()
            return
        if training.step == self.settled:
            synchronize(device)
        took = clocked(self.step)
        if training.step > self.settled:
            self.plain.append(took)

    def end(self) -> None:
        """Write what was measured. A full disk costs the profile, and not the training."""
        training, window = self.training, self.window
        assert window
        window.stop()
        self.window = None
        if not window.took:
            return
        folder = training.run.path / f"profile-{self.first}-{self.last}"
        try:
            folder.mkdir(exist_ok=True)
            about = results.about(training.config, training.packed.name, versions())
            setting = written(window, self.plain, folder)
            found = results.put(folder, about, setting)
            results.write_page(folder, found)
        except OSError as error:
            told = f"relaunch: no profile of steps {self.first}:{self.last} ({error}); training goes on"
            tell(told, sys.stderr)
            return
        training.say("\n".join([*page.summary(setting, training.config.workload), results.told(folder)]))
