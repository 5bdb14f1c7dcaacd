"""When a drill kills what: drawn before anything starts, from words that its page states. Pure.

draw("drill-mnist, seed 1", kills=5, total=60, world=2)    # five Moments, in the order of their steps
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

LAUNCHER, FIRST, OTHER, STEP, TREE = "launcher", "rank 0", "another rank", "step", "all"
HERE, IN_JOBS = (LAUNCHER, FIRST, OTHER, TREE), (FIRST, STEP, TREE)  # what can be killed
ENDS_SAVES = (FIRST, STEP, TREE)  # whose death cuts off a save: rank 0 writes
AIMED = 3  # one kill in so many is aimed at a save


@dataclass(frozen=True)
class Moment:
    """One kill: not before `step`, a position between two steps; `aimed`: and not before a save is made."""

    step: float
    victim: str
    aimed: bool
    share: float  # 0..1: of the time that a save takes; of the ranks, which one is another


def draw(words: str, kills: int, total: int, kinds: Sequence[str]) -> list[Moment]:
    """A moment in each of as many equal parts of the training's steps: each is reached, whatever was lost.

    Each kind of victim is drawn once before one is drawn again. The same words draw the same.
    """
    chance = random.Random(words)
    victims: list[str] = []
    while len(victims) < kills:
        victims += chance.sample([*kinds], len(kinds))
    del victims[kills:]
    able = [i for i, victim in enumerate(victims) if victim in ENDS_SAVES]
    aimed = chance.sample(able, min(len(able), max(1, kills // AIMED)))
    part = (total - 1) / kills  # the last step leaves no time
    return [
        Moment(part * (i + chance.random()), victim, i in aimed, chance.random())
        for i, victim in enumerate(victims)
    ]
