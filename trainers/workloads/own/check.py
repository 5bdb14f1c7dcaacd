"""What can be wrong with a workload of one's own, found when it is loaded: one line, with its place."""

from __future__ import annotations

import ast
import dataclasses
import re
import typing
from typing import TYPE_CHECKING, Any

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import listed, nearest
from relaunch.trainers import workloads
from relaunch.trainers.tasks.task import Task
from relaunch.trainers.workloads import Workload

if TYPE_CHECKING:
    from relaunch.trainers.workloads.own.code import Code

SEAM = sorted({*Task.__annotations__, *(name for name in vars(Task) if not name.startswith("_"))})
TYPES = (int, float, bool, str)


def check(space: dict[str, Any], name: str, code: Code) -> Workload:
    """The workload that a module's names define. Failure 64 says what is wrong with it, and where."""

    def wrong(what: str, fix: str, *at: str) -> Failure:
        return Failure(USAGE, f"{code.main}, line {line_of(code, *at, name)}: {what}", fix)

    if name not in space:
        fix = f"end it with {name} = Workload(...), of relaunch.trainers.workloads"
        raise Failure(USAGE, f"{code.main} defines no {name}", fix)
    work = space[name]
    if not isinstance(work, Workload):
        what = f"{name} is {type(work).__name__}, not a Workload"
        raise wrong(what, "from relaunch.trainers.workloads import Workload")
    if not isinstance(work.name, str) or not re.fullmatch(r"\w[\w.-]*", work.name):
        raise wrong(f"name={work.name!r} cannot name a run's folder", "use letters, digits, _ and -", "name")
    if work.name in workloads.names():
        raise wrong(f"name={work.name!r} is a workload of ours", "choose another name", "name")
    lacking = [part for part in SEAM if not hasattr(work.task, part)]
    if isinstance(work.task, type) or lacking:
        name = getattr(work.task, "__name__", "") if isinstance(work.task, type) else ""
        what = (
            f"task={name} is a class"
            if name
            else f"task={work.task!r} is no task, it lacks {listed(lacking)}"
        )
        raise wrong(what, "give one made from it: task=ImageTask(), for example", "task")
    if not callable(work.model):
        raise wrong(f"model={work.model!r} cannot be called", "give a function of (config, sizes)", "model")
    if not isinstance(work.data, str) or not isinstance(work.about, str):
        raise wrong("about and data are texts", "data names a packed set", "data")
    if not isinstance(work.archs, (tuple, list)) or not all(isinstance(a, str) for a in work.archs or [0]):
        raise wrong(f"archs={work.archs!r} is not a tuple of names", 'write archs=("net",)', "archs")
    check_options(work, wrong)
    check_values(work, wrong)
    return dataclasses.replace(work, archs=tuple(work.archs))


def check_options(work: Workload, wrong) -> None:
    """Its options are flags beside ours: each has a type, a default and a line of help, and hides none."""
    from relaunch.trainers.config import RunConfig
    from relaunch.trainers.flags import flag, scalar
    from relaunch.trainers.job import Launch

    if not (isinstance(work.options, type) and dataclasses.is_dataclass(work.options)):
        raise wrong("options is not a dataclass", "decorate it with @dataclass(frozen=True, kw_only=True)")
    fields = dataclasses.fields(RunConfig), dataclasses.fields(Launch)
    ours = {f.name for of in fields for f in of} | {"help"}
    shorts = {f.metadata.get("short") for of in fields for f in of} | {"-h"}
    hints = typing.get_type_hints(work.options)
    for f in dataclasses.fields(work.options):
        if f.name in ours or f.metadata.get("short") in shorts - {None}:
            raise wrong(f"the option {f.name} hides our own {flag(f.name)}", "give it another name", f.name)
        if "help" not in f.metadata or f.default is dataclasses.MISSING:
            fix = f'write {f.name}: int = setting(3, "what it is"), of relaunch.trainers.workloads'
            raise wrong(f"the option {f.name} has no default or no line of help", fix, f.name)
        kind, choices = scalar(hints[f.name])
        if kind not in TYPES or not all(isinstance(choice, str) for choice in choices or ()):
            fix = "use int, float, bool, str or a Literal of texts, or one of them | None"
            raise wrong(f"the option {f.name} is of a type that no flag has", fix, f.name)


def check_values(work: Workload, wrong) -> None:
    """Its defaults, and each preset over them, are settings that there are, with values that they take."""
    from relaunch.trainers.config import RunConfig, build

    known = {f.name for cls in (RunConfig, work.options) for f in dataclasses.fields(cls)}
    known -= {"workload", "options", "code"}
    groups = [("defaults", work.defaults), *(work.presets.items() if isinstance(work.presets, dict) else ())]
    for title, values in groups:
        if not isinstance(values, dict):
            raise wrong(f"{title} is not a dict", "write dict(epochs=5, lr=0.1)", "defaults")
        for key in values:
            if key not in known:
                near = nearest(str(key), sorted(known))
                fix = f"did you mean {near}?" if near else "it may hold our settings and your options"
                raise wrong(f"{title}: there is no setting {key!r}", fix, str(key))
    for title, values in groups:
        workloads.register(work)
        try:
            build(work, values)
        except Failure as failure:
            raise wrong(f"{title}: {failure.what}", failure.fix) from failure
        finally:
            workloads.unregister(work)


def line_of(code: Code, *names: str) -> int:
    """Where the first of these names that is there at all is given a value in the workload's own file."""
    tree = ast.parse(code.contents[next(iter(code.contents))])
    for name in names:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
                return node.lineno
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                return getattr(node, "lineno", 1)
            if isinstance(node, ast.keyword) and node.arg == name and isinstance(node.value, ast.expr):
                return node.value.lineno
    return 1
