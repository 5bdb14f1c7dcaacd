"""What stands in the launcher for a workload of somebody's own, whose file only a child process imports.

standin.register(["./flowers.py", "--epochs", "3"])    # from now on parse(["./flowers.py", …]) knows it
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers import PROGRAM, flags, job, workloads
from relaunch.trainers.flags import Parser, without
from relaunch.trainers.workloads import Workload, own, setting
from relaunch.trainers.workloads.own.code import Code

TYPES = {kind.__name__: kind for kind in (int, float, bool, str)}


def register(words: list[str], *others: Parser) -> Failure | None:
    """Make the workload that the first word names known, if it is somebody's own.

    Returns what is wrong with the other words as its own code sees them. Failure 64 for mistakes in its file,
    and for an option that one of the `others` takes before it.
    """
    word = words[0] if words else "-"
    if word.startswith("-") or not own.is_own(word):
        return None
    path = own.in_run(word, job.run_of(words))
    answer = ask(path, *without(words[1:], "--run", "--resume"), *going_on(words))
    if "workload" not in answer:
        raise failure(answer["failure"])
    work = build(path, answer)
    taken = {s: p.prog for p in others for action in p._actions for s in action.option_strings}
    for name in (f.name for f in dataclasses.fields(work.options)):
        if flag := next((s for s in (flags.flag(name), flags.flag(f"no_{name}")) if s in taken), None):
            what = f"{word}: the option {name} hides {flag} of {taken[flag].split(' WORKLOAD')[0]}"
            raise Failure(USAGE, what, "give it another name")
    workloads.register(work, word, path)
    return failure(answer["failure"]) if "failure" in answer else None


def going_on(words: list[str]) -> list[str]:
    """--run and --resume, where there is a run: elsewhere they change no answer."""
    run = job.run_of(words)
    return (
        ["--run", str(run.absolute()), "--resume", "auto"] if run and (run / "config.json").exists() else []
    )


def failure(said: dict) -> Failure:
    return Failure(said["code"], said["what"], said["fix"])


@functools.cache
def ask(*words: str) -> dict:
    """What the child answers to these words; what it prints beside is shown if it crashes."""
    command = [sys.executable, "-P", PROGRAM, "describe", *words]
    asked = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(asked.stdout)
    except ValueError:
        tell(asked.stderr, sys.stderr, end="")
        raise Failure(1, f"asking {words[0]} for its flags crashed (exit code {asked.returncode})") from None


def build(path: str, answer: dict) -> Workload:
    """A workload with the settings of the one that was described, and without its model."""
    about = answer["workload"]
    code = Code.read_again(Path(about["code"]["folder"]), about["code"]["entry"], about["code"]["files"])
    options = []
    for o in about["options"]:
        kind = Literal[tuple(o["choices"])] if o["choices"] else TYPES[o["type"]]
        facts = {key: o[key] for key in ("short", "alias", "least", "before", "metavar") if key in o}
        hint: Any = kind | None if o["optional"] else kind
        options.append((o["name"], hint, setting(o["default"], o["help"], **facts)))
    return Workload(
        **{key: about[key] for key in ("name", "about", "data", "defaults", "presets")},
        archs=tuple(about["archs"]),
        options=dataclasses.make_dataclass("Options", options, frozen=True, kw_only=True),
        task=Task(
            path,
            about["kind"],
            Named(about["rows"]),
            about["scores"],
            tuple(about["libraries"]),
            answer.get("steps") or {},
        ),
        model=lambda *_: None,
        code=code,
    )


@dataclass(frozen=True)
class Named:
    """Of a task's Facts: what a row is called."""

    rows: str


@dataclass(frozen=True)
class Task:
    """As much of a task as a plan asks for."""

    path: str
    kind: str
    facts: Named
    scores: dict[str, str]  # the metric that decides which checkpoint is the best; others only it knows
    libraries: tuple[str, ...]
    known: dict  # the steps of an epoch of one config on data of one size

    def steps_per_epoch(self, settings, sizes) -> int:
        return self.epoch(settings, sizes)["steps"]

    def samples_done(self, settings, sizes, step: int) -> int:
        """About: in the mean of an epoch's steps."""
        epoch = self.epoch(settings, sizes)
        return round(step * epoch["samples"] / epoch["steps"])

    def epoch(self, settings, sizes) -> dict:
        """Its steps, and the samples in them."""
        asked = {"config": settings.to_json(), "sizes": json.loads(json.dumps(sizes.to_json()))}
        answer = self.known
        if {key: answer.get(key) for key in asked} != asked:
            answer = ask(self.path, "--steps", *map(json.dumps, asked.values()))
            answer = answer.get("steps", answer)
        if "failure" in answer:
            raise failure(answer["failure"])
        return answer
