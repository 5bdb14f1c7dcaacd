"""Trouble on purpose, for tests and drills: at a named place this process dies, stops, is slow, or fails.

    RELAUNCH_FAULT='step=10,rank=1,do=kill,once=died' relaunch train mnist --config cpu2
    RELAUNCH_FAULT='step=*,do=sleep:0.5;save,do=kill'      # slow, and killed before it commits a checkpoint

A fault is `PLACE[=N],[rank=R,]do=ACTION[,once=FILE]`; `;` joins several. The places:

    start       before torch is imported
    gradient    the gradients of step N are there (in a step that is computed twice: each time)
    weight      step N's update is taken
    step        N steps are done, and nothing yet of what follows them
    save        step N's checkpoint is written and not committed, beside the steps that follow
    evaluate    batch N of a split is scored next

ACTION is a signal's name, raise or sleep:SECONDS; and of a gradient's or weight's first number nan, and
flip:COUNT of its last bits.

Without N, or with *, it happens each time; with FILE until that file exists, which the first one makes.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from dataclasses import dataclass

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.talk import tell

SIGNALS = ("kill", "stop", "term", "int", "hup", "usr1", "usr2")
FORM = re.compile(
    r"(?P<place>start|gradient|weight|step|save|evaluate)(=(?P<at>\d+|\*))?(,rank=(?P<rank>\d+))?"
    rf",do=(?P<do>{'|'.join(SIGNALS)}|raise|nan|flip:\d+|sleep:\d+(\.\d+)?)(,once=(?P<once>.+))?"
)


@dataclass(frozen=True)
class Fault:
    """One part of RELAUNCH_FAULT, as written; None is what was left out."""

    place: str
    at: str | None
    rank: str | None
    do: str
    once: str | None

    def strike(self, at: int, module=None) -> None:
        if self.once:
            try:
                open(self.once, "x").close()
            except FileExistsError:
                return
        if self.do == "raise":
            raise RuntimeError(f"RELAUNCH_FAULT at {self.place} {at}")
        if module is not None and self.do.startswith(("nan", "flip:")):
            spoil(next(p if self.place == "weight" else p.grad for p in module.parameters()), self.do)
        elif self.do in SIGNALS:
            os.kill(os.getpid(), signal.Signals[f"SIG{self.do.upper()}"])
        else:
            time.sleep(float(self.do.removeprefix("sleep:")))


_armed: list[Fault] | None = None  # None costs a step nothing


def arm(text: str | None = None) -> None:
    """Take up the faults of RELAUNCH_FAULT, or `text`, that concern this rank, and say so. Failure 64."""
    global _armed
    text = os.environ.get("RELAUNCH_FAULT", "") if text is None else text
    mine = []
    for part in filter(None, text.split(";")):
        match = FORM.fullmatch(part)
        if not match:
            raise Failure(
                USAGE,
                f"RELAUNCH_FAULT: {part!r} is not understood",
                "write PLACE[=N],[rank=R,]do=ACTION[,once=FILE]; places: start, gradient, weight, "
                f"step, save, evaluate; actions: {', '.join(SIGNALS)}, raise, sleep:SECONDS, nan, flip:COUNT",
            )
        if match["rank"] in (None, os.environ.get("RANK", "0")):
            mine.append(Fault(**match.groupdict()))
            tell(f"relaunch: FAULT armed: {part}", sys.stderr)
    _armed = mine or None


def spoil(tensor, do: str) -> None:
    """Make the first number of a tensor NaN, or flip its last bits."""
    number = tensor.detach()[(0,) * tensor.dim()]
    if do == "nan":
        number.fill_(float("nan"))
    else:
        import torch

        number.view(torch.int32).bitwise_xor_((1 << int(do.removeprefix("flip:"))) - 1)


def fault(place: str, at: int = 0, module=None) -> None:
    """What a place calls: whatever is armed for it happens here, to the parameters of `module` if to any."""
    if _armed:
        for armed in _armed:
            if armed.place == place and armed.at in (None, "*", str(at)):
                armed.strike(at, module)
