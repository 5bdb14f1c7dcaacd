"""Runs as their folders tell of them, from anywhere that sees the folders: list them, show one, stop one.

relaunch runs
relaunch runs show NAME
relaunch stop NAME
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, STORAGE, USAGE, Failure
from relaunch.data_prep.names import command, printable, quoted
from relaunch.data_prep.names import table as aligned
from relaunch.data_prep.talk import give, tell
from relaunch.trainers import goodput, logged, origin, records, rundir
from relaunch.trainers.flags import Parser
from relaunch.trainers.rundir import RunDir


@dataclass(frozen=True)
class Summary:
    """One run: what it is, how far it is, how good, since when."""

    name: str
    state: str  # of status.json, or `crashed`: running says the file, and nobody is
    step: int
    total: int | None
    metric: str
    config: str
    seconds: float  # trained, in all its starts
    reason: str
    batch: int | None  # samples of a step
    speed: float | None  # samples/s, in the last lines of its log

    @property
    def came_to_nothing(self) -> bool:
        return self.state in ("failed", "crashed") or self.step == 0 and self.state != "running"


def summarise(run: RunDir) -> Summary:
    status, plan, last, speed = records.status(run), records.plan(run), {}, None
    for record in records.metrics(run):
        last[record["split"]] = record
        speed = record.get("samples_per_s", speed)
    state = status.get("state", "unknown")
    if state == "running" and run.held() is False and here(plan):
        state = "crashed"
    steps = (status.get("step"), records.newest(run), last.get("train", {}).get("step"))
    return Summary(
        run.path.name,
        state,
        max(step or 0 for step in steps),
        plan.get("total_steps"),
        best_metric(last.get("val", {})),
        plan.get("config") or f"{plan.get('world', '?')} x {plan.get('device', '?')}",
        records.seconds(run),
        status.get("reason", ""),
        records.config(run).get("batch_size"),
        speed if isinstance(speed, (int, float)) else None,
    )


def best_metric(record: dict) -> str:
    for name, shown in (("top1", "top1 {:.2f} %"), ("ppl", "ppl {:.1f}")):
        if isinstance(record.get(name), (int, float)):
            return shown.format(record[name])
    return ""


def here(plan: dict) -> bool:
    """Whether a run is this host's. A shared disk need not share locks."""
    return plan.get("host") in (None, socket.gethostname())


def duration(seconds: float) -> str:
    hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {int(seconds % 60):02} s"


def table(summaries: list[Summary]) -> str:
    rows = [("run", "state", "step", "metric", "batch", "samples/s", "time", "config")]
    rows += [
        (
            s.name,
            s.state,
            f"{s.step:,}" + (f"/{s.total:,}" if s.total else ""),
            s.metric,
            "" if s.batch is None else f"{s.batch:,}",
            "" if s.speed is None else f"{s.speed:,.0f}",
            duration(s.seconds),
            s.config,
        )
        for s in summaries
    ]
    return "\n".join(aligned(rows, left=len(rows[0])))


def show(run: RunDir) -> str:
    s, config, plan = summarise(run), records.config(run), records.plan(run)
    steps = [f"{records.step_of(path)}" for path in records.committed(run)]
    held = f", as many as --time {config['time']} held" if config.get("time") else ""
    precision = plan.get("precision", "no")
    ran_as = (
        f"{plan.get('world', '?')} x {plan.get('device', '?')} ({plan.get('device_name', '?')}) "
        f"on {plan.get('host', '?')}, config {s.config}, {'fp32' if precision == 'no' else precision}"
    )
    rows = [
        ("run", str(run.path)),
        ("state", s.state + (f": {s.reason}" if s.reason else "")),
        ("step", f"{s.step:,}" + (f" of {s.total:,}{held}" if s.total else "")),
        ("metric", s.metric or "none yet"),
        ("time", duration(s.seconds)),
        *goodput.rows(records.time_spent(run)),
        ("command", command(map(str, plan.get("command", ["?", "?"])[1:]))),
        ("ran as", ran_as),
        ("data", f"{plan.get('data', config.get('data', '?'))}, hash {plan.get('data_hash', '?')[:12]}"),
        ("checkpoints", f"{', '.join(steps) or 'none'} ({records.size(run.checkpoints) / 1e6:.1f} MB)"),
        ("predictions", ", ".join(p.name for p in records.predictions(run)) or "none"),
        ("curves", f"relaunch tensorboard {run.argument}"),
        *([("logs", f"{run.logs}, one for each rank")] if run.logs.is_dir() else []),
    ]
    if begun := origin.said(origin.of(run)):
        rows.insert(1, ("begun", begun.removeprefix("begun ")))
    if damaged := records.damaged(run):
        rows.append(("damaged", f"{', '.join(damaged)} cannot be read"))
    if changed := logged.changed(run):
        rows.append(("changed", changed))
    if s.state in ("preempted", "stopped", "crashed", "failed"):
        workload = quoted(str(config.get("workload")))
        rows.append(("go on", f"relaunch train {workload} --run {run.argument} --resume auto"))
    return "\n".join(f"{name:12}{printable(value)}" for name, value in rows)


def found(name: str) -> RunDir:
    """A run by its name or path. Its folder is enough, whatever has become of the files in it."""
    path, _ = rundir.find(name)
    run = RunDir(path)
    if not any(map(os.path.lexists, (run.config, run.status, run.plan, run.metrics, run.checkpoints))):
        raise Failure(DATA, f"{path} is not a run", "relaunch runs lists those that are")
    return run


def main_runs(argv: list[str]) -> int:
    parser = Parser(
        prog="relaunch runs",
        description="List the runs under runs/, newest last; `show NAME` tells more of one.",
    )
    parser.add_argument("what", nargs="?", choices=("show",), help="show one run")
    parser.add_argument("run", nargs="?", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument(
        "--hide-failed", action="store_true", help="leave out what failed, crashed or has no step yet"
    )
    args = parser.parse_args(argv)
    if args.what:
        if not args.run:
            raise Failure(USAGE, "relaunch runs show needs a run", "relaunch runs lists them")
        give(show(found(args.run)))
        return 0
    runs = rundir.runs()
    for run in runs:
        if damaged := records.damaged(run):
            tell(f"relaunch: {run.path}: {', '.join(damaged)} cannot be read", sys.stderr)
        if changed := logged.changed(run):
            tell(f"relaunch: {run.path}: {changed}", sys.stderr)
    summaries = [summarise(run) for run in runs]
    if args.hide_failed:
        summaries = [s for s in summaries if not s.came_to_nothing]
    hidden = f"{len(runs) - len(summaries)} of {len(runs)} runs are hidden: they failed, or have no step"
    give(table(summaries) if summaries else hidden if runs else "no runs under runs/ yet")
    if summaries and len(summaries) < len(runs):
        tell(hidden, sys.stderr)
    return 0


def main_stop(argv: list[str]) -> int:
    parser = Parser(
        prog="relaunch stop",
        description=(
            "Ask a run to save at its next step and leave with code 78: no scheduler starts it again.\n"
            "Works from any machine that sees the run's folder; the same as `touch RUN/STOP`."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    args = parser.parse_args(argv)
    run = found(args.run)
    state = "running" if run.held() else summarise(run).state
    if state not in ("running", "unknown") or state == "unknown" and not os.path.lexists(run.path / ".lock"):
        raise Failure(USAGE, f"{run.path} is not running: it is {state}", "there is nothing to stop")
    try:
        files.write_atomic(run.stop, time.strftime("%Y-%m-%dT%H:%M:%S%z\n"))
    except OSError as error:
        raise Failure(
            STORAGE,
            f"cannot write {run.stop} ({error.strerror})",
            "ask its owner, or send its launcher SIGTERM",
        ) from error
    ended = summarise(run).state
    if ended in ("done", "stopped") and not run.held():  # in between, without seeing it
        run.forget_stop()
        raise Failure(USAGE, f"{run.path} has just ended: it is {ended}", "there is nothing to stop")
    told = "it saves at its next step and leaves"
    if state == "unknown":  # its status cannot be read, and it may run on another host
        told += f", if it is trained anywhere; if it is not, remove {run.stop}"
    tell(f"{run.path}: asked to stop; {told}")
    return 0
