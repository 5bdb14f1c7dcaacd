"""Predictions files without a model: rows as an evaluation makes them, of what nobody trained."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from relaunch.trainers import workloads
from relaunch.trainers.compare import predictions
from relaunch.trainers.config import parse

N, CLASSES = 400, 10


def scored(seed: int = 0, n: int = N, top5: bool = True) -> dict[str, np.ndarray]:
    """Rows as an evaluation makes them; without top5, those of a text."""
    random = np.random.default_rng(seed)
    label = np.random.default_rng(1).integers(0, CLASSES, n).astype(np.int32)
    order = np.argsort(random.random((n, CLASSES)), axis=1).astype(np.int32)
    pred = np.where(random.random(n) < 0.6, label, order[:, 0]).astype(np.int32)
    order[:, 0] = pred
    rows = {
        "label": label,
        "pred": pred,
        "confidence": random.random(n, dtype=np.float32),
        "id": np.arange(n),
        "nll": random.exponential(1, n).astype(np.float32),
    }
    return rows | ({"top5": order[:, :5]} if top5 else {})


def write(
    out: Path,
    rows: dict,
    outputs=None,
    *,
    step=1200,
    sha="ab" * 32,
    kind="images",
    data="mnist",
    data_hash="d" * 64,
    split="test",
    metrics=None,
    data_path="nowhere",
    settings=(),
    **launch,
) -> Path:
    workload = "mnist" if kind == "images" else "wikitext2"
    return predictions.write(
        out,
        rows,
        {} if outputs is None else {"outputs": outputs},
        source=SimpleNamespace(name="first", step=step, sha256=sha, about={}),
        split=split,
        config=parse([workload, *settings]).config,
        roles=workloads.load(workload).task.facts,
        metrics=metrics or workloads.load(workload).task.summarise(rows),
        launch={"world": 1, **launch},
        packed=SimpleNamespace(kind=kind, name=data, hash=data_hash, path=Path(data_path)),
    )
