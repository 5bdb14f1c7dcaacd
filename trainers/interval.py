"""--save-every as a time: said, or found by what a save costs.

between_saves("5m", cost=0.02)    # 300.0
"""

from __future__ import annotations

import math
import re

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.flags import seconds

FAILURES = "24h"  # from one failure to the next: of auto, where nothing else is said
EVERY = (
    "steps between checkpoints, beside those at each epoch's end; or a time, as 5m; or auto: the time "
    f"that loses least, by what a save costs and one failure in {FAILURES} (auto:12h: in 12 hours); or "
    "continuous: each save begins when the one before has ended"
)


def steps_or(text: str) -> int | str:
    """What is typed: a number of steps, or else the text as it is."""
    return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else text


def failures(every: int | str) -> str | None:
    """The time from one failure to the next that `auto` is for; None for what is not `auto`."""
    name, colon, between = str(every).partition(":")
    return (between if colon else FAILURES) if name == "auto" else None


def between_saves(every: int | str, cost: float) -> float | None:
    """Seconds from the beginning of one save to that of the next; None where steps are counted.

    `cost`: seconds that the training stands still for one. `auto` is where what the saves cost and what
    failures lose are least together, sqrt(2 x cost x time between failures) (Young, 1974). Failure 64 for
    what is no interval.
    """
    if isinstance(every, int):
        return None
    if every == "continuous":
        return 0.0
    between = failures(every)
    try:
        return float(seconds(every)) if between is None else math.sqrt(2 * cost * seconds(between))
    except Failure as failure:
        what = f"--save-every {every!r} is neither a number of steps nor a time"
        raise Failure(USAGE, what, "write 1000, 5m, auto, auto:12h or continuous") from failure
