"""Prepares a data set: official archive, image folder, text files or Hugging Face dataset -> packed arrays.

python -m data_prep.prep mnist                                         (downloads it)
python -m data_prep.prep cifar10 --source cifar-10-python.tar.gz --out data
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from relaunch.data_prep import archive, hub, packed
from relaunch.data_prep.download import download
from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.data_prep.packed import EMBEDDED, OFFICIAL, Packed, open_packed

ARCHIVES = (*OFFICIAL, "folder", "text")  # read through archive.py; looked for in this order
RECIPES = (*ARCHIVES, "hub", *EMBEDDED)


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
    """Packs `source` into ROOT/NAME and opens it; a set that is there from the same source is left alone.

    `recipe` is one of RECIPES, by default `name` if it is one, else what the source looks like. Safe to start
    several times at once and to kill at any time. Failure 64 (usage), 65 (source), 73 (storage).
    """
    root = packed.data_root(str(root) if root else None)
    target, source = root / name, None if source is None else str(source)
    recipe = recipe or (name if name in RECIPES else None)
    if recipe not in (None, *RECIPES):
        raise Failure(USAGE, f"unknown recipe '{recipe}'", f"use one of: {', '.join(RECIPES)}")
    if recipe in EMBEDDED and source is not None:
        raise Failure(USAGE, f"{recipe} comes with installed packages", "leave --source away")
    if source is None and recipe not in (*OFFICIAL, *EMBEDDED):
        raise Failure(
            USAGE,
            f"'{name}' is not a data set that can be downloaded ({', '.join(OFFICIAL)})",
            "add --source with an archive, a folder or hub:ID",
        )
    if source is not None and not source.startswith("hub:") and not (source and Path(source).exists()):
        raise Failure(
            DATA, f"there is no {source or 'source of an empty name'}", "check the path after --source"
        )
    if as_folders and recipe not in (None, "tiny_imagenet"):
        raise Failure(USAGE, "--as-folders works with tiny_imagenet only", "leave it away")
    if target.exists() and not source and not as_folders:
        return open_packed(target, root)
    with packed.exclusive(root, name):
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
            with packed.new_folder(target) as folder:
                writer = packed.Writer(folder, progress)
                about = job.pack(writer)
                writer.finish(name, job.recipe, job.source or about, job.options)
        folders = target.with_name(f"{name}-folders")
        if as_folders and not folders.exists():
            with packed.new_folder(folders) as folder:
                job.write_folders(folder)
        return open_packed(target, root)


@dataclass
class _Job:
    """What to pack and how: chosen before anything is written."""

    recipe: str
    source: dict  # for meta.json; empty for the embedded sets, whose `pack` returns it
    options: dict
    pack: Callable[[packed.Writer], dict | None]
    write_folders: Callable[[Path], None] | None = None


def _job(
    recipe: str | None, source: str | None, root: Path, size: int | None, columns: dict, show: bool
) -> _Job:
    options = {key: value for key, value in {"size": size, "columns": columns}.items() if value}
    if recipe in EMBEDDED:
        _allow(options, recipe)
        return _Job(recipe, {}, {}, import_module(f"relaunch.data_prep.{recipe}").pack)
    if source and (
        recipe == "hub" or source.startswith("hub:") or recipe is None and hub.is_local(Path(source))
    ):
        loaded = hub.Hub(source, columns)
        _allow(options, "texts" if loaded.is_text else "hub", "columns", *[] if loaded.is_text else ["size"])
        return _Job("hub", loaded.digest(), options, lambda writer: loaded.pack(writer, size))
    if source is None:
        module, folder = import_module(f"relaunch.data_prep.{recipe}"), root / ".downloads" / recipe
        for file, urls in module.URLS.items():
            download(urls, module.PUBLISHED[file], folder / file, show)
        source = folder if len(module.URLS) > 1 else folder / file
    reader = archive.open_source(Path(source))
    recipe, roles = _recognise(recipe, reader, source)
    module = import_module(f"relaunch.data_prep.{recipe}")
    _allow(options, recipe, *["size"] if recipe == "folder" else [])
    return _Job(
        recipe,
        reader.digest(roles, getattr(module, "PUBLISHED", {})),
        options,
        lambda writer: module.pack(reader, roles, writer, **options),
        lambda folder: module.write_folders(reader, roles, folder, show),
    )


def _allow(options: dict, recipe: str, *allowed: str) -> None:
    if bad := set(options) - set(allowed):
        raise Failure(USAGE, f"--{bad.pop()} does not work with {recipe}", "leave it away")


def _recognise(recipe: str | None, reader: archive.Source, source) -> tuple[str, dict]:
    """(recipe, file name -> role). Failure(65) says what was looked for, and what the source looks like instead."""
    if recipe and (roles := import_module(f"relaunch.data_prep.{recipe}").find(reader)):
        return recipe, roles
    found = {
        other: roles
        for other in ARCHIVES
        if other != recipe and (roles := import_module(f"relaunch.data_prep.{other}").find(reader))
    }
    looks = next(iter(found), None)
    if recipe is None and looks:
        return looks, found[looks]
    if recipe is None:
        raise Failure(
            DATA,
            f"{reader.name} is no data set that prep knows",
            f"say which with --as; it reads {', '.join(RECIPES)}",
        )
    module = import_module(f"relaunch.data_prep.{recipe}")
    if looks:
        raise Failure(
            DATA,
            f"{reader.name} is not {module.TITLE}: it looks like {import_module(f'relaunch.data_prep.{looks}').TITLE}",
            f"run: relaunch prep {looks if looks in OFFICIAL else f'NAME --as {looks}'} --source {shlex.quote(str(source))}",
        )
    raise Failure(
        DATA, f"{reader.name} is not {module.TITLE}: it lacks {module.NEEDS}", "check what --source points to"
    )


def describe(data: Packed) -> str:
    """One line: `mnist: train 60,000, test 10,000 images 28x28x1, 10 classes, 55.0 MB in data/mnist`."""
    counts = ", ".join(f"{split} {count:,}" for split, count in data.splits.items())
    if data.kind == "images":
        shape = "x".join(map(str, next(iter(data.meta["splits"].values()))["shape"]))
        what = f"images {shape}, {len(data.classes)} classes"
    else:
        what = f"tokens of {data.meta['arrays']['vocab.txt']['shape'][0]:,} words"
    size = sum(facts["bytes"] for facts in data.meta["arrays"].values()) / 1e6
    return f"{data.name}: {counts} {what}, {size:,.1f} MB in {data.path}"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Failure(USAGE, message, f"see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="relaunch prep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Prepare a data set: its official archive, or your own images or texts, become packed arrays in ROOT/NAME.",
        epilog="""examples:
  relaunch prep mnist                                          download the official files and pack them
  relaunch prep cifar10 --source cifar-10-python.tar.gz        the archive (or its extracted folder) is already here
  relaunch prep tiny_imagenet --source tiny-imagenet-200.zip --as-folders
  relaunch prep flowers --source my_images --size 64           my_images/{train,val}/<class>/*.jpg
  relaunch prep book --source my_texts                         my_texts/{train,valid,test}.txt
  relaunch prep mine --source hub:user/dataset --columns image=photo,label=species
  relaunch prep mnist --verify                                 hash a prepared set again
then train on it by name:  relaunch train cifar10 --data NAME""",
    )
    parser.add_argument(
        "name", metavar="NAME", help="what the set will be called; a recipe's name also chooses that recipe"
    )
    parser.add_argument(
        "--source",
        metavar="PATH|hub:ID",
        help="archive (zip, tar), folder, parquet file or Hub id; default: download, for "
        + ", ".join(OFFICIAL),
    )
    parser.add_argument(
        "--as",
        dest="recipe",
        metavar="RECIPE",
        help="how to read it: "
        + ", ".join(RECIPES)
        + "; default: NAME if it is one, else by looking at the source",
    )
    parser.add_argument(
        "--out",
        "--data-root",
        metavar="ROOT",
        help="folder of the packed sets (default: $RELAUNCH_DATA, else data)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="resize the short side to N pixels and crop the centre (image folders, Hub); needed when sizes differ",
    )
    parser.add_argument(
        "--columns", metavar="ROLE=COLUMN,…", help="Hub and parquet: image=…,label=… or text=…"
    )
    parser.add_argument(
        "--as-folders",
        action="store_true",
        help="tiny_imagenet: also write ROOT/NAME-folders/{train,val}/<wnid>/*.JPEG for ImageFolder",
    )
    parser.add_argument(
        "--verify", action="store_true", help="hash the prepared set ROOT/NAME again and compare"
    )
    return parser


def _columns(text: str | None) -> dict[str, str]:
    pairs = dict(pair.partition("=")[::2] for pair in text.split(",")) if text else {}
    if not all(pairs.values()) or set(pairs) - {"image", "label", "text"}:
        raise Failure(
            USAGE,
            f"--columns {text} is not understood",
            "write --columns image=COLUMN,label=COLUMN or --columns text=COLUMN",
        )
    return pairs


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (DESIGN: 0, 64, 65, 73, and 75 when stopped by Ctrl-C)."""
    try:
        args = _parser().parse_args(argv)
        if args.size is not None and args.size < 1:
            raise Failure(USAGE, f"--size {args.size} is not a number of pixels", "use for example --size 64")
        root, started = packed.data_root(args.out), time.perf_counter()
        if args.verify:
            data = open_packed(args.name, root)
            packed.verify(data)
            print(f"{describe(data)}: every array has the SHA-256 of its meta.json")
            return 0
        existed = (root / args.name).exists()
        data = prepare(
            args.name, args.source, args.recipe, root, args.size, _columns(args.columns), args.as_folders
        )
        note = "was already there" if existed else f"{time.perf_counter() - started:.1f} s"
        print(f"{describe(data)} ({note})")
        if data.meta["source"].get("as_published") is False and not existed:
            print(
                f"note: {data.meta['source']['file']} is not byte for byte the published one; its contents are well formed"
            )
        return 0
    except Failure as failure:
        print(failure.line(), file=sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        print(
            Failure(PREEMPTED, "stopped; nothing was left half-written", "run the same command again").line(),
            file=sys.stderr,
        )
        return PREEMPTED


if __name__ == "__main__":
    sys.exit(main())
