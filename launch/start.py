"""`relaunch train`, `evaluate` and `profile`: plan, check, start, stay to the end.

relaunch train cifar10 --config 8gpu --epochs 10 --dry-run
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.talk import give, tell
from relaunch.launch import command, draft, facts, plan, platforms, restart, show
from relaunch.trainers import PROGRAM, rundir
from relaunch.trainers.profiling import asked
from relaunch.trainers.rundir import RunDir


def main(verb: str, argv: list[str]) -> int:
    """Returns the exit code of the run. Failures of the command, the config or the hardware are raised."""
    typed, rest = command.split(argv)
    if verb == "evaluate" and {"-h", "--help"} & set(rest):
        give(command.help() + "\n")
        os.execv(sys.executable, [sys.executable, PROGRAM, "evaluate", "--help"])
    if verb == "profile" and (not rest or {"-h", "--help"} & set(rest)):
        give(f"{asked.HELP}\n\n{command.help()}")
        return 0 if rest else USAGE
    if unused := platforms.left_out(os.environ, [verb, *argv], typed, facts.has_terminal()):
        tell(unused, sys.stderr)
    todo, job = (draft.profiled(typed, rest), None) if verb == "profile" else draft.prepare(verb, typed, rest)
    if typed.get("dry_run"):
        give(show.table(todo))
        if todo.config and todo.data and todo.data.sizes:
            tell("relaunch: asking the model what it takes, which needs some seconds", sys.stderr)
        if todo.config:
            give(show.memory(draft.size_of(todo, job and job.launch.data_root)))
        return 0
    flags = shlex.join(command.words(typed))  # a run that stops says how to go on
    todo = dataclasses.replace(todo, variables=todo.variables | {"RELAUNCH_FLAGS": flags})
    made = None
    if todo.place and not job.launch.run and todo.accelerate.machine_rank == 0:
        # now, so that we know where to go on after a crash
        made = rundir.create(None, job.config.workload)
        todo = plan.with_run(todo, made.path)
    try:
        tell(show.line(todo))
        limit = restart.LIMIT if todo.accelerate.machines == 1 else 0
        run = RunDir(todo.place.run) if todo.place else None
        limit, hung = typed.get("max_restarts", limit), "restart_hung" in typed
        end = restart.run_with_restarts(todo, run, limit, hung)
    finally:
        if made and made.path.is_dir() and not any(made.path.iterdir()):
            made.path.rmdir()  # it did not get as far as a run
    if end.what:
        raise Failure(end.code, end.what, end.fix)
    return end.code
