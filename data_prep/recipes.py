"""Preparing: choose the recipe that reads a source, and pack it once, whoever else does the same.

    prepare("cifar10", "cifar-10-python.tar.gz", root="data")
    ensure("digits", "data")

A recipe is a module of this folder: `find(source)` says which files it would read and as what, `pack` packs
them with a Writer. `find_whole` is asked last: it finds what only a Holdout makes a set with validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from relaunch.data_prep import archive, hub, tables
from relaunch.data_prep.download import download
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.images import is_image
from relaunch.data_prep.making import exclusive, new_folder
from relaunch.data_prep.names import beside, nearest, offered, printable, quoted
from relaunch.data_prep.packed import EMBEDDED, OFFICIAL, Packed, data_root, not_packed_yet, open_packed
from relaunch.data_prep.splits import Holdout
from relaunch.data_prep.writer import Writer

ARCHIVES = (*OFFICIAL, "folder", "text", "arrays")  # read through archive.py; looked for in this order
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
    val_fraction: float | None = None,
    holdout: int | None = None,
) -> Packed:
    """Pack `source` into ROOT/NAME and open it. Never replaces a set: one that is there is opened if it came
    from the same source with the same options, and refused otherwise.

    `recipe` is one of RECIPES, by default `name` if it is one, else what the source looks like. `size` is in
    pixels. `val_fraction` of train, or `holdout` images (words, for texts), become val. Safe to start several
    times at once and to kill at any time. Failure 64 (usage), 65 (source), 73 (storage).
    """
    root = data_root(str(root) if root else None)
    target, source = root / name, None if source is None else str(source)
    recipe = recipe or (name if name in RECIPES else None)
    check(name, source, recipe, as_folders)
    asked = {"size": size, "columns": columns, "val_fraction": val_fraction, "holdout": holdout}
    options = {key: value for key, value in asked.items() if value}
    taken = Holdout(val_fraction, holdout) if val_fraction or holdout else None
    if target.exists() and not source and not as_folders:
        return _same(open_packed(target, root), options)
    with exclusive(root, name):
        if target.exists() and recipe in EMBEDDED:  # another process has packed it while we waited
            return _same(open_packed(target, root), options)
        job = _job(recipe, source, root, options, progress)
        if target.exists():
            _same(open_packed(target, root), options, job.source["sha256"])
        else:
            with new_folder(target) as folder:
                writer = Writer(folder, progress, taken)
                about = job.pack(writer)
                writer.finish(name, job.recipe, job.source or about or {}, options)
        folders = target.with_name(f"{name}-folders")
        if as_folders and not folders.exists():
            with new_folder(folders) as folder:
                job.write_folders(folder)
        return open_packed(target, root)


def _same(found: Packed, options: dict, sha256: str | None = None) -> Packed:
    """The set that is there, if it is the one that was asked for: another split is another. Failure 64."""
    other = []
    if options != (had := found.meta["options"]):
        other.append(f"with other options ({_spelled(had)}, not {_spelled(options)})")
    if sha256 and sha256 != found.meta["source"].get("sha256"):
        other.insert(0, "from another source")
    if other:
        raise Failure(
            USAGE,
            f"{found.path} was prepared {' and '.join(other)}",
            "pick another name: prep never replaces a set",
        )
    return found


def _spelled(options: dict) -> str:
    """Options as they are typed: `--size 64 --val-fraction 0.1`."""
    flat = {key: ",".join(map("=".join, v.items())) if key == "columns" else v for key, v in options.items()}
    return " ".join(f"--{key.replace('_', '-')} {value}" for key, value in flat.items()) or "none"


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
    pack: Callable[[Writer], dict | None]
    write_folders: Callable[[Path], None] = lambda folder: None


def _module(recipe: str):
    return import_module(f"relaunch.data_prep.{recipe}")


def _job(recipe: str | None, source: str | None, root: Path, options: dict, show: bool) -> _Job:
    if recipe in EMBEDDED:
        _allow(options, recipe)
        return _Job(recipe, {}, _module(recipe).pack)
    size = options.get("size")
    if source and (
        recipe == "hub" or source.startswith("hub:") or recipe is None and tables.is_local(Path(source))
    ):
        loaded = hub.Hub(source, options.get("columns", {}))
        _allow(options, "texts" if loaded.is_text else "hub", "columns", *[] if loaded.is_text else ["size"])
        return _Job("hub", loaded.digest(), lambda writer: loaded.pack(writer, size))
    reader = archive.open_source(Path(source) if source else _downloaded(recipe, root, show))
    recipe, roles = _recognise(recipe, reader)
    module = _module(recipe)
    _allow(options, recipe, *["size"] if recipe == "folder" else [])

    def pack(writer: Writer) -> None:
        writer.left_out.found.update(reader.left_out.found)
        if recipe != "folder":  # which says why, file by file
            for name in reader.sizes:
                if name not in roles:
                    writer.left_out.add("other files", name)
        module.pack(reader, roles, writer, **({"size": size} if size else {}))

    return _Job(
        recipe,
        reader.digest(roles, getattr(module, "PUBLISHED", {})),
        pack,
        lambda folder: module.write_folders(reader, roles, folder, show),
    )


def _downloaded(recipe: str, root: Path, show: bool) -> Path:
    """The official archive, or the folder that holds its files, below ROOT/.downloads."""
    module, folder = _module(recipe), root / ".downloads" / recipe
    for file, urls in module.URLS.items():
        download(urls, module.PUBLISHED[file], folder / file, show)
    return folder if len(module.URLS) > 1 else folder / file


def _allow(options: dict, recipe: str, *allowed: str) -> None:
    if bad := set(options) - {*allowed, "val_fraction", "holdout"}:
        raise Failure(USAGE, f"--{min(bad)} does not work with {recipe}", "leave it away")


def _find(recipe: str, reader: archive.Source, finder: str) -> dict | None:
    return getattr(_module(recipe), finder, lambda source: None)(reader)


def _recognise(recipe: str | None, reader: archive.Source) -> tuple[str, dict]:
    """(recipe, file name -> role). Failure 65 says what is missing, and what the source looks like."""
    finders = ("find", "find_whole")
    if recipe and (roles := next(filter(None, (_find(recipe, reader, finder) for finder in finders)), None)):
        return recipe, roles
    others = [(other, finder) for finder in finders for other in ARCHIVES if other != recipe]
    looks, found = next(
        ((other, roles) for other, finder in others if (roles := _find(other, reader, finder))), (None, {})
    )
    if recipe is None and looks:
        also = [other for other in OFFICIAL if other != looks and _find(other, reader, "find")]
        if looks in OFFICIAL and also:
            titles = ", ".join(_module(each).TITLE for each in (looks, *also))
            raise Failure(DATA, f"{reader.name} holds several sets: {titles}", f"choose one: --as {looks}")
        return looks, found
    if recipe and looks:
        name = looks if looks in OFFICIAL else f"NAME --as {looks}"
        raise Failure(
            DATA,
            f"{reader.name} is not {_module(recipe).TITLE}: it looks like {_module(looks).TITLE}",
            f"run: relaunch prep {name} --source {quoted(str(reader.path))}",
        )
    holds = f"{reader.name} holds {_summary(reader)}"
    differs = [text for each in ("folder", "text", "arrays") if (text := _module(each).differs(reader))]
    if recipe:
        module = _module(recipe)
        why = f"it lacks {module.NEEDS}; " + "; ".join([holds, *differs])
        raise Failure(DATA, f"{reader.name} is not {module.TITLE}: {why}", "check what --source points to")
    raise Failure(
        DATA,
        f"{reader.name} is no data set that prep knows: {'; '.join([holds, *differs])}",
        f"{_table_beside(reader)}expected is {_module('folder').NEEDS}, <class>/*.jpg with --val-fraction, "
        f"{_module('text').NEEDS}, "
        f"one text with --val-fraction, {_module('arrays').NEEDS}, or the files of {', '.join(OFFICIAL)}",
    )


def _table_beside(reader: archive.Source) -> str:
    """What to type where a table in a folder of images may say their classes."""
    tables = sorted(name for name in reader.sizes if name.lower().endswith((".csv", ".tsv")))
    if not tables or not reader.path.is_dir() or not any(map(is_image, reader.sizes)):
        return ""
    path = quoted(str(reader.path / tables[0]))
    return f"if {printable(tables[0])} says which image is what: --source {path} --columns image=…,label=…; "


def _summary(reader: archive.Source) -> str:
    """What lies in a source, for somebody who expected something else: `12 .npy and 2 .json in a/, b/`."""
    if not reader.sizes:
        return "no files"
    endings = Counter(Path(name).suffix.lower() or "without an ending" for name in reader.sizes)
    folders = sorted({name.split("/")[0] + "/" for name in reader.sizes if "/" in name})
    kinds = " and ".join(f"{count:,} {printable(ending)}" for ending, count in endings.most_common(3))
    others = len(endings) - 3
    kinds += f" and {others} other kinds" if others > 0 else ""
    inside = f" in {', '.join(map(printable, folders[:4]))}{', …' * (len(folders) > 4)}" if folders else ""
    return f"files of these kinds: {kinds}{inside}"
