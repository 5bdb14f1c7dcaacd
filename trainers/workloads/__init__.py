"""What can be trained: one file here per workload, whose name is the registry.

A workload file defines `WORKLOAD = Workload(...)`. It imports torch only inside functions, so that the
command line can read defaults and help without it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import USAGE, Failure

if TYPE_CHECKING:
    from relaunch.trainers.tasks.task import Task


def setting(default, help: str, short: str | None = None, **facts):
    """A dataclass field with its line of documentation, which is also its `--help`.

    `least`: the smallest value that it takes. `before`: its value in runs that were written before there was
    this field, where that is not the default. `alias`: another spelling of its flag.
    """
    return field(default=default, metadata={"help": help, "short": short, **facts})


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Dataset + model + loss + scored rows + defaults."""

    name: str
    about: str  # first line: one sentence for the list of workloads
    task: Task  # how batches, loss, metrics and scored rows come from data
    data: str  # name of its packed data set
    archs: tuple[str, ...]  # the first is the default
    options: type  # frozen dataclass of the workload's own settings
    model: Callable  # (RunConfig, Sizes) -> nn.Module
    defaults: dict = field(default_factory=dict)  # over RunConfig's and options' own
    presets: dict[str, dict] = field(default_factory=dict)


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def nearest(word: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, 1)), None)


@cache
def load(name: str) -> Workload:
    """The workload of that name. Failure 64 names the nearest one."""
    if name not in names():
        near = nearest(name, names())
        raise Failure(
            USAGE,
            f"unknown workload {name!r}",
            f"did you mean {near}?" if near else f"known: {', '.join(names())}",
        )
    return importlib.import_module(f"{__name__}.{name}").WORKLOAD
