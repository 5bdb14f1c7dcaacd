"""The learning rate as a pure function of the step, the one predicate for "when", and where it ends."""

from __future__ import annotations

import math
import sys

from relaunch.trainers.config import RunConfig


def learning_rate(config: RunConfig, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """The rate of the optimizer step that comes after `step` attempted ones (step = 0 for the first).

    `one-cycle` is torch's OneCycleLR with its defaults (Smith & Topin, 2018): up over 30 % of the run from
    lr/25, then down to lr/250,000, both along a cosine. `step` multiplies by gamma every step_size epochs
    (StepLR). `cosine` and `linear` fall to 0 at the end.
    """
    rate = config.lr
    if config.schedule == "one-cycle":
        rate = one_cycle(config.lr, step, total_steps)
    elif config.schedule == "step":
        rate *= config.gamma ** (step // steps_per_epoch // config.step_size)
    elif config.schedule in ("cosine", "linear"):
        done = max(0.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
        rate *= 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return rate * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else rate


def one_cycle(
    peak: float, step: int, total: int, up: float = 0.3, div: float = 25.0, final_div: float = 1e4
) -> float:
    def along(start, end, share):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

    top = up * total - 1
    if step <= top:
        return along(peak / div, peak, step / top if top > 0 else 1.0)
    return along(peak, peak / div / final_div, (step - top) / max(total - 1 - top, 1e-9))


LINES = 4  # of the log in an epoch, at least, where nobody says how many steps lie between two


def due(step: int, every: int | str, total: int, within: int | None = None) -> bool:
    """Whether something that happens every `every` steps, and at the end, happens after `step` steps.

    Of `within` steps, as of an epoch, it counts anew, and happens at their end too. Where `every` is a time a
    clock says when: here, only at the end.
    """
    if isinstance(every, str):
        return step == total
    return step == total or (step % within if within else step) % every == 0


def log_interval(config: RunConfig, epoch_steps: int) -> int:
    """That of a new run, where none was asked for: the workload's, and less where an epoch is short."""
    return min(config.log_interval, math.ceil(epoch_steps / LINES))


def total_steps(config: RunConfig, steps_per_epoch: int) -> int:
    """Steps of the training. Without an end as long as those that --time holds are not measured."""
    if config.time and not config.max_steps:
        return sys.maxsize
    return min(config.epochs * steps_per_epoch, config.max_steps or sys.maxsize)


def patience_spent(config: RunConfig, since_best: int) -> bool:
    """Whether a training ends because the last `since_best` evaluations brought nothing better."""
    return config.patience is not None and since_best >= config.patience
