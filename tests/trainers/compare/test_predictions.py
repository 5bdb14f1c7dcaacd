"""Predictions files: what is written is read, equal predictions are equal bytes, and damage is noticed."""

import errno
import json
import os
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, STORAGE, Failure
from relaunch.trainers.compare import predictions
from relaunch.trainers.tasks.images import ImageTask
from rigs import REPOSITORY
from rigs.predicted import CLASSES, N, scored, write


def refused(path) -> str:
    with pytest.raises(Failure) as failure:
        predictions.read(path)
    assert failure.value.code == DATA
    return failure.value.line()


def test_what_is_written_is_read(tmp_path):
    rows, outputs = scored(), np.random.default_rng(0).random((N, CLASSES), dtype=np.float32)
    path = write(tmp_path / "a" / "b", rows, outputs)
    assert path.name == "test-000001200.parquet"
    read = predictions.read(path)
    for name in ("label", "pred", "confidence", "nll", "top5"):
        assert (
            np.array_equal(getattr(read, name), rows[name]) and getattr(read, name).dtype == rows[name].dtype
        )
    assert read.facts == {
        "schema": 2,
        "workload": "mnist",
        "kind": "images",
        "split": "test",
        "step": 1200,
        "model_sha256": "ab" * 32,
        "data": "mnist",
        "data_hash": "d" * 64,
        "n": N,
        "roles": json.loads(json.dumps(asdict(ImageTask.facts))),
        "metrics": ImageTask().summarise(rows),
    }
    assert np.array_equal(np.load(path.with_suffix(".outputs.npy")), outputs)
    assert {"world", "host", "time", "metrics", "versions", "data_path"} <= json.loads(
        path.with_suffix(".json").read_text()
    ).keys()
    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    assert types == {
        "id": "int64",
        "label": "int32",
        "pred": "int32",
        "confidence": "float",
        "nll": "float",
        "top5": "fixed_size_list<element: int32>[5]",
    }


def test_text_has_no_top5_and_foreign_weights_go_by_their_hash(tmp_path):
    path = write(tmp_path, scored(top5=False), kind="text", step=None, sha="0123456789abcdef" * 4)
    assert path.name == "test-0123456789ab.parquet"
    assert "top5" not in predictions.read(path).columns and predictions.read(path).facts["step"] is None


def test_equal_predictions_are_equal_bytes(tmp_path):
    """On any launch, at any time, whatever else was measured and wherever the data lay."""
    first = write(tmp_path / "a", scored(), world=1, device="cpu")
    again = write(
        tmp_path / "b",
        scored(),
        np.zeros((N, CLASSES), np.float32),
        world=3,
        device="cuda",
        data_path="x",
    )
    assert first.read_bytes() == again.read_bytes()
    others = [
        write(tmp_path / "c", scored(seed=2)),
        write(tmp_path / "d", scored(), sha="cd" * 32),
        write(tmp_path / "e", scored(), data_hash="e" * 64),
    ]
    assert len({p.read_bytes() for p in [first, *others]}) == 4


def test_evaluating_again_leaves_nothing_of_the_earlier_one(tmp_path):
    path = write(tmp_path, scored(), np.zeros((N, CLASSES), np.float32))
    write(tmp_path, scored(seed=2))
    assert {p.name for p in tmp_path.iterdir()} == {path.name, path.with_suffix(".json").name}


def test_the_json_is_strict_where_a_loss_is_not_finite(tmp_path):
    path = write(tmp_path, scored(), metrics={"loss": float("nan")})
    assert json.loads(path.with_suffix(".json").read_text(), parse_constant=pytest.fail)["metrics"] == {
        "loss": None
    }


def test_every_damaged_byte_is_noticed(tmp_path):
    path = write(tmp_path, scored(n=50))
    content, whole = path.read_bytes(), predictions.read(path)
    harmless = 0
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            read = predictions.read(path)
        except Failure as failure:
            assert failure.code == DATA and "\n" not in failure.line()
        else:  # a byte that says nothing of the predictions, such as a statistic
            harmless += 1
            assert read.facts == whole.facts and all(
                np.array_equal(getattr(read, c), getattr(whole, c)) for c in ("label", "pred", "nll", "top5")
            )
    assert harmless < len(content) / 7 / 3
    for end in range(0, len(content), 211):
        path.write_bytes(content[:end])
        refused(path)


def test_other_files_are_not_predictions(tmp_path):
    other = tmp_path / "other.parquet"
    assert f"there is no {other}" in refused(other)
    pq.write_table(pa.table({"id": [0, 1]}), other)
    assert "not a whole predictions file" in refused(other)
    other.write_text("id,label\n")
    refused(other)
    refused(tmp_path)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure) as failure:
        write(tmp_path / "file" / "predictions", scored())
    assert (failure.value.code, failure.value.fix) == (STORAGE, "choose another place with --out FOLDER")

    for number, fix in (
        (errno.EROFS, "choose another place with --out FOLDER"),
        (errno.ENOSPC, "free some space, or choose another place with --out FOLDER"),
    ):

        def refuse(path, content):
            raise OSError(number, "no")

        monkeypatch.setattr(files, "write_atomic", refuse)
        with pytest.raises(Failure) as failure:
            write(tmp_path / "out", scored())
        assert (failure.value.code, failure.value.fix) == (STORAGE, fix)


def test_a_file_of_the_first_version_is_read(tmp_path):
    """The fixture holds what 0.1.0 put into one; the Parquet around it is not made by our writer."""
    recorded = json.loads((REPOSITORY / "tests/fixtures/v0.1/predictions.json").read_text())
    rows, facts = recorded["rows"], recorded["facts"]
    top5 = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(rows.pop("top5")), pa.int32()), 3)
    columns = {name: pa.array(values, recorded["types"][name]) for name, values in rows.items()}
    table = pa.table(columns | {"top5": top5}).replace_schema_metadata({"relaunch": json.dumps(facts)})
    pq.write_table(table, tmp_path / "test-000000040.parquet")
    read = predictions.read(tmp_path / "test-000000040.parquet")
    assert read.pred.tolist() == rows["pred"] and read.nll.tolist() == rows["nll"]
    assert read.top5.shape == (6, 3) and read.facts == {k: v for k, v in facts.items() if k != "sha256"}


def test_a_pipe_of_that_name_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "test-1.parquet")
    with pytest.raises(Failure, match="is not a whole predictions file"):
        predictions.read(tmp_path / "test-1.parquet")
