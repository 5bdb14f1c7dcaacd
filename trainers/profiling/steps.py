"""The steps of a training that are to be profiled: `--profile-steps A:B`. Never imports torch.

steps.window("100:110")    # (100, 110)
"""

from __future__ import annotations

import re

from relaunch.data_prep.errors import USAGE, Failure

LARGEST = 200  # steps: each is some hundred events, which lie in memory until the last


def window(text: str, trains: bool = True) -> tuple[int, int]:
    """(A, B) of `--profile-steps A:B`: the steps after A, up to B. Failure 64 for what is none."""
    if not trains:
        raise Failure(USAGE, "--profile-steps goes with training", "leave it out")
    found = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    if not found:
        what = f"--profile-steps {text!r} is no window of steps"
        raise Failure(USAGE, what, "type the steps that it lies between: --profile-steps 100:110")
    first, last = map(int, found.groups())
    if last <= first:
        raise Failure(USAGE, f"--profile-steps {text} holds no step", f"try {first}:{first + 10}")
    if last - first > LARGEST:
        what = (
            f"--profile-steps {text} holds {last - first:,} steps, and the most is {LARGEST}: their events "
        )
        raise Failure(USAGE, f"{what}lie in memory", f"try {first}:{first + 10}")
    return first, last


def check(text: str | None, total: int) -> None:
    """Failure 64 unless a training of so many steps has the window."""
    if text and window(text)[1] > total:
        what = f"--profile-steps {text} lies beyond the {total:,} steps of this training"
        first = max(0, min(total // 2, total - 10))
        raise Failure(USAGE, what, f"try {first}:{min(total, first + 10)}")
