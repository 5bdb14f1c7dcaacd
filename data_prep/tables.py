"""Loading what `datasets` reads: a Hub id, or parquet, arrow, csv and save_to_disk files on disk.

    load("hub:user/set:config")    # {"train": [Dataset], "validation": [Dataset]}

A split is several datasets where its files do not number their classes alike: `datasets` gives all of them
the names of the first.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relaunch.data_prep.errors import DATA, STORAGE, USAGE, Failure
from relaunch.data_prep.names import printable
from relaunch.data_prep.splits import split_of

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
    return not in_classes and any(split_of(name) == "train" for name in _csv_tables(path))


def load(source: str) -> dict[str, list[Any]]:
    """Split, as the source names it -> its datasets. Failure 64 for a configuration that is not there or not
    named, 65 for what cannot be loaded, 73 for a cache of the library's that cannot be written."""
    import datasets
    from huggingface_hub.utils import logging

    datasets.disable_progress_bars()
    logging.set_verbosity_error()  # its retries without a network are not for users to read
    try:
        return _load(source)
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


def _load(source: str) -> dict[str, list[Any]]:
    import datasets

    if source.startswith("hub:"):
        name, _, config = source.removeprefix("hub:").partition(":")
        return _built(datasets.load_dataset_builder(name, _chosen(name, config)))
    path = Path(source)
    if path.is_dir() and any((path / file).exists() for file in SAVED):
        loaded = datasets.load_from_disk(str(path))
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        return {split: [rows] for split, rows in splits.items()}
    if path.is_dir():
        if not next(path.rglob("*.parquet"), None) and (tables := _csv_tables(path)):
            return {split: [_read("csv", file)] for split, file in tables.items()}
        return _built(datasets.load_dataset_builder(str(path), _chosen(str(path), "")))
    return {"train": [_read(TABLES[path.suffix.lower()], path)]}


def _csv_tables(folder: Path) -> dict[str, Path]:
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in (".csv", ".tsv")]
    return {file.stem: file for file in files if split_of(file.stem)}


def _read(kind: str, file: Path | str) -> Any:
    import datasets

    more = {"sep": "\t"} if str(file).lower().endswith(".tsv") else {}
    return datasets.load_dataset(kind, data_files=str(file), split="train", **more)


def _chosen(name: str, config: str) -> str | None:
    """The configuration to load. Failure 64 lists them where none is chosen and none is the default."""
    import datasets

    configs = datasets.get_dataset_config_names(name)
    listed = ", ".join(map(printable, configs[:20])) + f" and {len(configs) - 20:,} more" * (
        len(configs) > 20
    )
    if config and config not in configs:
        raise Failure(USAGE, f"{name} has no configuration '{config}'", f"it has: {listed}")
    if not config and len(configs) > 1 and not datasets.get_dataset_default_config_name(name):
        raise Failure(
            USAGE,
            f"{name} has {len(configs)} configurations: {listed}",
            f"choose one: --source hub:{name}:{configs[0]}",
        )
    return config or None


def _built(builder: Any) -> dict[str, list[Any]]:
    """All splits of a builder; file by file where its files name their classes in different orders."""
    import datasets

    kind = {"Parquet": "parquet", "Arrow": "arrow"}.get(type(builder).__name__)
    files: dict[str, list[str]] = {}
    if kind and builder.config.data_files:
        cache = datasets.DownloadConfig(token=builder.token, storage_options=builder.storage_options)
        manager = datasets.DownloadManager(dataset_name=builder.dataset_name, download_config=cache)
        files = {split: manager.download(list(urls)) for split, urls in builder.config.data_files.items()}
        if len({json.dumps(_class_names(kind, file)) for names in files.values() for file in names}) > 1:
            return {split: [_read(kind, file) for file in names] for split, names in files.items()}
    builder.download_and_prepare()
    return {split: [rows] for split, rows in builder.as_dataset().items()}


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
