"""Which tests are `pure`: they import no torch and start no process, so all take seconds (`make check`).

Nobody marks them by hand. A test is pure if neither it, nor a fixture that it uses, nor a function of our
tests that one of these names, names what is in HEAVY; a file whose imports bring torch in has none.
Tests that start several processes run one after the other, beside the rest.
"""

import ast
import functools
import re
import sys
import types
from pathlib import Path

import pytest

from rigs import REPOSITORY

TORCH = {"torch", "torchvision", "accelerate", "datasets"}
HEAVY = TORCH | {"stand_in", "subprocess", "Process", "fork"}


def pytest_configure(config):
    config.addinivalue_line("markers", "pure: imports no torch, starts no process (found by rigs/tiers.py)")


def only_pure(config) -> bool:
    return bool(re.search(r"(?<!not )\bpure\b", config.option.markexpr or ""))


def pytest_ignore_collect(collection_path, config):
    if only_pure(config) and collection_path.suffix == ".py" and brings_torch(collection_path):
        return True


@functools.cache
def brings_torch(path: Path) -> bool:
    """Whether importing this file imports torch, as far as its and our own imports at the top say."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first in TORCH:
                return True
            places = {"relaunch": REPOSITORY, "rigs": REPOSITORY / "tests/rigs"}
            if first in places:
                found = [
                    places[first].joinpath(*part).with_suffix(".py") for part in (rest, rest[:-1]) if part
                ]
                if any(file.exists() and file != path and brings_torch(file) for file in found):
                    return True
    return False


@pytest.hookimpl(tryfirst=True)  # before those of the marker's expression are chosen
def pytest_collection_modifyitems(items):
    weighs: dict = {}
    for item in items:
        fixtures = [d.func for defs in item._fixtureinfo.name2fixturedefs.values() for d in defs]
        if not any(heavy(function, weighs) for function in [item.function, *fixtures]):
            item.add_marker(pytest.mark.pure)
        if {"start", "group"} & set(item.fixturenames):  # two groups of processes at once would be late
            item.add_marker(pytest.mark.xdist_group("processes"))


def heavy(function, weighs: dict) -> bool:
    """Whether a function of the tests, or one that it names, names something of HEAVY."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, types.FunctionType):
        return False
    if function not in weighs:
        weighs[function] = False  # functions that name each other
        names = set(named(function.__code__))
        called = (function.__globals__.get(name) for name in names)
        weighs[function] = bool(names & HEAVY) or any(
            heavy(part, weighs) for other in called for part in parts(other)
        )
    return weighs[function]


def parts(other):
    """The functions of ours that a name stands for: itself, or a class's methods."""
    module = getattr(other, "__module__", None) or ""
    if module.startswith(("rigs", "test_", "conftest", "tests")):
        yield from [other] if not isinstance(other, type) else vars(other).values()


def named(code):
    for name in code.co_names:
        yield from name.split(".")
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from named(const)


@pytest.fixture(autouse=True)
def _stays_pure(request):
    """In a run of the pure tests alone, one that brings torch in after all fails."""
    before = "torch" in sys.modules
    yield
    if only_pure(request.config) and not before:
        assert "torch" not in sys.modules, "it imports torch: add what it does that with to rigs.tiers.HEAVY"
