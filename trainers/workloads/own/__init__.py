"""A workload of one's own, in one file anywhere or in an installed package: found, checked, and imported.

    load("./flowers.py")            # its WORKLOAD, registered under the workload's name
    load("flowerlib.work:ROSES")    # that name of an installed module

It is somebody's code: only what trains, scores, summarises, exports or generates imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers import workloads
from relaunch.trainers.group import process
from relaunch.trainers.workloads.own.blame import blame, blame_later, blamed
from relaunch.trainers.workloads.own.code import (
    FOLDER,
    Code,
    below,
    difference,
    find,
    folders,
    in_run,
    installed,
    is_code,
    is_own,
    of_run,
)

__all__ = [
    "blame",
    "blame_later",
    "blamed",
    "difference",
    "in_run",
    "installed",
    "is_code",
    "is_own",
    "load",
    "place",
    "take",
]


def load(word: str) -> workloads.Workload:
    """Import the workload that a word names, and register it. Failure 64 for every mistake in its files."""
    return take(find(word))


def take(code: Code) -> workloads.Workload:
    """The workload that this code defines; it is imported unless its files are loaded as they are."""
    for work in workloads.registered():
        if work.code and work.code.record() == code.record():
            return work
    forget()
    if code.folder.name == FOLDER and (code.folder.parent / "config.json").exists() and process.rank() == 0:
        tell(f"relaunch: running code of {code.main}", sys.stderr)
    # a file that is changed twice in a second may leave bytecode that is not its own; a run's is not ours
    sys.dont_write_bytecode = True
    if ":" not in code.entry or code.folder.name == FOLDER:
        folders.append(code.folder.resolve())
        sys.path.append(str(folders[-1]))
    with blamed(code), contextlib.redirect_stdout(sys.stderr):
        if ":" in code.entry:
            module, _, name = code.entry.partition(":")
            space = vars(importlib.import_module(module))
        else:
            name = "WORKLOAD"
            space = vars(execute(code))
    from relaunch.trainers.workloads.own.check import check

    with blamed(code):
        work = dataclasses.replace(check(space, name, code), code=code)
    workloads.register(work)
    return work


def config_of(values: dict, run: Path | None, execute: bool, where: str = "config.json"):
    """The RunConfig of a run or checkpoint. Of somebody's own workload the files are executed, or else its
    options are but the values that it was trained with, unchecked.
    """
    from relaunch.trainers.config import RunConfig

    recorded = values.get("code")
    known = any(work.code and work.code.record() == recorded for work in workloads.registered())
    if recorded and not known:
        if not execute:
            return unread(values)
        take(of_run(recorded, run))
    return RunConfig.from_json(values, where)


def same_code(values: dict, config) -> None:
    """Failure 64 unless a run's config.json is of the workload, and of the files, that `config` is of."""
    if values.get("workload") != config.workload:
        what = f"this run trains {values.get('workload')}, not {config.workload}"
        raise Failure(USAGE, what, "choose another --run")
    if changed := difference(values.get("code"), config.code):
        work = workloads.load(config.workload)
        path = work.code.folder / changed[0] if work.code else changed[0]
        raise Failure(
            USAGE, f"{path} {changed[1]} since this run began", "put it back as it was, or start a new --run"
        )


def unread(values: dict):
    """The config of a workload of somebody's own whose code is not to be executed: its values, unchecked."""
    from relaunch.trainers.config import RunConfig, completed

    config = object.__new__(RunConfig)
    options = types.SimpleNamespace(**values["options"])
    vars(config).update(completed(RunConfig, values) | {"options": options})
    return config


def execute(code: Code) -> types.ModuleType:
    """Run the very bytes that were read, as a module whose name nobody else has."""
    name = "relaunch_own_" + re.sub(r"\W", "_", code.main.stem)
    path = code.folder.resolve() / code.main.name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(code.contents[code.main.name], str(path), "exec"), vars(module))
    return module


def forget() -> None:
    """A process has one workload of one's own: the modules of an earlier one are not taken for this one's."""
    for name, module in list(sys.modules.items()):
        if any(below(folder, name, module) for folder in folders):
            del sys.modules[name]
    for folder in folders:
        sys.path.remove(str(folder))
    folders.clear()
    importlib.invalidate_caches()


def revive(code: Code, values: dict):
    """A config that came from another process, whose code came with it: it may lie on no disk of ours."""
    import atexit
    import tempfile

    from relaunch.trainers.config import RunConfig

    if not any(work.code and work.code.record() == code.record() for work in workloads.registered()):
        folder = tempfile.TemporaryDirectory(prefix="relaunch-code-")
        atexit.register(folder.cleanup)
        code = dataclasses.replace(code, folder=Path(folder.name, FOLDER))
        code.write(code.folder)
        take(code)
    return RunConfig.from_json(values)


def place(work: workloads.Workload, name: str = "model") -> str:
    """Where a part of a workload of one's own is defined, as the beginning of a line; empty for ours."""
    from relaunch.trainers.workloads.own.check import line_of

    return f"{work.code.main}, line {line_of(work.code, name)}: " if work.code else ""
