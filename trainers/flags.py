"""Dataclass fields as command-line flags: their names and checks, and a parser whose mistakes are one line.

parser = Parser(prog="relaunch train mnist")
add_fields(parser, RunConfig, {"lr": 1.0}, "training")
"""

from __future__ import annotations

import argparse
import math
import re
import types
import typing
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Literal

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import nearest, offered
from relaunch.data_prep.talk import give

# of a flag's value: what stands for it in the help, and what a wrong one is not
VALUES = {int: "N", float: "NUMBER", str: "TEXT"}
KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "yes or no"}


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are a Failure 64 of one line, and which takes --a_b for --a-b."""

    beside: tuple[Parser, ...] = ()  # that read other flags of the same line: a mistyped one may be theirs

    def __init__(self, **kwargs):
        kwargs |= {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**kwargs)

    def error(self, message):
        raise Failure(USAGE, message, f"see {self.prog} --help")

    def _print_message(self, message, file=None):
        give(message, end="")

    def parse_args(self, args=None, namespace=None):
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            flags = [s for p in (self, *self.beside) for a in p._actions for s in a.option_strings]
            near = nearest(rest[0].split("=")[0], [s for s in flags if s.startswith("--")])
            fix = f"did you mean {near}?" if near else f"see {self.prog} --help"
            raise Failure(USAGE, f"unknown argument {rest[0]!r}", fix)
        return found

    def _get_value(self, action, text):
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError as error:
            name = "/".join(action.option_strings) or action.metavar
            what = f"{name} {text!r} is not {KINDS.get(action.type, 'understood')}"
            if isinstance(error.__context__, argparse.ArgumentTypeError):  # which says it itself
                what = f"{name}: {error.message}"
            raise Failure(USAGE, what, f"see {self.prog} --help") from None

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or action.metavar or "argument"
            raise Failure(
                USAGE, f"{name} {value!r} is not known", offered(str(value), map(str, action.choices))
            )

    def parse_known_args(self, args=None, namespace=None):
        args = [
            a.split("=", 1)[0].replace("_", "-") + ("=" + a.split("=", 1)[1] if "=" in a else "")
            if a.startswith("--")
            else a
            for a in args
        ]
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            value = getattr(found, action.dest, None)
            empty = "" in value if isinstance(value, tuple) else value == ""
            if value == [] != action.default and action.nargs is None:
                # `--flag=--`, of which argparse takes away the dashes
                empty = True
            if empty and action.default != "":  # an unset $VARIABLE
                name = action.option_strings[0] if action.option_strings else action.metavar
                raise Failure(USAGE, f"{name} is empty", "give it a value, or leave it out")
        return found, rest


def without(words: Sequence[str], *flags: str) -> list[str]:
    """The words less these flags and their values, in whatever way they were spelled."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for flag in flags:
        parser.add_argument(flag)
    return parser.parse_known_args(list(words))[1]


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def words(name: str, value) -> list[str]:
    """What to type to set a field to a value."""
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [f"{flag(name)}={each}" for each in (value if isinstance(value, tuple) else (value,))]


def shown(value) -> str:
    """A field's value in a message."""
    return (" ".join(value) or "none") if isinstance(value, tuple) else str(value)


def seconds(text: str) -> int:
    """A --time in seconds: 90s, 30m, 2h or 1h30m. Failure 64 for what is none."""
    found = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", text)
    total = sum(int(n or 0) * unit for n, unit in zip(found.groups(), (3600, 60, 1))) if found else 0
    if not total:
        raise Failure(USAGE, f"--time {text!r} is no time", "write 90s, 30m, 2h or 1h30m")
    return total


class Repeated(argparse.Action):
    """A flag that may be given several times: its values in order, as a tuple."""

    def __call__(self, parser, namespace, value, option_string=None):
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), value))


def scalar(hint):
    """The type inside `int | None` or `tuple[int, ...]`, and the choices of a Literal, or None."""
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint)
    return hint, None


def check(name: str, hint, value):
    """Raise Failure 64 unless `value` is what the field's type says."""
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            raise Failure(USAGE, f"{flag(name)} {value!r} is not a list")
        for each in value:
            check(name, typing.get_args(hint)[0], each)
        return
    kind, choices = scalar(hint)
    optional = type(None) in typing.get_args(hint)
    if value is None and optional or isinstance(value, str) and str in typing.get_args(hint):
        return
    if choices and value not in choices:
        raise Failure(USAGE, f"{flag(name)} {value!r} is not one of {', '.join(choices)}")
    fits = isinstance(value, bool) == (kind is bool) and isinstance(
        value, (int, float) if kind is float else kind
    )
    if not fits or (kind is float and not math.isfinite(value)):
        raise Failure(
            USAGE, f"{flag(name)} {value!r} is not {'a finite number' if kind is float else KINDS[kind]}"
        )


def check_all(cls, values: dict):
    """Raise Failure 64 unless each value has its field's type and is not below its `least`."""
    hints, facts = typing.get_type_hints(cls), {f.name: f.metadata for f in fields(cls)}
    for name, value in values.items():
        check(name, hints[name], value)
        least = facts[name].get("least")
        if None not in (value, least) and not isinstance(value, str) and value < least:
            what = "is too small" if least else "is negative"
            raise Failure(USAGE, f"{flag(name)} {value} {what}", f"it must be at least {least}")


def add_fields(
    parser: argparse.ArgumentParser, cls, defaults: dict, title: str, only: Collection[str] | None = None
):
    """One flag per field of a dataclass, or per field of `only`.

    Nothing is set unless typed, so that what was typed is known.
    """
    group, hints = parser.add_argument_group(title), typing.get_type_hints(cls)
    for f in fields(cls):
        if f.name in ("workload", "options", "code") or only is not None and f.name not in only:
            continue
        kind, choices = scalar(hints[f.name])
        default = defaults.get(f.name, f.default)
        help = f.metadata["help"].replace("%", "%%")
        if default not in (None, "", False, ()):
            help += f" [{shown(default)}]"
        names = [n for n in (f.metadata.get("short"), flag(f.name), f.metadata.get("alias")) if n]
        common: dict[str, typing.Any] = dict(dest=f.name, default=argparse.SUPPRESS, help=help)
        if typing.get_origin(hints[f.name]) is tuple:
            common["action"] = Repeated
        if kind is bool:
            group.add_argument(
                *names, action=argparse.BooleanOptionalAction if default else "store_true", **common
            )
        else:
            group.add_argument(
                *names,
                type=f.metadata.get("reads", kind),
                choices=choices,
                metavar=None if choices else f.metadata.get("metavar", VALUES.get(kind)),
                **common,
            )
