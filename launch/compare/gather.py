"""A comparison of runs that are there: of a sweep, of another machine, of last week. Nothing is started.

    gather.compare(["first", "runs/sweep-lr0.1", "copied/gpu"])

The settings in which the runs differ are the grid's keys; runs that differ in the seed alone are repeats.
"""

from __future__ import annotations

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import command, listed
from relaunch.launch import runs as known
from relaunch.trainers import records, workloads
from relaunch.trainers.bench import measure
from relaunch.trainers.bench.comparison import MEASURED, WAITING, Cell, Comparison
from relaunch.trainers.bench.measure import Measure
from relaunch.trainers.rundir import RunDir

# of a run's config, what makes it no other training: how often it looks, and where its data lay
APART = ("workload", "data", "seed", "code", "save_every", "keep", "log_interval", "eval_every", "options")
PLANNED = ("config", "precision", "world", "device_name")  # of plan.json, what does


def compare(names: list[str]) -> Comparison:
    """Failure 64 where runs cannot be compared, 65 where one is not there."""
    found = [known.found(name) for name in dict.fromkeys(names)]
    if len(found) < 2:
        raise Failure(USAGE, f"{len(found)} run alone is no comparison", "name two or more with --runs")
    works = {run: str(records.config(run).get("workload")) for run in found}
    if len(set(works.values())) > 1:
        what = f"the runs are of several workloads: {listed(sorted(set(works.values())))}"
        raise Failure(USAGE, what, "compare those of one")
    for run in found:
        if not records.config(run):
            raise Failure(DATA, f"{run.config} cannot be read", "leave the run out")
    told = {run: settings(run) for run in found}
    every = {name: None for values in told.values() for name in values}
    keys = [name for name in every if len({values.get(name) for values in told.values()}) > 1]
    measures = {run: measure.of(run) for run in found}
    cells = [
        cell(dict(zip(keys, values)), [run for run in found if at(told[run], keys) == values], measures)
        for values in dict.fromkeys(at(told[run], keys) for run in found)
    ]
    done = [m for m in measures.values() if m]
    samples = sorted(m.samples for m in done)
    rests = max((m.samples / m.step * max(1.0, m.epochs) for m in done if m.step), default=0)
    equal = not samples or samples[-1] - samples[0] <= rests  # each epoch leaves out less than a step
    name = next(iter(works.values()))
    unit = workloads.load(name).task.facts.rows if name in workloads.names() else "samples"
    length = (
        f"{samples[0]:,}" + (f" to {samples[-1]:,}" if samples[0] != samples[-1] else "") if done else "no"
    )
    notes = [f"Made of {len(found)} runs that were there: {listed(str(run.path) for run in found)}."]
    if len({records.plan(run).get("data_hash") for run in found}) > 1:
        notes.append("They were trained on different data: what they score is of different samples.")
    return Comparison(
        workload=name,
        rule=f"{length} {unit} each",
        grid={key: list(dict.fromkeys(c.settings[key] for c in cells)) for key in keys},
        cells=cells,
        repeats=max(len(c.measures) for c in cells),
        unit=unit,
        equal=equal,
        notes=notes,
        command=command(["relaunch", "compare", "--runs", *names]),
    )


def settings(run: RunDir) -> dict[str, str]:
    """What was asked for and what it ran on, as words."""
    config, plan = records.config(run), records.plan(run)
    options = config.get("options")
    values = {name: value for name, value in config.items() if name not in APART}
    values |= options if isinstance(options, dict) else {}
    values |= {name: plan.get(name) for name in PLANNED}
    return {name: word(value) for name, value in values.items()}


def word(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def at(values: dict[str, str], keys: list[str]) -> tuple[str, ...]:
    return tuple(values.get(key, "None") for key in keys)


def cell(settings: dict[str, str], runs: list[RunDir], measures: dict[RunDir, Measure | None]) -> Cell:
    name = " ".join(f"{key}={value}" for key, value in settings.items()) or "all"
    done = [m for run in runs if (m := measures[run])]
    if done:
        return Cell(name, settings, MEASURED, "", done)
    status = records.status(runs[0])
    reason = f"{runs[0].path} is {status.get('state', 'unknown')}"
    why = f": {status['reason']}" if status.get("reason") else ""
    return Cell(name, settings, WAITING if status.get("state") != "failed" else "failed", reason + why)
