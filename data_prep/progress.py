"""Progress of long work: a bar on a terminal, a line every ten seconds in a log; and where Ctrl-C ends it."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relaunch.data_prep.talk import tell

_pressed: list[int] = []  # Ctrl-C inside `ctrl_c_between_batches`


@contextmanager
def ctrl_c_between_batches() -> Iterator[None]:
    """Ctrl-C in this block is a KeyboardInterrupt at the next `Progress.add`, or at the block's end.

    Anywhere else it would break off inside NumPy or a thread pool, which then hang or raise something else. A
    SIGINT that somebody handles in another way is left to them.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: _pressed.append(number))
    try:
        yield
        _stop_if_pressed()
    finally:
        signal.signal(signal.SIGINT, before)
        _pressed.clear()


def _stop_if_pressed() -> None:
    if _pressed:
        raise KeyboardInterrupt


class Progress:
    """`with Progress("cifar10: train", total, "images", show) as bar: bar.add(n)`."""

    def __init__(self, what: str, total: int | None, unit: str, show: bool):
        self.what, self.total, self.unit, self.show = what, total, unit, show
        self.done, self.last = 0, time.monotonic()
        self.bar: Any = None  # tqdm's, on a terminal

    def __enter__(self):
        if self.show and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(
                desc=self.what,
                total=self.total,
                unit=" " + self.unit,
                unit_scale=self.unit == "B",
                leave=False,
            )
        return self

    def add(self, count: int) -> None:
        _stop_if_pressed()
        self.done += count
        if self.bar is not None:  # without a total tqdm's has no truth value
            self.bar.update(count)
        elif self.show and time.monotonic() - self.last > 10:
            self.last = time.monotonic()
            of = f" of {self.total:,}" if self.total else ""
            tell(f"{self.what}: {self.done:,}{of} {self.unit}", sys.stderr)

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()
