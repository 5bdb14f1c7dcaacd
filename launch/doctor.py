"""Is this machine fit for that config and workload? A line for each check, with its fix, then a rehearsal.

relaunch doctor cifar10 --config 8gpu --emulate
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

from relaunch.data_prep.errors import DATA, HARDWARE, STORAGE, Failure
from relaunch.data_prep.talk import give, tell
from relaunch.launch import (
    accelerate_config,
    command,
    draft,
    estimate,
    facts,
    machine,
    plan,
    platforms,
    preflight,
    rehearse,
    show,
)
from relaunch.launch.machine import Check, check
from relaunch.trainers import config
from relaunch.trainers.job import Job

HELP = """\
usage: relaunch doctor [WORKLOAD [its flags]] [--config NAME] [--emulate] [--num-processes N] …

Checks this machine against a config and a workload, then rehearses the start: the processes find each other,
take a step, save and load. Nothing is left behind. The exit code is 0, or that of the first failed check.

  relaunch doctor                                 this machine, and the config that fits it
  relaunch doctor cifar10 --config 8gpu           before the real start
  relaunch doctor cifar10 --config 8gpu --emulate eight processes on a machine without GPUs
"""


def attempt(name: str, look: Callable[[], str]) -> Check:
    """A check that looks at the machine itself: what it found, or the Failure that it raised."""
    try:
        return Check(name, look())
    except Failure as failure:
        return Check(name, "", failure)


def data(settings: config.RunConfig, root: str | None) -> str:
    from relaunch.data_prep import packed

    known = draft.data_of(settings, root)
    if known.sizes is None:
        return f"{known.name} will be packed at the start"
    try:
        packed.verify(packed.open_packed(settings.data, packed.data_root(root)))
    except PermissionError as error:
        raise Failure(
            DATA,
            f"{error.filename} belongs to somebody else and cannot be read",
            "ask its owner for read access",
        ) from error
    return f"{known.where}: {known.sizes.counts['train']:,} in train, hash verified"


def port(accelerate: accelerate_config.AccelerateConfig) -> str:
    if accelerate.machines == 1:
        return "a free one is chosen at the start"
    number = accelerate.port or 29500
    return f"{number} is free" if accelerate.machine_rank == 0 else f"{number} of the first machine"


def room(todo: plan.Plan, root: str | None) -> str:
    """Free space against the checkpoints that will be kept, and memory against the estimate."""
    size = draft.size_of(todo, root)
    if size is None:
        return estimate.say(None)
    copies = todo.config.keep + 2  # the best, and the one being written
    if todo.facts.free < size.checkpoint * copies:
        raise Failure(
            STORAGE,
            f"{copies} checkpoints of {size.checkpoint / 1e6:.0f} MB need more than the "
            f"{todo.facts.free / 1e6:.0f} MB that are free",
            "free some space, lower --keep, or choose another place with --run PATH",
        )
    if todo.accelerate.use_cpu and todo.facts.memory < size.memory * todo.local:
        raise Failure(
            HARDWARE,
            f"{todo.local} processes of about {size.memory / 1e9:.1f} GB need more than this machine's "
            f"{todo.facts.memory / 1e9:.1f} GB",
            "use fewer with --num-processes, or a smaller batch",
        )
    return estimate.say(size)


def rehearsal(todo: plan.Plan, job: Job | None, typed: dict, fits: bool, runs: Path) -> Check:
    if not fits:
        return Check("rehearsal", "skipped: correct the above first", skipped=True)
    if todo.accelerate.machines > 1:
        return Check(
            "rehearsal",
            "skipped: it takes all machines; --emulate rehearses their processes on this one",
            skipped=True,
        )
    planned = (todo.config, job) if todo.config else None
    done = rehearse.run(typed, todo.accelerate.processes, planned, runs)
    if why := done.failure:
        what = f"failed after {done.seconds:.0f} s: {why.what}"
        return Check("rehearsal", "", Failure(why.code, what, why.fix))
    device = "cpu" if todo.accelerate.use_cpu else "cuda"
    asked = (todo.accelerate.processes, device, show.precision(todo))
    got = (done.world, done.device, "fp32" if done.precision == "no" else done.precision)
    words = "{} x {} in {}".format
    return check(
        "rehearsal",
        f"{words(*got)} met, took 2 steps, saved and loaded between them, in {done.seconds:.0f} s",
        asked != got,
        HARDWARE,
        f"asked for {words(*asked)}, got {words(*got)}",
        "",
    )


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        give(HELP)
        return 0
    typed, rest = command.split(argv)
    if unused := platforms.left_out(os.environ, ["doctor", *argv], typed, facts.has_terminal()):
        tell(unused, sys.stderr)
    todo, job = draft.draft("train" if rest else "evaluate", typed, rest)
    place = Path(todo.place.run if todo.place else "runs/any").absolute()
    runs = next(p for p in place.parents if p.exists())
    results = []

    def report(result: Check):
        tell(result.lines())
        results.append(result)

    for result in machine.checks(todo, machine.installed()):
        report(result)
    if todo.config:
        todo = plan.with_smallest_micro_batches(todo) if todo.fits else todo
        report(attempt("data", lambda: data(todo.config, job.launch.data_root)))
        if not results[-1].failure:
            todo = dataclasses.replace(todo, data=draft.data_of(todo.config, job.launch.data_root))
            report(
                Check(
                    "steps",
                    f"{todo.epoch_steps:,} an epoch" if todo.epoch_steps else estimate.say(None),
                    preflight.fits(todo) or preflight.steps(todo),
                )
            )
            report(attempt("room", lambda: room(todo, job.launch.data_root)))
    report(Check("port", port(todo.accelerate), preflight.port(todo)))
    report(attempt("host name", lambda: machine.name_of(todo.facts.host)))
    report(attempt("run folder", lambda: machine.shared_disk(runs)))
    report(rehearsal(todo, job, typed, not any(r.failure for r in results), runs))
    return next((r.failure.code for r in results if r.failure), 0)
