"""Loading what `datasets` reads: a Hub id, or parquet, arrow, csv and save_to_disk files on disk.

    load("hub:user/set:config", Tally())    # {"train": [Dataset], "validation": [Dataset]}

A split is several datasets where its files do not number their classes alike: `datasets` gives all of them
the names of the first.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relaunch.data_prep.errors import DATA, STORAGE, USAGE, Failure
from relaunch.data_prep.names import listed, offered
from relaunch.data_prep.splits import split_of
from relaunch.data_prep.tally import Tally

TABLES = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv"}
SAVED = ("dataset_dict.json", "state.json")  # save_to_disk's
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


def is_local(path: Path) -> bool:
    """Whether a path is a table or a folder of tables: what `datasets` writes, or train.csv beside images
    that lie in no class folders."""
    if path.suffix.lower() in TABLES or not path.is_dir():
        return path.suffix.lower() in TABLES
    if any(next(path.glob(pattern), None) for pattern in (*SAVED, "*.parquet", "*/*.parquet", "*.arrow")):
        return True
    trains = (inner for inner in path.iterdir() if inner.is_dir() and split_of(inner.name) == "train")
    in_classes = any(inner.is_dir() for train in trains for inner in train.iterdir())
    return not in_classes and any(split_of(name) == "train" for name in _csv_tables(path, Tally()))


def load(source: str, left_out: Tally) -> dict[str, list[Any]]:
    """Split, as the source names it -> its datasets; counts configurations and files that are not taken.

    Failure 64 for a configuration that is not there or not named, 65 for what cannot be loaded, 73 for a
    cache of the library's that cannot be written.
    """
    import datasets
    from huggingface_hub.utils import logging

    datasets.disable_progress_bars()
    logging.set_verbosity_error()  # its retries without a network are not for users to read
    try:
        return _load(source, left_out)
    except Failure:
        raise
    except Exception as error:  # the library raises dozens of kinds, from no network to a damaged file
        cache = datasets.config.HF_DATASETS_CACHE
        for cause in _causes(error):
            if isinstance(cause, OSError) and _of_cache(cause, source):
                raise Failure(
                    STORAGE,
                    f"datasets cannot write its cache {cache} ({cause.strerror or cause})",
                    "free some space, or name another folder: export HF_HOME=FOLDER",
                ) from None
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Failure(
            DATA,
            f"datasets cannot load {source}: {why[:300]}",
            "check the id and the network, or download it and pass its path",
        ) from None


def _load(source: str, left_out: Tally) -> dict[str, list[Any]]:
    import datasets

    if source.startswith("hub:"):
        name, _, config = source.removeprefix("hub:").partition(":")
        return _built(datasets.load_dataset_builder(name, _chosen(name, config, left_out)), left_out)
    path = Path(source)
    if path.is_dir() and any((path / file).exists() for file in SAVED):
        loaded = datasets.load_from_disk(str(path))
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        return {split: [rows] for split, rows in splits.items()}
    if path.is_dir():
        if not next(path.rglob("*.parquet"), None) and (tables := _csv_tables(path, left_out)):
            return {split: [_read("csv", file)] for split, file in tables.items()}
        return _built(datasets.load_dataset_builder(str(path), _chosen(str(path), "", left_out)), left_out)
    return _by_column(_read(TABLES[path.suffix.lower()], path))


def _csv_tables(folder: Path, left_out: Tally) -> dict[str, Path]:
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".csv", ".tsv")]
    for file in files:
        if not split_of(file.stem):
            left_out.add("tables whose names say no split", file.name)
    return {file.stem: file for file in files if split_of(file.stem)}


def _by_column(rows: Any) -> dict[str, list[Any]]:
    """A table by its column `split`, where all its values are names of splits; else all of it is train."""
    for column in ("split", "subset", "set", "partition"):
        values = list(rows[column]) if column in rows.features else []
        if values and all(isinstance(value, str) and split_of(value) for value in values):
            names = dict.fromkeys(values)
            return {
                name: [rows.select([row for row, value in enumerate(values) if value == name])]
                for name in names
            }
    return {"train": [rows]}


def _read(kind: str, file: Path | str) -> Any:
    import datasets

    more = {"sep": "\t"} if str(file).lower().endswith(".tsv") else {}
    return datasets.load_dataset(kind, data_files=str(file), split="train", **more)


def _chosen(name: str, config: str, left_out: Tally) -> str | None:
    """The configuration to load. Failure 64 lists them where none is chosen and none is the default."""
    import datasets

    configs = datasets.get_dataset_config_names(name)
    if config and config not in configs:
        fix = offered(config, configs, "it has:", limit=20)
        raise Failure(USAGE, f"{name} has no configuration '{config}'", fix)
    chosen = config or datasets.get_dataset_default_config_name(name)
    if not chosen and len(configs) > 1:
        raise Failure(
            USAGE,
            f"{name} has {len(configs)} configurations: {listed(configs, 20)}",
            f"choose one: --source hub:{name}:{configs[0]}",
        )
    for other in configs:
        if chosen and other != chosen:
            left_out.add("other configurations", other)
    return chosen or None


def _built(builder: Any, left_out: Tally) -> dict[str, list[Any]]:
    """All splits of a builder; file by file where its files name their classes in different orders."""
    import datasets

    names = {base.__name__ for base in type(builder).__mro__}  # its own class has a made-up name
    kind = next((kind for base, kind in (("Parquet", "parquet"), ("Arrow", "arrow")) if base in names), None)
    files: dict[str, list[str]] = {}
    if kind and builder.config.data_files:
        cache = datasets.DownloadConfig(token=builder.token, storage_options=builder.storage_options)
        manager = datasets.DownloadManager(dataset_name=builder.dataset_name, download_config=cache)
        files = {
            str(split): manager.download(list(urls)) for split, urls in builder.config.data_files.items()
        }
        taken = {os.path.realpath(file) for urls in files.values() for file in urls}
        for file in sorted(Path(builder.base_path or "nowhere").rglob(f"*.{kind}")):
            if os.path.realpath(file) not in taken:
                left_out.add("files that belong to no split", file.name)
        if len({json.dumps(_class_names(kind, file)) for urls in files.values() for file in urls}) > 1:
            return {split: [_read(kind, file) for file in urls] for split, urls in files.items()}
    builder.download_and_prepare()
    return {str(split): [rows] for split, rows in builder.as_dataset().items()}


def _class_names(kind: str, file: str) -> dict[str, list[str]]:
    """Column -> class names, as `datasets` wrote them into a file's schema."""
    import pyarrow
    import pyarrow.parquet

    if kind == "parquet":
        metadata = pyarrow.parquet.read_schema(file).metadata
    else:
        with pyarrow.memory_map(file) as opened:
            metadata = pyarrow.ipc.open_stream(opened).schema.metadata
    text = (metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in sorted(features.items())
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _of_cache(error: OSError, source: str) -> bool:
    """Whether it says that something could not be written, which is never the source itself."""
    place = str(error.filename or "")
    mine = not source.startswith("hub:") and place.startswith(source)
    return not mine and (error.errno in UNWRITABLE or "Not enough disk space" in str(error))
