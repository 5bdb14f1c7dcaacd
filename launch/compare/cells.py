"""The cells of a comparison: what each trains, for how long, and whether this machine can.

    cells.plan(given, words)    # a Plan: the cells of the grid, planned as `relaunch train` would plan them

A wrong key or value is found here, before anything starts. What this machine has not (a GPU, room for a
batch) is no mistake: that cell says why.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field

from relaunch.data_prep import packed, recipes
from relaunch.data_prep.errors import HARDWARE, USAGE, Failure
from relaunch.data_prep.names import offered
from relaunch.launch import command, draft, grid, preflight
from relaunch.launch.grid import Axis, Point
from relaunch.launch.plan import Plan as Start
from relaunch.trainers import config, workloads
from relaunch.trainers.bench.measure import Target
from relaunch.trainers.flags import Parser
from relaunch.trainers.job import Job, Launch

LONG = (
    "all cells are trained equally long: say --samples N, --epochs N or --until METRIC=VALUE for all of them"
)
NEVER = {
    "epochs": LONG,
    "max_steps": LONG,
    "time": LONG,
    "patience": LONG,
    "seed": "each of the --repeats has a seed of its own",
    "data": "what is scored on other data cannot be compared; compare the runs with --runs",
    "preset": "name the settings themselves",
}
WINDOWS = 20  # log windows of a run: the first is its warm-up, and one in twenty is little to leave out
UP = ("top", "acc", "f1", "auc", "r2", "bleu")  # how a metric's name begins that is better when it is higher


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: the words after `relaunch train` that train it, less its seed and its folder."""

    point: Point
    words: tuple[str, ...] = ()
    settings: config.RunConfig | None = None
    mark: str = ""  # of all that decides what is measured: equal marks are the same measurement
    samples: int = 0
    reason: str = ""  # why this machine cannot measure it
    code: int = 0  # that goes with it

    def named(self, seed: int) -> str:
        return f"{self.point.label[:80] or 'alone'}-{self.mark}-seed{seed}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells in the grid's order, the first of which is the baseline."""

    workload: str
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]  # one for each repeat
    rule: str
    unit: str
    equal: bool
    target: Target | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def grid(self) -> dict[str, list[str]]:
        return {axis.key: list(axis.values) for axis in self.axes}


def plan(given: argparse.Namespace, words: list[str], own: Parser) -> Plan:
    """Failure 64 for what is wrong with the command, 65 for its data."""
    typed, rest = command.split(words)
    job = command.job(rest, own)
    refuse(job, given)
    known = grid.known(job.config.workload)
    axes = grid.axes(given.grid, known, "--grid", NEVER)
    for axis in axes:
        if known[axis.key].dest in {*typed, *(job.given - job.preset)}:
            what = f"{axis.flag} is in the grid and beside it"
            raise Failure(USAGE, what, "say it in one place")
    target = until(given.until, job.config.workload)
    recipes.ensure(job.config.data, packed.data_root(job.launch.data_root))  # its size decides the steps
    drafted = [attempt(typed, [*rest], point, own) for point in grid.points(axes) or [Point("", {}, ())]]
    refuse_mistakes(axes, drafted)
    task = workloads.load(job.config.workload).task
    unit = task.facts.rows
    cells = [made(found, given, target, job) for found in drafted]
    counts = [cell.samples for cell in cells if cell.samples]
    equal = bool(
        given.samples or not job.config.max_steps or len(set(counts)) < 2
    )  # epochs are, but for rests
    seeds = tuple(job.config.seed + i for i in range(given.repeats))
    rule, notes = told(given, target, job, cells, unit, equal)
    return Plan(
        workload=job.config.workload,
        axes=axes,
        cells=tuple(cells),
        seeds=seeds,
        rule=rule,
        unit=unit,
        equal=equal,
        target=target,
        notes=notes,
    )


def refuse(job: Job, given: argparse.Namespace) -> None:
    launch, c = job.launch, job.config
    wrong = [("--run", launch.run), ("--resume", launch.resume), ("--stop-after", launch.stop_after)]
    wrong += [("--evaluate", launch.evaluate), ("--patience", c.patience), ("--time", c.time)]
    for flag, value in wrong:
        if value:
            fix = LONG if flag in ("--patience", "--time") else "each cell has runs of its own: leave it out"
            raise Failure(USAGE, f"{flag} does not go with a comparison", fix)
    if given.samples and {"epochs", "max_steps"} & (job.given - job.preset):
        raise Failure(USAGE, "--samples says how long each is trained", "leave --epochs and --max-steps out")
    if given.samples and given.until:
        raise Failure(
            USAGE, "--samples and --until both say how long", "with --until, --epochs is how far it may go"
        )


def until(text: str | None, workload: str) -> Target | None:
    """`top1=62` as a Target. Failure 64."""
    if text is None:
        return None
    metric, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not metric or not math.isfinite(number):
        raise Failure(USAGE, f"--until {text} is not METRIC=VALUE", "write --until top1=62, for example")
    work = workloads.load(workload)
    scores = work.task.scores
    if not work.code and metric not in scores:
        what = f"--until {text}: {workload} is not scored by {metric!r}"
        raise Failure(USAGE, what, offered(metric, scores))
    up = scores[metric] == "max" if metric in scores else metric.startswith(UP)
    return Target(metric, number, up)


# one cell ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drafted:
    """A point as it was planned, or the mistake in it."""

    point: Point
    words: tuple[str, ...] = ()
    start: Start | None = None
    job: Job | None = None
    failure: Failure | None = None
    against: tuple[Failure, ...] = ()  # what this machine has against it


def attempt(typed: dict, rest: list[str], point: Point, own: Parser) -> Drafted:
    launched, trains = command.split(list(point.words))
    typed, words = {**typed, **launched}, [*rest, *trains]
    try:
        start, job = draft.draft("train", typed, words)
        assert job and start.config, "it is to be trained"
        start = dataclasses.replace(start, data=draft.data_of(start.config, job.launch.data_root))
    except Failure as failure:
        return Drafted(point, failure=failure)
    flags = command.words({key: value for key, value in typed.items() if key != "dry_run"})
    return Drafted(point, (*words, *flags), start, job, against=tuple(preflight.problems(start)))


def refuse_mistakes(axes: tuple[Axis, ...], drafted: list[Drafted]) -> None:
    """Raise what is wrong with a value whatever the others are. Two that do not go together are a row."""
    if all(found.failure for found in drafted):
        raise drafted[0].failure or AssertionError
    for axis in axes:
        for value in axis.values:
            with_it = [found for found in drafted if found.point.settings[axis.key] == value]
            if all(found.failure for found in with_it):
                raise with_it[0].failure or AssertionError


def made(found: Drafted, given: argparse.Namespace, target: Target | None, job: Job) -> Cell:
    """The cell with the length of its training, and its mark."""
    failure = found.failure or next(iter(found.against), None)
    if failure and not fits(found):
        return Cell(point=found.point, reason=failure.what, code=failure.code)
    start, own = found.start, found.job
    assert start and start.config and own and start.data
    words, settings = list(found.words), start.config
    if given.samples:
        steps = nearest(start, given.samples)
        settings = dataclasses.replace(
            settings, max_steps=steps, epochs=-(-steps // (start.epoch_steps or steps))
        )
        words += ["--max-steps", str(steps), "--epochs", str(settings.epochs)]
    total = dataclasses.replace(start, config=settings).total_steps or 1
    changes: dict = {}
    typed = own.given - own.preset
    if "log_interval" not in typed:
        looked = (start.epoch_steps or total) * settings.eval_every if target else total  # it may end so soon
        changes["log_interval"] = min(100, max(1, min(looked, total) // WINDOWS))
        words += ["--log-interval", str(changes["log_interval"])]
    if "keep" not in typed:  # nobody goes back in such a run
        changes["keep"] = 1
        words += ["--keep", "1"]
    settings = dataclasses.replace(settings, **changes)
    return Cell(
        point=found.point,
        words=tuple(words),
        settings=settings,
        mark=mark(start, settings, own.launch, target),
        samples=samples_done(start, total),
        reason=failure.what if failure else "",
        code=failure.code if failure else 0,
    )


def fits(found: Drafted) -> bool:
    """Whether another machine can measure the cell, so that it can be said what that would be."""
    return bool(found.against) and all(failure.code == HARDWARE for failure in found.against)


def samples_done(start: Start, steps: int) -> int:
    """Samples of so many steps, over all processes."""
    assert start.config and start.data and start.data.sizes
    task = workloads.load(start.config.workload).task
    return task.samples_done(start.config, start.data.sizes, steps)


def nearest(start: Start, samples: int) -> int:
    """The number of steps that trains on about so many samples; at least one."""
    low, high = 0, 1
    while samples_done(start, high) < samples:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if samples_done(start, middle) >= samples else (middle, high)
    closer = abs(samples_done(start, low) - samples) < abs(samples_done(start, high) - samples)
    return max(1, low if closer else high)


def mark(start: Start, settings: config.RunConfig, launch: Launch, target: Target | None) -> str:
    """Eight characters of all that decides what is measured, but for the seed and the machine."""
    assert start.data
    trained = {n: value for n, value in chosen(settings).items() if n not in ("seed", "data", "time")}
    shape = start.accelerate
    runs = [shape.processes, shape.machines, shape.use_cpu, shape.precision, shape.gpu_ids, start.emulated]
    begun = [launch.weights, launch.init_head, launch.fork]
    begun += [launch.micro_batch] if launch.micro_batch else []
    text = json.dumps([trained, start.data.hash, runs, begun, target and str(target)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def chosen(settings: config.RunConfig) -> dict:
    """The settings that are not as before there was a choice: a new one makes no old cell another."""
    before = config.completed(config.RunConfig, {}) | config.completed(type(settings.options), {})
    values = settings.to_json()
    options = values.pop("options")
    return {n: value for n, value in (values | options).items() if n not in before or value != before[n]}


def told(given, target, job, cells, unit, equal) -> tuple[str, list[str]]:
    """How long each is trained, in words, and what there is to know of it."""
    counts = {cell.point.name: cell.samples for cell in cells if cell.samples}
    c, epochs = job.config, f"{job.config.epochs} epoch{'s' * (job.config.epochs > 1)}"
    length = f"{c.max_steps:,} steps" if c.max_steps else epochs
    notes: list[str] = []
    if target:
        return f"until {target} on the evaluation split, at most {length}", notes
    if given.samples:
        length = f"{given.samples:,} {unit}"
        off = [f"{name}: {n:,}" for name, n in counts.items() if n != given.samples]
        if off:
            notes.append(
                f"{given.samples:,} {unit} do not divide into whole steps everywhere: {', '.join(off)}."
            )
    elif len(set(counts.values())) > 1:
        notes.append(f"{unit} trained on: {', '.join(f'{name} {n:,}' for name, n in counts.items())}.")
    return f"{length} each", notes
