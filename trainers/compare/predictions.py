"""Predictions of a checkpoint on a split: one row per sample, in Parquet; equal predictions are equal bytes.

    p = read("runs/first/predictions/val-000001200.parquet")
    p.label, p.pred, p.nll            # numpy, in the order of the ids 0..N-1
    p.facts["model_sha256"]           # which weights, on which data and split

What belongs to the launch (world, device, time, metrics, versions) lies in the .json beside it.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import math
import platform
import re
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relaunch.data_prep import VERSION, files, npy
from relaunch.data_prep.errors import DATA, Failure
from relaunch.trainers import rundir
from relaunch.trainers.tasks.images import ImageTask
from relaunch.trainers.tasks.task import Facts
from relaunch.trainers.tasks.text import TextTask

SCHEMA = 2  # 1 did not say the roles of its columns, nor the metrics
FACTS = "relaunch"  # the only key of the schema's metadata: the order of several would not be ours
OLD_TASKS = {task.kind: task for task in (ImageTask(), TextTask())}  # whose predictions had schema 1
ARROW = {"int32": pa.int32(), "float32": pa.float32()}


@dataclass
class Predictions:
    """One row per sample, whose id is the row's number. Its columns are attributes: p.label, p.nll.

    Of classes, label and pred are their numbers; of text, ids of the words at position id + 1.
    """

    columns: dict[str, np.ndarray]  # [N], or [N,k]
    roles: Facts
    facts: dict  # workload, kind, split, step, model_sha256, data, data_hash, n
    path: Path

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["columns"][name]
        except KeyError:
            raise AttributeError(f"no column {name}") from None

    @property
    def loss(self) -> np.ndarray:
        """float32 [N], lower is better."""
        return self.columns[self.roles.loss]

    @property
    def truth(self) -> np.ndarray | None:
        return self.columns.get(self.roles.truth or "")

    @property
    def guess(self) -> np.ndarray | None:
        return self.columns.get(self.roles.guess or "")

    @property
    def sure(self) -> np.ndarray | None:
        """float32 [N] in 0..1: how sure the guess was."""
        return self.columns.get(self.roles.sure or "")

    def __len__(self) -> int:
        return self.facts["n"]

    def about(self) -> dict:
        """What the .json beside them says of how they were made; empty where it was not copied along."""
        try:
            about = files.parse_json(files.read_small(self.path.with_suffix(".json")))
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    def data_path(self) -> Path | None:
        """Where the packed set lay when they were made, if that is known."""
        path = self.about().get("data_path")
        return Path(path) if isinstance(path, str) else None

    def outputs(self) -> np.ndarray | None:
        """What the model said, float [N,…], where `evaluate --outputs` wrote it beside them."""
        path = self.path.with_suffix(".outputs.npy")
        if not path.is_file():  # a pipe would be waited for
            return None
        try:
            found = npy.load(path, "r")
        except (OSError, ValueError):
            return None
        return found if found.ndim and len(found) == len(self) else None


def place(folder: Path, split: str, source, packed=None) -> Path:
    """Where the predictions of a Source on a split lie; foreign weights without a step go by their hash.

    On another set than the one that it was trained on (`packed`; None: that very one) they have its name.
    """
    step = source.sha256[:12] if source.step is None else f"{source.step:09d}"
    trained = source.about.get("data_hash")
    other = f"{packed.name}-" if packed and trained and packed.hash != trained else ""
    return folder / f"{other}{split}-{step}.parquet"


def found(path: Path, source, data_hash: str, split: str) -> Predictions | None:
    """The predictions of this very checkpoint, split and data, if they lie there. Failure 65 if damaged."""
    if not path.exists():
        return None
    there = read(path)
    this = (source.sha256, data_hash, split)
    return there if tuple(there.facts[k] for k in ("model_sha256", "data_hash", "split")) == this else None


def write(
    out: Path,
    rows: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
    *,
    source,
    config,
    roles: Facts,
    packed,
    split: str,
    metrics: dict[str, float],
    launch: dict,
    inputs: dict | None = None,
) -> Path:
    """Write `rows` (Predictions' columns, and id int64 [N]) into the folder `out`; returns the Parquet file.

    Columns of k numbers a row, [N,k], are lists there. `inputs` (task.inputs) say what the model was given:
    other numbers, other predictions. `outputs`, float [N,…] by name (`outputs`, of several `outputs.NAME`),
    go to `….outputs.npy`. Failure 73 if the folder cannot be written to.
    """
    path = place(out, split, source, packed)
    wide = {
        name: f"{dtype.removesuffix('[]')}[]" for name, dtype in roles.columns.items() if rows[name].ndim > 1
    }
    facts = {
        "schema": SCHEMA,
        "workload": config.workload,
        "kind": packed.kind,
        "split": split,
        "step": source.step,
        "model_sha256": source.sha256,
        "data": packed.name,
        "data_hash": packed.hash,
        "n": len(rows["id"]),
        "roles": asdict(replace(roles, columns={**roles.columns, **wide})),
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        **({"inputs": inputs} if inputs else {}),
    }
    beside = {
        **facts,
        "source": source.name,
        "config": config.to_json(),
        "data_path": str(packed.path.resolve()),
        **launch,
        "host": platform.node(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "python": platform.python_version(),
            "relaunch": VERSION,
            **{name: version(name) for name in ("torch", "numpy", "pyarrow")},
        },
    }
    with files.storage(out, "--out FOLDER"):
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob(f"{glob.escape(path.stem)}.outputs*.npy"):  # an earlier evaluation's
            old.unlink(missing_ok=True)
        for name, values in outputs.items():
            content, ending = io.BytesIO(), re.sub(r"[^\w.-]", "_", name)  # names are a model's own
            np.save(content, values)
            files.write_atomic(path.with_suffix(f".{ending}.npy"), content.getbuffer())
        files.write_atomic(path.with_suffix(".json"), files.dump_json(beside))
        files.write_atomic(path, encode(rows, facts))
    return path


def told(inputs: dict) -> str:
    """What the model was given, in words; `inputs` are those of the facts."""
    mean, std = (" ".join(f"{x:.4g}" for x in inputs[key]) for key in ("mean", "std"))
    words = [f"normalised by mean {mean}, deviation {std}"]
    words += [f"{key} {inputs[key]}" for key in ("resize", "crop", "views", "classes") if key in inputs]
    if "images" in inputs:
        words.append(f"of the {inputs['images']}")
    return ", ".join(words)


def encode(rows: dict[str, np.ndarray], facts: dict) -> pa.Buffer:
    """A Parquet file's bytes: a function of rows and facts alone."""
    columns = {"id": pa.array(rows["id"], pa.int64())}
    for name, dtype in facts["roles"]["columns"].items():
        values = pa.array(rows[name].ravel(), ARROW[dtype.removesuffix("[]")])
        wide = dtype.endswith("[]")
        columns[name] = pa.FixedSizeListArray.from_arrays(values, rows[name].shape[1]) if wide else values
    table = pa.table(columns)
    signed = json.dumps({**facts, "sha256": digest(table, facts)}, sort_keys=True)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({FACTS: signed}), sink, compression="zstd")
    return sink.getvalue()


def digest(table: pa.Table, facts: dict) -> str:
    """SHA-256 of the columns' values and the facts: Parquet's checksums miss damage in headers and footer."""
    sha = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, column in zip(table.column_names, table.columns):
        values = column.combine_chunks()
        values = values.flatten() if pa.types.is_fixed_size_list(values.type) else values
        sha.update(f"{name} {values.type}".encode())
        sha.update(values.to_numpy().data)
    return sha.hexdigest()


def read(path: str | Path) -> Predictions:
    """Predictions that `write` wrote, checked to the bit. Failure 65 for anything else."""
    path = Path(path)
    try:
        files.open_plain(path).close()  # a pipe would be waited for
        # not pq.read_table: it takes a folder for one table, and `key=value` in a path for a column
        with pq.ParquetFile(path) as file:
            facts = files.parse_json(file.schema_arrow.metadata[FACTS.encode()])
            if facts["schema"] not in (1, SCHEMA):
                raise Failure(
                    DATA,
                    f"{path} has schema {facts['schema']}, this version reads {SCHEMA}",
                    "evaluate again",
                )
            table = file.read()
        if facts.pop("sha256") != digest(table, facts):
            raise ValueError("its SHA-256 differs from the one in it")
        columns = {}
        for name in table.column_names:
            values = table[name].combine_chunks()
            wide = pa.types.is_fixed_size_list(values.type)
            columns[name] = values.flatten().to_numpy().reshape(len(table), -1) if wide else values.to_numpy()
        if not np.array_equal(columns.pop("id"), np.arange(facts["n"])):
            raise ValueError("its ids are not 0, 1, 2, …")
        said = facts.get("roles")
        roles = Facts(**said | {"best": tuple(said["best"])}) if said else OLD_TASKS[facts["kind"]].facts
        return Predictions(columns, roles, facts, path)
    except FileNotFoundError:
        raise Failure(DATA, f"there is no {path}", rundir.instead(str(path))) from None
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        reason = "nothing in it says what it predicts" if isinstance(error, (KeyError, TypeError)) else error
        raise Failure(
            DATA, f"{path} is not a whole predictions file ({reason})", "write it again: relaunch evaluate"
        ) from error
