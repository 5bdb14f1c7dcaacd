"""Preparing: choose the recipe that reads a source, and pack it once, whoever else does the same.

    prepare("cifar10", "cifar-10-python.tar.gz", root="data")
    ensure("digits", "data")

A recipe is a module of this folder: `find(source)` says which files it would read and as what, `pack` packs
them with a Writer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from relaunch.data_prep import archive, hub
from relaunch.data_prep.download import download
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import beside, nearest, offered, quoted
from relaunch.data_prep.packed import EMBEDDED, OFFICIAL, Packed, data_root, not_packed_yet, open_packed
from relaunch.data_prep.writer import Writer, exclusive, new_folder

ARCHIVES = (*OFFICIAL, "folder", "text")  # read through archive.py; looked for in this order
RECIPES = (*ARCHIVES, "hub", *EMBEDDED)


def ensure(name: str, root: str | Path) -> None:
    """Pack an embedded set that is not under `root` yet; does nothing for any other name.

    For what trains or scores, before it opens its data: a first command works without `prep`. Safe for many
    processes at once. Failure 73 if `root` cannot be written.
    """
    if not_packed_yet(name, root):
        prepare(name, root=root, progress=False)


def prepare(
    name: str,
    source: str | Path | None = None,
    recipe: str | None = None,
    root: str | Path | None = None,
    size: int | None = None,
    columns: dict[str, str] | None = None,
    as_folders: bool = False,
    progress: bool = True,
) -> Packed:
    """Pack `source` into ROOT/NAME and open it. Never replaces a set: one that is there is opened if it came
    from the same source, and refused otherwise.

    `recipe` is one of RECIPES, by default `name` if it is one, else what the source looks like. `size` is in
    pixels. Safe to start several times at once and to kill at any time. Failure 64 (usage), 65 (source),
    73 (storage).
    """
    root = data_root(str(root) if root else None)
    target, source = root / name, None if source is None else str(source)
    recipe = recipe or (name if name in RECIPES else None)
    check(name, source, recipe, as_folders)
    if target.exists() and not source and not as_folders:
        return open_packed(target, root)
    with exclusive(root, name):
        if target.exists() and recipe in EMBEDDED:  # another process has packed it while we waited
            return open_packed(target, root)
        job = _job(recipe, source, root, size, columns or {}, progress)
        if target.exists():
            found = open_packed(target, root).meta
            if (found["source"].get("sha256"), found["options"]) != (job.source["sha256"], job.options):
                raise Failure(
                    USAGE,
                    f"{target} was prepared from another source or with other options",
                    "remove it first or pick another name",
                )
        else:
            with new_folder(target) as folder:
                writer = Writer(folder, progress)
                about = job.pack(writer)
                writer.finish(name, job.recipe, job.source or about or {}, job.options)
        folders = target.with_name(f"{name}-folders")
        if as_folders and not folders.exists():
            with new_folder(folders) as folder:
                job.write_folders(folder)
        return open_packed(target, root)


def check(name: str, source: str | None, recipe: str | None, as_folders: bool) -> None:
    """Failure 64 or 65 for what can be told before the source is read."""
    if recipe not in (None, *RECIPES):
        raise Failure(USAGE, f"unknown recipe '{recipe}'", offered(recipe, RECIPES, limit=len(RECIPES)))
    if recipe in EMBEDDED and source is not None:
        raise Failure(USAGE, f"{recipe} comes with installed packages", "leave --source away")
    if source is None and recipe not in (*OFFICIAL, *EMBEDDED):
        near = nearest(name, (*OFFICIAL, *EMBEDDED))
        raise Failure(
            USAGE,
            f"'{name}' is not a data set that can be downloaded ({', '.join(OFFICIAL)})",
            f"did you mean {near}? else " * bool(near) + "add --source with an archive, a folder or hub:ID",
        )
    if source is not None and not source.startswith("hub:") and not (source and Path(source).exists()):
        missing, near = source or "source of an empty name", nearest(source, beside(source))
        fix = f"did you mean {quoted(near)}?" if near else "check the path after --source"
        raise Failure(DATA, f"there is no {missing}", fix)
    if as_folders and recipe not in (None, "tiny_imagenet"):
        raise Failure(USAGE, "--as-folders works with tiny_imagenet only", "leave it away")


@dataclass
class _Job:
    """What to pack and how: chosen before anything is written."""

    recipe: str
    source: dict[str, Any]  # for meta.json; empty for the embedded sets, whose `pack` returns it
    options: dict[str, Any]
    pack: Callable[[Writer], dict | None]
    write_folders: Callable[[Path], None] = lambda folder: None


def _module(recipe: str):
    return import_module(f"relaunch.data_prep.{recipe}")


def _job(
    recipe: str | None, source: str | None, root: Path, size: int | None, columns: dict, show: bool
) -> _Job:
    options = {key: value for key, value in {"size": size, "columns": columns}.items() if value}
    if recipe in EMBEDDED:
        _allow(options, recipe)
        return _Job(recipe, {}, {}, _module(recipe).pack)
    if source and (
        recipe == "hub" or source.startswith("hub:") or recipe is None and hub.is_local(Path(source))
    ):
        loaded = hub.Hub(source, columns)
        _allow(options, "texts" if loaded.is_text else "hub", "columns", *[] if loaded.is_text else ["size"])
        return _Job("hub", loaded.digest(), options, lambda writer: loaded.pack(writer, size))
    reader = archive.open_source(Path(source) if source else _downloaded(recipe, root, show))
    recipe, roles = _recognise(recipe, reader)
    module = _module(recipe)
    _allow(options, recipe, *["size"] if recipe == "folder" else [])
    return _Job(
        recipe,
        reader.digest(roles, getattr(module, "PUBLISHED", {})),
        options,
        lambda writer: module.pack(reader, roles, writer, **options),
        lambda folder: module.write_folders(reader, roles, folder, show),
    )


def _downloaded(recipe: str, root: Path, show: bool) -> Path:
    """The official archive, or the folder that holds its files, below ROOT/.downloads."""
    module, folder = _module(recipe), root / ".downloads" / recipe
    for file, urls in module.URLS.items():
        download(urls, module.PUBLISHED[file], folder / file, show)
    return folder if len(module.URLS) > 1 else folder / file


def _allow(options: dict, recipe: str, *allowed: str) -> None:
    if bad := set(options) - set(allowed):
        raise Failure(USAGE, f"--{bad.pop()} does not work with {recipe}", "leave it away")


def _recognise(recipe: str | None, reader: archive.Source) -> tuple[str, dict]:
    """(recipe, file name -> role). Failure 65 says what is missing, and what the source looks like."""
    if recipe and (roles := _module(recipe).find(reader)):
        return recipe, roles
    others = (other for other in ARCHIVES if other != recipe)
    looks, found = next(((other, r) for other in others if (r := _module(other).find(reader))), (None, {}))
    if recipe is None and looks:
        return looks, found
    if recipe is None:
        raise Failure(
            DATA,
            f"{reader.name} is no data set that prep knows",
            f"say which with --as; it reads {', '.join(RECIPES)}",
        )
    module = _module(recipe)
    if looks:
        name = looks if looks in OFFICIAL else f"NAME --as {looks}"
        raise Failure(
            DATA,
            f"{reader.name} is not {module.TITLE}: it looks like {_module(looks).TITLE}",
            f"run: relaunch prep {name} --source {quoted(str(reader.path))}",
        )
    raise Failure(
        DATA, f"{reader.name} is not {module.TITLE}: it lacks {module.NEEDS}", "check what --source points to"
    )
