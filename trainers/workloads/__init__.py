"""What can be trained: one file here per workload, whose name is the registry, or one of anybody's own.

A workload file defines `WORKLOAD = Workload(...)`. It imports torch only inside functions, so that the
command line can read defaults and help without it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import offered

if TYPE_CHECKING:
    from relaunch.trainers.tasks.task import Task
    from relaunch.trainers.workloads.own.code import Code


def setting(default, help: str, short: str | None = None, **facts):
    """A dataclass field with its line of documentation, which is also its `--help`.

    `least`: the smallest value that it takes. `before`: its value in runs that were written before there was
    this field, where that is not the default. `alias`: another spelling of its flag. `reads`: makes its value
    of a text, where its type does not.
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
    sides: dict[str, range] = field(default_factory=dict)  # of square images, for an arch that takes not all
    code: Code | None = None  # of a workload of one's own: its files, filled in when they are loaded

    @property
    def architectures(self) -> list[str]:
        """What --arch takes: its own, and those of the libraries whose models fit its task."""
        return [*self.archs, *(f"{library}:NAME" for library in self.task.libraries)]


_own: dict[str, Workload] = {}  # of one's own, by name, and where launch stands in for one, as typed


def register(work: Workload, *words: str) -> None:
    """Make a workload known under its name, and as these words name it."""
    _own.update(dict.fromkeys([work.name, *words], work))


def unregister(work: Workload) -> None:
    for word in [word for word, known in _own.items() if known is work]:
        del _own[word]


def registered() -> Iterable[Workload]:
    return _own.values()


def names() -> list[str]:
    """Of ours."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)


def load(name: str) -> Workload:
    """The workload of that name, or that FILE.py or module:NAME defines. Failure 64 names the nearest one."""
    if name in _own:
        return _own[name]
    if name in names():
        return _ours(name)
    from relaunch.trainers.workloads import own

    if own.is_code(name):
        return own.load(name)
    found = own.installed()
    if name in found:
        return own.load(found[name])
    if Path(f"{name}.py").is_file():
        raise Failure(USAGE, f"unknown workload {name!r}", f"did you mean ./{name}.py?")
    raise Failure(
        USAGE,
        f"unknown workload {name!r}",
        offered(name, sorted({*names(), *found, *(work.name for work in _own.values())})),
    )


def word(name: str) -> str:
    """How a command line names a known workload, so that another process finds it."""
    code = load(name).code
    return code.word if code else name


@cache
def _ours(name: str) -> Workload:
    return importlib.import_module(f"{__name__}.{name}").WORKLOAD
