"""--compile auto: whether torch.compile repays itself within a training, measured before its first step.

    config, said = compiling.chosen(config, runtime, packed, batches, model, run, total)    # with its compile

A compiled step has other bits than one that is not: what was chosen stands in config.json, and a resume keeps
it. What is measured is thrown away, as for --time.
"""

from __future__ import annotations

import copy
import dataclasses

from relaunch.trainers.config import RunConfig
from relaunch.trainers.length import WARM_UP, figure, step_of, steps_of, trial_of
from relaunch.trainers.rundir import RunDir

LONGEST = 2.0  # seconds that the steps measured take at least
GAIN = 0.95  # of the time, which a compiled training must stay below: measured times scatter
SHORT = 20.0  # seconds: what is trained in less is over before anything is compiled


def chosen(
    config: RunConfig, runtime, packed, batches, model, run: RunDir, total: int
) -> tuple[RunConfig, str]:
    """The config with --compile on or off, the same on all ranks; and a line of it. `model` stays as it is.

    `total`: steps of the training. Failure 75 after a stop signal: the run is not begun yet.
    """

    def costs(how: str) -> tuple[float, float]:
        """Seconds of the first steps, and of each one after them."""
        with runtime.trial():
            asked = dataclasses.replace(config, compile=how)
            training = trial_of(asked, runtime, packed, batches, copy.deepcopy(model), run)
            return steps_of(training, WARM_UP), step_of(training, LONGEST)

    _, plain = costs("off")
    said = f"--compile auto: {figure(1000 * plain)} ms a step as it is"
    if plain * total < SHORT:
        return dataclasses.replace(config, compile="off"), f"{said}, {total:,} of them: not compiled"
    first, step = costs("on")
    repays = first + step * total < GAIN * plain * total
    said += f", {figure(1000 * step)} ms compiled, which takes {figure(first)} s once; {total:,} steps: "
    return dataclasses.replace(config, compile="on" if repays else "off"), said + (
        "compiled" if repays else f"not compiled (it would have to save {1 - GAIN:.0%})"
    )
