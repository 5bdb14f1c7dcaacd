"""Every hook of a workload of one's own, called once before the run is written: a mistake costs seconds.

try_out(config, packed, batches, model, device)
"""

from __future__ import annotations

import copy
import dataclasses
import sys

import torch
from torch import nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig
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
    tried = copy.deepcopy(model).to(device)
    with own.blamed(), fits("lower --batch-size"), torch.random.fork_rng():
        loss, seen = batches.loss(tried.train(), batches.batch(0, 0))
        if loss.ndim or not loss.is_floating_point():
            what = f"the loss of a micro-batch is {list(loss.shape)} {loss.dtype}, not one number"
            raise Failure(USAGE, f"{own.place(work)}{what}", "end it with .mean()")
        if not loss.requires_grad:
            what = "the loss does not depend on the model's parameters"
            raise Failure(USAGE, f"{own.place(work)}{what}", "compute it from the model's outputs")
        loss.backward()
        sums = [0.0] * batches.sums
        batches.add(sums, [seen])
        batches.metrics(sums)
        few = dataclasses.replace(config, eval_batch_size=min(ROWS, config.eval_batch_size))
        with torch.no_grad():
            rows = work.task.scorer(few, packed, packed.eval_split, device).score(tried.eval(), 0)
        rows.pop("outputs", None)
        wanted = {"id", *work.task.facts.columns}
        if rows.keys() != wanted:
            what = (
                f"scored rows hold {', '.join(sorted(rows))}, and facts.columns {', '.join(sorted(wanted))}"
            )
            raise Failure(USAGE, f"{own.place(work)}{what}", "make columns() return what facts names")
        best = work.task.facts.best[0]
        if best not in (found := work.task.summarise(rows)):
            what = f"summarise() gives {', '.join(found)}, and facts.best is {best}"
            raise Failure(USAGE, f"{own.place(work)}{what}", "name one of those in facts.best")


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
