"""Means of repeats, their spread, and what of a difference is more than it.

spread.ratio(spread.of([10.0, 10.4]), spread.of([5.1, 5.0]))    # (2.02, 0.05): times, and its spread
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

# Student's t: how many standard errors hold 95 of 100 differences of nothing, by degrees of freedom
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23}
T95 |= {12: 2.18, 15: 2.13, 20: 2.09, 30: 2.04, 60: 2.00}


@dataclass(frozen=True)
class Spread:
    """Repeats of one measurement. `sd` is their standard deviation, None for a single one."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def to_json(self) -> dict:
        return {"mean": self.mean, "sd": self.sd, "values": list(self.values)}


def of(values) -> Spread | None:
    """The repeats that there are; None if one is missing."""
    values = tuple(values)
    return Spread(values) if values and None not in values else None


def ratio(one: Spread, other: Spread) -> tuple[float, float | None]:
    """one / other, and the spread of that: relative spreads add up as squares. Both means are positive."""
    times = one.mean / other.mean
    if one.sd is None or other.sd is None:
        return times, None
    return times, times * math.hypot(one.sd / one.mean, other.sd / other.mean)


BEYOND, WITHIN, OPEN, UNKNOWN = "beyond", "within", "open", "unknown"


def differ(one: Spread | None, other: Spread | None) -> str:
    """What the repeats say of the difference of two means.

    BEYOND: more than they explain (Welch's t, 95 %). WITHIN: no more than one repeat and another may differ.
    OPEN: between the two, so that more repeats would tell. UNKNOWN: there is but one.
    """
    if one is None or other is None or one.sd is None or other.sd is None:
        return UNKNOWN
    a, b = one.sd**2 / len(one.values), other.sd**2 / len(other.values)
    gap = abs(one.mean - other.mean)
    if a + b == 0:
        return BEYOND if gap else WITHIN
    freedom = (a + b) ** 2 / (a**2 / (len(one.values) - 1) + b**2 / (len(other.values) - 1))
    if gap > T95[max((n for n in T95 if n <= freedom + 1e-9), default=1)] * math.sqrt(a + b):
        return BEYOND
    return WITHIN if gap <= math.hypot(one.sd, other.sd) else OPEN
