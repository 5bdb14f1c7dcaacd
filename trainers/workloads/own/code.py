"""The files that a workload of one's own is made of: found by what they import, read, and never executed.

find("./flowers.py").record()     # {"entry": "flowers.py", "files": {"flowers.py": "9f86d0…", …}}
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.trainers import workloads
from relaunch.trainers.shapes import shaped

FOLDER = "code"  # of a run, where it keeps them
GROUP = "relaunch.workloads"  # of entry points
folders: list[Path] = []  # that we have put on sys.path


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

    @property
    def digest(self) -> str:
        """Of all files together."""
        return hashlib.sha256(files.dump_json(self.record()).encode()).hexdigest()

    @property
    def word(self) -> str:
        """How a command line names it."""
        return self.entry if ":" in self.entry else str(self.main)

    @staticmethod
    def read_again(folder: Path, entry: str, hashes: dict[str, str]) -> Code:
        """The code of a record. Failure 64 if a file has changed since that was made."""
        contents = {}
        for name, expected in hashes.items():
            contents[name] = (folder / name).read_bytes()
            if hashlib.sha256(contents[name]).hexdigest() != expected:
                raise Failure(USAGE, f"{folder / name} changes while it is read", "try again")
        return Code(entry, folder, contents)

    def write(self, folder: Path) -> None:
        """Into a run's folder for code, where it is not there yet. OSError."""
        for name, content in self.contents.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                files.write_atomic(path, content)


def is_code(word: str) -> bool:
    """Whether a word names a file, or a name of a module."""
    return word.endswith(".py") or os.sep in word or ":" in word


def is_own(word: str) -> bool:
    """Whether it names no workload of ours and one of somebody's."""
    return word not in workloads.names() and (is_code(word) or word in installed())


def installed() -> dict[str, str]:
    """name -> module:NAME of the workloads that installed packages bring."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}


def find(word: str) -> Code:
    """The code that a word names. Reads files, and imports nothing but the packages above a module."""
    word = installed().get(word, word) if not is_code(word) else word
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
    todo = [*(neighbours(folder, entry.split(":")[0]) if ":" in entry else ()), main]
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
            if ":" in entry and wanted.split(".")[0] != Path(main).parts[0].removesuffix(".py"):
                continue  # beside an installed package lie all the others
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
    if kept is not None and any(below(earlier, name, kept) for earlier in folders):
        return  # of a workload that this one takes the place of
    if name in sys.stdlib_module_names or name in sys.builtin_module_names:
        other = "Python's own"
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin is None or origin.resolve() == (folder / neighbour).resolve():
            return
        if {origin.parent, origin.parent.parent} & set(folders):
            return
        other = str(origin)
    raise Failure(
        USAGE,
        f"{where}: import {name} gives {other}, and not the {neighbour} beside it",
        f"rename {neighbour}",
    )


def installed_as(entry: str) -> Code | None:
    try:
        return find(entry)
    except Failure:
        return None


def in_run(word: str, run: Path | None) -> str:
    """A file as it was typed; where it is gone, the one that the run keeps."""
    kept = run / FOLDER / Path(word).name if run else Path(word)
    gone = word.endswith(".py") and not Path(word).exists()
    return str(kept) if gone and kept.is_file() else word


def of_run(recorded: dict, run: Path | None) -> Code:
    """The files that a run keeps, which are those that its config has `recorded`. Failure 65."""
    entry, names = recorded["entry"], recorded["files"]
    if ":" in entry:
        there = installed_as(entry)
        if there:
            if changed := difference(recorded, there.record()):
                fix = "use an interpreter that has what it was trained with"
                raise Failure(
                    DATA, f"{there.folder / changed[0]} {changed[1]} since the run was trained", fix
                )
            return there
    if run is None:
        what = f"its workload is somebody's own, {entry}, and a checkpoint alone does not hold that"
        raise Failure(DATA, what, f"add --workload {'FILE.py' if ':' not in entry else entry}")
    contents = {}
    for name, expected in names.items():
        path = run / FOLDER / name
        if not path.is_file():
            raise Failure(DATA, f"{path} is not there", "put it back: without it the run has no model")
        contents[name] = path.read_bytes()
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            raise Failure(DATA, f"{path} is not what the run was trained with", "put it back")
    return Code(entry, run / FOLDER, contents)


def difference(then: dict | None, now: dict | None) -> tuple[str, str] | None:
    """The first file that differs between two records, and how."""
    old, new = (shaped(record, {"files": dict}).get("files", {}) for record in (then, now))
    for name in [*new, *old]:
        if old.get(name) != new.get(name):
            return name, "is gone" if name not in new else "is new" if name not in old else "has changed"
    return None


def below(folder: Path, name: str, module: types.ModuleType) -> str | None:
    """The path below `folder` of a module that was found there by its name: more may lie there, as a venv."""
    file = getattr(module, "__file__", None)
    path = Path(*name.split("."))
    fitting = (str(path / "__init__.py"), f"{path}.py")
    return next((place for place in fitting if file and Path(file) == folder / place), None)
