"""Progress of long work: a bar with ETA on a terminal, one plain line every ten seconds in a log."""

import sys
import time
from typing import Any


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
        self.done += count
        if self.bar:
            self.bar.update(count)
        elif self.show and time.monotonic() - self.last > 10:
            self.last = time.monotonic()
            of = f" of {self.total:,}" if self.total else ""
            print(f"{self.what}: {self.done:,}{of} {self.unit}", file=sys.stderr, flush=True)

    def __exit__(self, *error):
        if self.bar:
            self.bar.close()
