"""Every hook of a workload of one's own, called once before the run is written: a mistake costs seconds.

try_out(config, packed, batches, model, device)
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import traceback
from pathlib import Path

import torch
from torch import nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.evaluate import is_output
from relaunch.trainers.group.process import fits
from relaunch.trainers.tasks.task import Batches
from relaunch.trainers.workloads import own
from relaunch.trainers.workloads.own.code import below

ROWS = 8  # scored; the whole of an evaluation batch would say no more


def try_out(
    config: RunConfig, packed: Packed, batches: Batches, model: nn.Module, device: torch.device
) -> None:
    """A step and an evaluation in little, on a copy of the model. Failure 64 for what is wrong in them."""
    work = workloads.load(config.workload)
    refuse_strays(work)
    try:
        with own.blamed(), fits("lower --batch-size"), torch.random.fork_rng():
            tried = copy.deepcopy(model).to(device)
            if said := step(config, batches, tried.train()) or score(config, packed, tried.eval(), device):
                raise Failure(USAGE, own.place(work, "task") + said[0], said[1])
    except Failure:
        raise
    except Exception as error:  # what a hook gave back does not fit: all else here is what ours run on
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"what its hooks give does not fit ({type(error).__name__}: {error}"
        where = f"in {Path(last.filename).name}, line {last.lineno})"
        raise Failure(USAGE, f"{own.place(work, 'task')}{what}, {where}", "see docs/own-model.md") from error


def step(config: RunConfig, batches: Batches, model: nn.Module) -> tuple[str, str] | None:
    """What is wrong with a training step, and its fix."""
    loss, seen = batches.loss(model, batches.batch(0, 0))
    if loss.ndim or not loss.is_floating_point():
        what = f"the loss of a micro-batch is {list(loss.shape)} {loss.dtype}, not one number"
        return what, "end it with .mean()"
    if not loss.requires_grad:
        return "the loss does not depend on the model's parameters", "compute it from the model's outputs"
    loss.backward()
    sums = [0.0] * batches.sums
    batches.add(sums, [seen])
    batches.metrics(sums)
    return None


def score(
    config: RunConfig, packed: Packed, model: nn.Module, device: torch.device
) -> tuple[str, str] | None:
    """What is wrong with scored rows, and its fix."""
    task = workloads.load(config.workload).task
    few = dataclasses.replace(config, eval_batch_size=min(ROWS, config.eval_batch_size))
    with torch.no_grad():
        rows = task.scorer(few, packed, packed.eval_split, device).score(model, 0)
    rows = {name: column for name, column in rows.items() if not is_output(name)}
    wanted = {"id", *task.facts.columns}
    if rows.keys() != wanted:
        what = f"scored rows hold {', '.join(sorted(rows))}, and facts.columns {', '.join(sorted(wanted))}"
        return what, "make columns() return what facts names"
    if task.facts.best[0] not in (found := task.summarise(rows)):
        what = f"summarise() gives {', '.join(found)}, and facts.best is {task.facts.best[0]}"
        return what, "name one of those in facts.best"
    if odd := [name for name, value in found.items() if not isinstance(value, (int, float))]:
        return f"summarise() gives {odd[0]} as {type(found[odd[0]]).__name__}", "make it a float"
    return None


def refuse_strays(work: workloads.Workload) -> None:
    """Failure 64 for a loaded module of the code's folder that no import statement of it names."""
    code = work.code
    if code is None or ":" in code.entry:
        return
    for name, module in list(sys.modules.items()):
        path = below(code.folder.resolve(), name, module)
        if path and path not in code.contents:
            what = f"{code.folder / path} is imported in a way that the run does not see, and would not keep"
            raise Failure(USAGE, what, "import it by an import statement")
