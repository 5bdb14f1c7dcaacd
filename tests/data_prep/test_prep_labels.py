"""Labels of hub, parquet and arrow sets are matched by class name, over splits and files."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from test_packed import failure
from test_prep_refusals import refused

from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import saved

SHADES = {"cat": 20, "dog": 120, "owl": 220}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def shade(name: str) -> bytes:
    return saved(Image.fromarray(np.full((8, 8, 3), SHADES[name], np.uint8)))


def table(names: list[str], rows: list[str] | None = None, label="names"):
    """One row per name, its shade telling the class; labels as numbers with names, plain numbers or texts."""
    import datasets

    rows = rows or names
    kind = {"names": datasets.ClassLabel(names=names), "numbers": datasets.Value("int64")}
    kinds = {"image": datasets.Image(), "label": kind.get(label, datasets.Value("string"))}
    values = rows if label == "texts" else [names.index(row) for row in rows]
    content = {"image": [{"bytes": shade(row), "path": None} for row in rows], "label": values}
    return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))


def right(data) -> bool:
    """Whether each image's shade is that of its class."""
    return all(
        SHADES[data.classes[label]] == image[0, 0, 0]
        for split in data.splits
        for image, label in zip(data.images(split), data.labels(split))
    )


def packed(tmp_path, source, **options):
    return prepare("mine", source, root=tmp_path / "out", progress=False, **options)


def written(tmp_path, form, **splits):
    import datasets

    folder = tmp_path / "s"
    if form == "save_to_disk":
        datasets.DatasetDict(splits).save_to_disk(folder)
        return folder
    folder.mkdir()
    for split, rows in splits.items():
        if form == "parquet":
            rows.to_parquet(folder / f"{split}.parquet")
        else:
            with pyarrow.OSFile(str(folder / f"{split}.arrow"), "wb") as file:
                arrow = rows.with_format("arrow")[:]
                schema = arrow.schema.with_metadata(rows.features.arrow_schema.metadata)
                with pyarrow.ipc.new_stream(file, schema) as stream:
                    stream.write_table(arrow.replace_schema_metadata(schema.metadata))
    return folder


@pytest.mark.parametrize("form", ["save_to_disk", "parquet", "arrow"])
def test_labels_of_all_splits_are_matched_by_name(tmp_path, form):
    """Cats were packed as owls: each split numbers its classes as it likes."""
    train, val = table(["cat", "dog", "owl"]), table(["owl", "cat", "dog"])
    data = packed(tmp_path, written(tmp_path, form, train=train, validation=val))
    assert data.splits == {"train": 3, "val": 3} and data.classes == ["cat", "dog", "owl"] and right(data)
    assert data.labels("val").tolist() == [2, 0, 1]
    assert any("matched by name" in note for note in data.meta["notes"])


def test_the_files_of_one_split_are_matched_by_name_too(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    orders = (["dog", "cat"], ["cat", "owl", "dog"])
    for k, names in enumerate(orders):
        table(names).to_parquet(folder / f"train-{k:05}-of-00002.parquet")
    table(["owl", "dog"]).to_parquet(folder / "test-00000-of-00001.parquet")
    data = packed(tmp_path, folder)
    assert data.splits == {"train": 5, "test": 2} and data.classes == ["dog", "cat", "owl"] and right(data)


@pytest.mark.parametrize("train, val", [("names", "texts"), ("texts", "names")])
def test_names_and_texts_are_the_same_names(tmp_path, train, val):
    rows = {"train": table(["cat", "dog", "owl"], label=train), "test": table(["owl", "dog"], label=val)}
    data = packed(tmp_path, written(tmp_path, "save_to_disk", **rows))
    assert data.splits == {"train": 3, "test": 2} and right(data)


def test_numbers_beside_names_are_said_to_be_taken_as_trains(tmp_path):
    train, val = table(["cat", "dog", "owl"]), table(["cat", "dog", "owl"], ["owl", "cat"], label="numbers")
    data = packed(tmp_path, written(tmp_path, "save_to_disk", train=train, validation=val))
    assert right(data) and any("labels of val have no names" in note for note in data.meta["notes"])


@pytest.mark.parametrize("label", ["names", "texts", "numbers"])
def test_a_class_that_train_lacks_is_refused_by_name(tmp_path, label):
    train, val = table(["cat", "dog"], label=label), table(["cat", "dog", "owl"], label=label)
    source = written(tmp_path, "save_to_disk", train=train, validation=val)
    line = refused(tmp_path, "mine", source)
    assert f"no train rows for val/{'2' if label == 'numbers' else 'owl'}" in line and "remove" not in line


def test_names_that_no_row_uses_are_no_reason(tmp_path):
    train, val = table(["cat", "dog", "owl"], ["cat", "dog"]), table(["dog", "cat", "owl", "none"], ["cat"])
    data = packed(tmp_path, written(tmp_path, "save_to_disk", train=train, validation=val))
    assert right(data) and data.classes == ["cat", "dog", "owl"]
    assert "train has no images of 1 of 3 classes: owl" in data.meta["notes"]


def test_the_order_of_names_is_part_of_what_the_source_is(tmp_path):
    val = table(["cat", "dog", "owl"])
    packed(tmp_path, written(tmp_path, "save_to_disk", train=table(["cat", "dog", "owl"]), validation=val))
    other = written(
        tmp_path / "t",
        "save_to_disk",
        train=table(["cat", "dog", "owl"]),
        validation=val.cast(table(["owl", "dog", "cat"]).features),
    )
    assert "another source" in failure(64, packed, tmp_path, other)


@pytest.mark.parametrize(
    "form, what",
    [
        ("save_to_disk", {"rows of other splits": (2, "extra")}),
        ("parquet", {"files that belong to no split": (1, "extra.parquet")}),
    ],
)
def test_splits_that_are_not_packed_are_counted(tmp_path, form, what):
    rows = table(["cat", "dog"])
    source = written(tmp_path, form, train=rows, test=rows, extra=rows)
    said = {
        fact["what"]: (fact["count"], fact["example"]) for fact in packed(tmp_path, source).meta["left_out"]
    }
    assert said == what
    two = written(tmp_path / "two", "save_to_disk", train=rows, validation=rows, dev=rows)
    assert "has both 'validation' and 'dev'" in refused(tmp_path / "x", "mine", two)


def test_a_test_split_without_labels_is_a_line_where_val_has_them(tmp_path):
    rows = table(["cat", "dog"])
    blank = table(["cat", "dog"], label="numbers").map(lambda row: {"label": -1}).cast(rows.features)
    data = packed(tmp_path, written(tmp_path, "save_to_disk", train=rows, validation=rows, test=blank))
    assert data.splits == {"train": 2, "val": 2}
    assert data.meta["left_out"] == [{"what": "rows without labels", "count": 2, "example": "test"}]
    alone = written(tmp_path / "alone", "save_to_disk", train=rows, test=blank)
    assert "split test has unlabelled rows (label -1)" in refused(tmp_path / "x", "mine", alone)


def test_a_second_column_of_labels_is_said(tmp_path):
    import datasets

    rows = table(["cat", "dog"]).rename_column("label", "fine").add_column("coarse", [0, 0])
    rows = rows.cast_column("coarse", datasets.ClassLabel(names=["animal"]))
    data = packed(tmp_path, written(tmp_path, "parquet", train=rows))
    assert data.classes == ["cat", "dog"]
    assert {"what": "columns that could be the label as well as fine", "count": 1, "example": "coarse"} in (
        data.meta["left_out"]
    )
