"""Imports go one way, every module is imported by its full name, and the command line needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rigs import REPOSITORY

PARTS = ("launch", "trainers", "models", "data_prep")
FILES = [p.relative_to(REPOSITORY) for part in PARTS for p in sorted((REPOSITORY / part).rglob("*.py"))]
TORCH_FREE = (
    *(
        "aside",
        "begin",
        "config",
        "finetune",
        "flags",
        "goodput",
        "job",
        "logged",
        "origin",
        "rundir",
        "records",
    ),
    *("resumed", "shapes", "shards", "spent", "workloads"),
    *("group.process", "tasks.task", "tasks.samples", "tasks.images", "tasks.text", "tasks.arrays"),
    "tasks.regression",
    *("profiling.asked", "profiling.figures", "profiling.page", "profiling.results", "profiling.steps"),
    "weights.checkpoint",
    *("pages.blocks", "pages.charts", "pages.graph", "pages.page"),
)
MAY = {  # what a part may import of ours
    "launch": {
        "launch",
        "data_prep",
        "trainers.PROGRAM",
        "trainers.aside",
        "trainers.begin",
        "trainers.bench",
        "trainers.config",
        "trainers.cores",
        "trainers.flags",
        "trainers.goodput",
        "trainers.origin",
        "trainers.job",
        "trainers.shapes",
        "trainers.logged",
        "trainers.pages",
        "trainers.profiling.asked",
        "trainers.profiling.steps",
        "trainers.records",
        "trainers.resumed",
        "trainers.rundir",
        "trainers.shards",
        "trainers.tasks.task",
        "trainers.weights.checkpoint",
        "trainers.workloads",
    },
    "trainers": {"trainers", "models", "data_prep"},
    "models": {"models"},
    "data_prep": {"data_prep"},
}
HEAVY = {  # what a part may import of others' (the rest of what is installed is small)
    "launch": set(),
    "trainers": {"torch", "accelerate", "pyarrow", "PIL"},
    "models": {"torch", "torchvision", "timm"},
    "data_prep": set(),
}
LATE = {  # only inside functions
    "launch": {"tensorboard"},
    "data_prep": {"torchvision", "datasets", "PIL", "sklearn", "pyarrow"},
    "trainers": {"torchvision", "matplotlib", "jinja2", "markupsafe", "igraph"},
}
WEIGHTY = {
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "datasets",
    "tensorboard",
    "pyarrow",
    "PIL",
    "sklearn",
    "matplotlib",
    "jinja2",
    "markupsafe",
    "igraph",
}
KNOW_ACCELERATE = {"trainers/group/runtime.py", "trainers/launched.py"}  # launched: its version


def imports(source: str):
    """(name, inside a function) of everything that a file imports; `if TYPE_CHECKING` does not count."""

    def walk(node, inside: bool):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "relative imports hide which part is meant"
                yield from ((f"{child.module}.{alias.name}", inside) for alias in child.names)
            elif isinstance(child, ast.Call) and child.args and ast.unparse(child.func).endswith("_module"):
                yield from ((name, True) for name in written(child.args[0]))  # import_module, run_module
            yield from walk(child, inside or isinstance(child, (ast.FunctionDef, ast.Lambda)))

    def written(argument):
        """The name, or as much of it as is written down: `f"relaunch.models.{name}"`."""
        first = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
        if isinstance(first, ast.Constant):
            yield first.value

    return list(walk(ast.parse(source), False))


def wrong(file: Path, source: str) -> list[str]:
    """The imports of a file that go the wrong way."""
    part, found = file.parts[0], []
    starts_by_path = file.name in ("__main__.py",)
    for name, late in imports(source):
        first, _, rest = name.partition(".")
        if first == "relaunch":
            good = any(f"{rest}.".startswith(f"{may}.") for may in MAY[part])
        elif first in PARTS:
            good = starts_by_path and name == part
        elif first == "accelerate":
            good = file.as_posix() in KNOW_ACCELERATE
        else:
            good = first not in WEIGHTY or first in HEAVY[part] | (LATE.get(part, set()) if late else set())
        found += [] if good else [name]
    return found


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_go_one_way(file):
    assert not wrong(file, (REPOSITORY / file).read_text())


def test_an_import_that_is_turned_around_is_seen():
    """The test above is no test if this one fails: it was, once, after the imports had been renamed."""
    seen = sum(len(imports((REPOSITORY / file).read_text())) for file in FILES)
    ours = sum(n.startswith("relaunch.") for f in FILES for n, _ in imports((REPOSITORY / f).read_text()))
    assert ours > 200 and seen > 400
    for file, line in (
        ("trainers/loop.py", "from relaunch.launch import plan"),
        ("data_prep/packed.py", "from relaunch.trainers import rundir"),
        ("models/cnn.py", "import relaunch.data_prep.packed"),
        ("launch/plan.py", "from relaunch.trainers.group.runtime import Runtime"),
        ("launch/plan.py", "def f():\n    import torch"),
        ("trainers/config.py", "from data_prep.errors import Failure"),
        ("trainers/evaluate.py", "import accelerate"),
        ("data_prep/hub.py", "import datasets"),
        ("trainers/compare/results.py", "from relaunch.launch.facts import Facts"),
        ("trainers/group/peers.py", "from accelerate.state import PartialState"),
        ("trainers/tasks/images.py", "from models import cnn"),
        ("launch/submit/sheet.py", "import_module(f'trainers.{verb}')"),
        ("launch/runs.py", "importlib.import_module('relaunch.trainers.weights.source')"),
        ("trainers/__main__.py", "runpy.run_module(f'trainers.{verb}')"),
    ):
        assert wrong(Path(file), line), line


def python(program: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=REPOSITORY
    )


def test_the_command_line_needs_no_torch():
    """Defaults and flags of every workload, its data's facts and a run's folder."""
    done = python(f"""
import sys, pkgutil, importlib, trainers
from relaunch import launch, data_prep
for name in {TORCH_FREE!r}:
    importlib.import_module(f"relaunch.trainers.{{name}}")
for package in (launch, launch.submit, data_prep) if hasattr(launch, "submit") else (launch, data_prep):
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{{package.__name__}}.{{module.name}}")
import relaunch.launch.__main__
from relaunch.trainers import config, workloads
for name in workloads.names():
    config.workload_parser(name).format_help()
heavy = {{"torch", "torchvision", "accelerate", "datasets", "tensorboard", "matplotlib", "jinja2", "igraph"}}
print(sorted(heavy & sys.modules.keys()))
""")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_no_module_exists_twice(train, tmp_path):
    """A class of a module that was imported by two names is two classes: `except Failure` would miss one."""
    assert train("mnist", "--max-steps", 1, "--run", "once") == 0
    short = {name for name in sys.modules if name.split(".")[0] in PARTS and not name.startswith("relaunch")}
    assert short <= {"trainers"}  # which the tests' conftest imports to bind the rest
