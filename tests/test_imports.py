"""Imports go one way, and what the command line needs comes without torch."""

import ast
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PARTS = ("launch", "trainers", "models", "data_prep")
TORCH_FREE = ("trainers.config", "trainers.rundir", "trainers.workloads", "trainers.process", "data_prep.packed")
MAY = {
    "launch": {"launch", "data_prep", "trainers.config", "trainers.rundir", "trainers.workloads"},
    "trainers": {"trainers", "models", "data_prep", "accelerate", "torch"},
    "models": {"models", "torch", "torchvision"},
    "data_prep": {"data_prep", "numpy"},
}
OURS = {*PARTS, "benchmarks", "accelerate", "torch", "torchvision"}
LATE = {"data_prep": {"torchvision", "datasets", "PIL", "sklearn", "pyarrow"}}  # inside the functions that need them
ENGINE = {"trainers/runtime.py", "trainers/train.py"}  # the few files that know accelerate (train: its version)


def imports(path, late: bool):
    """Modules that a file imports, at its top level or (late) inside functions; those of `if TYPE_CHECKING` do not count."""

    def walk(node, inside: bool):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import) and inside == late:
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and inside == late:
                yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield from walk(child, inside or isinstance(child, (ast.FunctionDef, ast.Lambda)))

    return list(walk(ast.parse(path.read_text()), False))


FILES = [path.relative_to(REPOSITORY).as_posix() for part in PARTS for path in sorted((REPOSITORY / part).rglob("*.py"))]


@pytest.mark.parametrize("file", FILES)
def test_imports_go_one_way(file):
    part = file.split("/")[0]
    for late in (False, True):
        for name in imports(REPOSITORY / file, late):
            if name.split(".")[0] in OURS:
                allowed = MAY[part] | (LATE.get(part, set()) if late else set())
                assert any(f"{name}.".startswith(f"{a}.") for a in allowed), f"{file} imports {name}"
            if name.split(".")[0] == "accelerate":
                assert file in ENGINE or part == "launch", f"{file} imports {name}"
            if not late and part == "data_prep":
                assert name.split(".")[0] not in LATE["data_prep"], f"{file} imports {name} at its top"


def test_the_command_line_needs_no_torch():
    """Defaults and flags of every workload, its data's facts and a run's folder."""
    program = f"""
import sys
import launch.__main__, {", ".join(TORCH_FREE)}, pkgutil, importlib, launch, data_prep
for package in (launch, data_prep):
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{{package.__name__}}.{{module.name}}")
from trainers.config import workload_parser
from trainers import workloads
for name in workloads.names():
    workload_parser(name).format_help()
print(sorted({{"torch", "torchvision", "accelerate", "datasets", "tensorboard"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert (done.stdout, done.stderr) == ("[]\n", "")
