"""The grammar of `compare --grid` and `submit --sweep`: FLAG=A,B,C …, and all combinations of these.

    axes = grid.axes(["seed=1,2", "lr=0.1"], grid.known("mnist"), "--sweep")
    grid.points(axes)    # Point(label="seed1-lr0.1", settings={"seed": "1", "lr": "0.1"}, words=(…)), …

A key is a flag of `relaunch train`, with hyphens or underscores, or one of the launcher's settings: config,
precision, processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import offered
from relaunch.launch import command
from relaunch.trainers import config, workloads

LAUNCHERS = ("config", "precision", "processes", "emulate")  # of its flags, what makes another training
ONE_START = {"run", "data_root", "resume", "evaluate", "split", "out", "outputs", "verify_data", "stop_after"}
YES, NO = ("yes", "true", "on"), ("no", "false", "off")  # of a flag without a value


@dataclass(frozen=True)
class Axis:
    """One key with its values, as they were typed."""

    typed: str  # batch-size
    key: str  # batch_size
    flag: str  # --batch-size
    values: tuple[str, ...]
    switch: argparse.Action | None = None  # of a flag that takes no value

    def words(self, value: str) -> tuple[str, ...]:
        """What to type to set the key to one of its values. Failure 64 for a switch that is neither way."""
        if self.switch is None:
            return (self.flag, value)
        if value.lower() not in YES + NO:
            raise Failure(USAGE, f"{self.key}={value} is neither yes nor no", f"write {self.key}=yes,no")
        if value.lower() in YES:
            return (self.flag,)
        negative = [s for s in self.switch.option_strings if s.startswith("--no-")]
        return (negative[0],) if negative else ()


@dataclass(frozen=True)
class Point:
    """One combination of values."""

    label: str  # seed1-lr0.1, for a folder's name
    settings: dict[str, str]  # {"seed": "1", "lr": "0.1"}
    words: tuple[str, ...]  # --seed 1 --lr 0.1

    @property
    def name(self) -> str:
        """`batch_size=4 precision=no`, as it would be typed."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items())


def known(workload: str) -> dict[str, argparse.Action]:
    """The flags that a key may name, by their names with underscores. The workload is registered."""
    parser = config.workload_parser(workload, work=workloads.load(workload))
    common = {f.name for f in dataclasses.fields(config.RunConfig)}
    found: dict[str, argparse.Action] = {}
    for action in sorted(
        parser._actions, key=lambda action: action.dest not in common
    ):  # as they are offered
        long = [s for s in action.option_strings if s.startswith("--") and not s.startswith("--no-")]
        if action.dest != "help" and action.dest not in ONE_START:
            found |= {s[2:].replace("-", "_"): action for s in long}
    for action in command.flags()._actions:
        if action.dest in LAUNCHERS:
            names = (action.dest, *(s[2:].replace("-", "_") for s in action.option_strings))
            found |= dict.fromkeys(names, action)
    return found


def axes(
    words: Iterable[str], known: dict[str, argparse.Action], flag: str, never: dict[str, str] | None = None
) -> tuple[Axis, ...]:
    """The axes of what follows `flag`. Failure 64 for a key that is none, or in `never`, with what to do."""
    found: dict[str, Axis] = {}
    for word in words:
        typed, _, values = word.partition("=")
        typed = typed.lstrip("-")
        key, listed = typed.replace("-", "_"), values.split(",")
        if not typed or not all(listed):
            example = "seed=1,2,3" if flag == "--sweep" else "batch_size=4,16"
            raise Failure(USAGE, f"{flag} {word} is not FLAG=A,B,C", f"write {flag} {example}, for example")
        if never and key in never:
            raise Failure(USAGE, f"{flag} {word}: {key} cannot be varied here", never[key])
        if key not in known:
            names = [name for name in known if name not in (never or {})]
            raise Failure(USAGE, f"{flag} {word}: relaunch train has no --{typed}", offered(key, names))
        action = known[key]
        long = [s for s in action.option_strings if s.startswith("--")]
        name = f"--{key.replace('_', '-')}"
        axis = Axis(
            typed,
            key,
            name if name in long else long[0],
            tuple(listed),
            action if action.nargs == 0 else None,
        )
        if any(axis.flag == other.flag for other in found.values()):
            raise Failure(USAGE, f"{flag} names {key} twice", "write all of its values in one list")
        if len(set(listed)) != len(listed):
            raise Failure(USAGE, f"{flag} {word} holds a value twice", "name each value once")
        for value in listed:
            axis.words(value)
        found[key] = axis
    return tuple(found.values())


def points(axes: Iterable[Axis]) -> tuple[Point, ...]:
    """All combinations, the last key's values changing first. Failure 64 where two have the same label."""
    found: dict[str, Point] = {}
    axes = tuple(axes)
    for values in itertools.product(*(axis.values for axis in axes)) if axes else ():
        pairs = tuple(zip(axes, values))
        label = re.sub(r"[^\w.-]", "_", "-".join(f"{axis.typed}{value}" for axis, value in pairs))
        if label in found:
            raise Failure(
                USAGE, f"two points would have the same run, {label}", "name their values otherwise"
            )
        found[label] = Point(
            label,
            {axis.key: value for axis, value in pairs},
            tuple(word for axis, value in pairs for word in axis.words(value)),
        )
    return tuple(found.values())
