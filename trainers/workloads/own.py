"""A workload of one's own, in one file anywhere or in an installed package: found, checked, and imported.

    load("./flowers.py")            # its WORKLOAD, registered under the workload's name
    load("flowerlib.work:ROSES")    # that name of an installed module

It is somebody's code: only what trains, scores, summarises, exports or generates imports it.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers import workloads

FOLDER = "code"  # of a run, where it keeps them
GROUP = "relaunch.workloads"  # of entry points


@dataclass(frozen=True)
class Code:
    """The files that a workload is made of, as they were read when it was loaded."""

    entry: str  # flowers.py, or module:NAME
    folder: Path  # in which they lie, as it was typed
    contents: dict[str, bytes]  # path below it -> content; the first is the workload's own

    @property
    def main(self) -> Path:
        return self.folder / next(iter(self.contents))

    def record(self) -> dict:
        """What a run's config says of it."""
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in self.contents.items()}
        return {"entry": self.entry, "files": hashes}

    def write(self, folder: Path) -> None:
        """OSError."""
        for name, content in self.contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomic(path, content)


def is_code(word: str) -> bool:
    """Whether a word names a file, or a name of a module."""
    return word.endswith(".py") or os.sep in word or ":" in word


def installed() -> dict[str, str]:
    """name -> module:NAME of the workloads that installed packages bring."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}


# finding its files ------------------------------------------------------------------------------------------


def find(word: str) -> Code:
    """The code that a word names. Reads files, and imports nothing but the packages above a module."""
    if word.endswith(".py") or os.sep in word:
        path = Path(word)
        if not path.is_file() or path.suffix != ".py":
            what = (
                "is a folder" if path.is_dir() else "is not a .py file" if path.exists() else "is not there"
            )
            raise Failure(USAGE, f"{word} {what}", "name a file that defines WORKLOAD = Workload(...)")
        return read(path.parent, path.name, path.name)
    module, _, name = word.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), name]):
        raise Failure(USAGE, f"{word!r} is not module:NAME", "write flowerlib.work:WORKLOAD, for example")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not str(spec.origin).endswith(".py"):
        raise Failure(USAGE, f"no module {module!r} is installed", "install it, or name its file")
    path = Path(str(spec.origin))
    folder = path.parents[module.count(".") + (path.name == "__init__.py")]
    return read(folder, word, str(path.relative_to(folder)))


def read(folder: Path, entry: str, main: str) -> Code:
    """A file and, from its folder, whatever it and those import, wherever in them that stands.

    Failure 64 where Python would load something else than what lies there.
    """
    contents: dict[str, bytes] = {}
    todo = [main]
    while todo:
        name = todo.pop()
        if name in contents:
            continue
        contents[name] = (folder / name).read_bytes()
        try:
            tree = ast.parse(contents[name], str(folder / name))
        except SyntaxError as error:
            raise Failure(
                USAGE, f"{folder / name}, line {error.lineno or 1}: {error.msg}", "correct it"
            ) from error
        except ValueError as error:  # null bytes
            raise Failure(USAGE, f"{folder / name} is not Python ({error})", "name another file") from error
        package = [] if name == main and ":" not in entry else list(Path(name).parent.parts)
        for wanted, line in imported(tree, package):
            found = neighbours(folder, wanted)
            if found and found != [main] and ":" not in entry:
                refuse_hidden(folder, wanted.split(".")[0], found[0], f"{folder / name}, line {line}")
            todo += found
    return Code(entry, folder, contents)


def imported(tree: ast.AST, package: list[str]) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of all that a module of that package imports; attributes are among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *filter(None, [node.module])]
            for name in node.names:
                yield ".".join([*base, name.name]), node.lineno


def neighbours(folder: Path, wanted: str) -> list[str]:
    """The files of `folder` that importing this name would execute, were nothing else of that name there."""
    found, place = [], Path()
    for part in wanted.split("."):
        place = place / part
        if (folder / place / "__init__.py").is_file():
            found.append(str(place / "__init__.py"))
        elif (folder / place.with_name(f"{part}.py")).is_file():
            return [*found, str(place.with_name(f"{part}.py"))]
        elif not (folder / place).is_dir():
            break
    return found


def refuse_hidden(folder: Path, name: str, neighbour: str, where: str) -> None:
    """Failure 64 if Python's, or an installed, module of that name comes before the neighbour."""
    kept = sys.modules.get(name)
    if kept is not None and lies_in(kept, folders):  # of a workload that this one takes the place of
        return
    if name in sys.stdlib_module_names or name in sys.builtin_module_names:
        other = "Python's own"
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return
        if (
            spec is None
            or spec.origin is None
            or Path(spec.origin).resolve().is_relative_to(folder.resolve())
        ):
            return
        other = spec.origin
    raise Failure(
        USAGE,
        f"{where}: import {name} gives {other}, and not the {neighbour} beside it",
        f"rename {neighbour}",
    )


# importing it -----------------------------------------------------------------------------------------------

folders: list[Path] = []  # that we have put on sys.path


def load(word: str) -> workloads.Workload:
    """Import the workload that a word names, and register it. Failure 64 for every mistake in its files."""
    return take(find(word))


def take(code: Code) -> workloads.Workload:
    """The workload that this code defines; it is imported unless its files are loaded as they are."""
    for work in workloads.registered():
        if work.code and work.code.record() == code.record():
            return work
    forget()
    # a file that is changed twice in a second may leave bytecode that is not its own; a run's is not ours
    sys.dont_write_bytecode = True
    if ":" not in code.entry or code.folder.name == FOLDER:
        folders.append(code.folder.resolve())
        sys.path.append(str(folders[-1]))
    with blamed(code, at_import=True), contextlib.redirect_stdout(sys.stderr):
        if ":" in code.entry:
            module, _, name = code.entry.partition(":")
            space = vars(importlib.import_module(module))
        else:
            name = "WORKLOAD"
            space = vars(execute(code))
    from relaunch.trainers.workloads.check import check

    with blamed(code):
        work = dataclasses.replace(check(space, name, code), code=code)
    workloads.register(work)
    return work


def execute(code: Code) -> types.ModuleType:
    """Run the very bytes that were read, as a module whose name nobody else has."""
    name = "relaunch_own_" + re.sub(r"\W", "_", code.main.stem)
    spec = importlib.util.spec_from_file_location(name, code.main.resolve())
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(code.contents[code.main.name], str(code.main.resolve()), "exec"), vars(module))
    return module


def forget() -> None:
    """A process has one workload of one's own: the modules of an earlier one are not taken for this one's."""
    for name, module in list(sys.modules.items()):
        if lies_in(module, folders):
            del sys.modules[name]
    for folder in folders:
        sys.path.remove(str(folder))
    folders.clear()
    importlib.invalidate_caches()


def lies_in(module: types.ModuleType, places: list[Path]) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and any(Path(str(file)).is_relative_to(place) for place in places)


def revive(code: Code, values: dict):
    """A config that came from another process, whose code came with it: it may lie on no disk of ours."""
    from relaunch.trainers.config import RunConfig

    if not any(work.code and work.code.record() == code.record() for work in workloads.registered()):
        folder = tempfile.TemporaryDirectory(prefix="relaunch-code-")
        atexit.register(folder.cleanup)
        code = dataclasses.replace(code, folder=Path(folder.name, FOLDER))
        code.write(code.folder)
        take(code)
    return RunConfig.from_json(values)


# whose mistake it is ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def blamed(code: Code | None, at_import: bool = False):
    """An error that comes out of a workload's own files becomes Failure 64 that names file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if code and (failure := blame(code, error, at_import)):
            raise failure from error
        raise


def blame(code: Code, error: BaseException, at_import: bool = False) -> Failure | None:
    """What is wrong in which line of the code's files; None where none of them had a part in it."""
    if isinstance(error, Failure) or isinstance(error, SystemExit) and not at_import:
        return None
    names = {str((code.folder / name).resolve()): code.folder / name for name in code.contents}
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    ours = [(names[file], line) for file, line in frames if file in names]
    if not ours:
        return None
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        what, fix = "it ends the program while it is imported", "put that under if __name__ == '__main__':"
    elif isinstance(error, ModuleNotFoundError):
        what, fix = str(error), "install it, put it beside the file, or correct its name"
    else:
        what = f"{kind}: {error}" if str(error) else kind
        fix = "correct it" if hasattr(builtins, kind) else ""
    return Failure(USAGE, f"{ours[-1][0]}, line {ours[-1][1]}: {what}", fix)
