"""Parquet, arrow, csv and Hub sets: labels by name, configurations, encoded bytes, a cache that is full."""

import json
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from test_packed import failure
from test_prep_refusals import refused

from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import ROOT, picture, prep, saved, tree_of

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


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_columns_of_encoded_bytes_are_images(tmp_path, form):
    """Parquet that another library wrote says nothing of images."""
    files = [shade(name) for name in SHADES]
    column = files if form == "bytes" else [{"bytes": file, "path": "x.png"} for file in files]
    columns = {"id": [b"1", b"2", b"3"], "picture": column, "class": list(SHADES)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    data = packed(tmp_path, tmp_path / "rows.parquet")
    assert data.splits == {"train": 3} and right(data)
    assert any("neither val nor test" in note for note in data.meta["notes"])


def listed(folder, ending=".csv", label="label", **splits):
    """SPLIT.csv with a path and a label, beside the images."""
    comma = "\t" if ending == ".tsv" else ","
    files = {f"images/{name}.png": shade(name) for name in SHADES}
    for split, names in splits.items():
        lines = [f"path{comma}{label}", *(f"images/{name}.png{comma}{name}" for name in names)]
        files[f"{split}{ending}"] = "\n".join(lines) + "\n"
    return tree_of(folder, files)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_csv_of_paths_and_labels(tmp_path, ending, monkeypatch):
    source = listed(tmp_path / "s", ending, all=[*SHADES] * 4)
    if ending == ".tsv":  # as Windows writes them
        table = source / "all.tsv"
        table.write_text(table.read_text().replace("/", "\\").replace("\n", "\r\n"))
    monkeypatch.chdir(tmp_path)  # paths begin where the table lies, not where prep was started
    data = packed(tmp_path, source / f"all{ending}", val_fraction=0.25)
    assert data.splits == {"train": 9, "val": 3} and sorted(data.classes) == sorted(SHADES) and right(data)


def test_a_column_that_names_the_split_is_obeyed(tmp_path):
    """Its test rows would be trained on."""
    lines = "path,split,label\nimages/cat.png,Train,cat\nimages/owl.png,test,owl\nimages/owl.png,Train,owl\n"
    source = tree_of(listed(tmp_path / "s"), {"list.csv": lines})
    data = packed(tmp_path, source / "list.csv")
    assert data.splits == {"train": 2, "test": 1} and right(data)
    tree_of(source, {"list.csv": lines.replace("test", "fold 3")})
    other = prepare("other", source / "list.csv", root=tmp_path / "out", progress=False)
    assert other.splits == {"train": 3}


def test_a_folder_of_csv_tables_beside_images(tmp_path):
    data = packed(tmp_path, listed(tmp_path / "s", Train=[*SHADES], valid=["owl", "cat"]))
    assert data.splits == {"train": 3, "val": 2} and right(data) and "left_out" not in data.meta
    source = tree_of(listed(tmp_path / "u", train=["cat", "dog"], val=["dog"]), {"sample.csv": "x,y\n1,2\n"})
    assert packed(tmp_path / "w", source).meta["left_out"] == [
        {"what": "tables whose names say no split", "count": 1, "example": "sample.csv"},
        {"what": "images that no row names", "count": 1, "example": "images/owl.png"},
    ]
    source = listed(tmp_path / "t", label="kind", train=[*SHADES], valid=["owl"])
    assert "no column 'label'" in refused(tmp_path / "x", "mine", source, 64)
    assert packed(tmp_path / "y", source, columns={"label": "kind"}).splits == {"train": 3, "val": 1}
    (source / "images" / "owl.png").unlink()
    line = refused(tmp_path / "z", "mine", source, columns={"label": "kind"})
    assert "an image of split train is missing (images/owl.png)" in line


def configured(folder, default=None):
    """A dataset of two configurations, as the Hub has them."""
    for config, names in (("small", ["cat", "dog"]), ("large", ["cat", "dog", "owl"])):
        (folder / config).mkdir(parents=True)
        table(names).to_parquet(folder / config / "train.parquet")
    head = [
        {
            "config_name": config,
            "data_files": f"{config}/*.parquet",
            **({"default": True} if default == config else {}),
        }
        for config in ("small", "large")
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(head)}\n---\n")
    return folder


def test_configurations_are_chosen_or_listed(tmp_path):
    folder = configured(tmp_path / "s")
    for source in (f"hub:{folder}", folder):
        line = refused(tmp_path, "mine", source, 64)
        assert "has 2 configurations: " in line and "small" in line and "large" in line
        assert f"choose one: --source hub:{folder}:" in line
    assert "has no configuration 'huge'; it has: " in refused(tmp_path, "mine", f"hub:{folder}:huge", 64)
    data = packed(tmp_path, f"hub:{folder}:large")
    assert data.splits == {"train": 3} and right(data) and data.meta["source"]["file"].endswith(":large")
    other = configured(tmp_path / "t", default="small")
    two = prepare("two", f"hub:{other}", root=tmp_path / "out", progress=False)
    assert two.splits == {"train": 2}
    assert {"what": "other configurations", "count": 1, "example": "large"} in two.meta["left_out"]


@pytest.mark.parametrize("limit", ["a file in its place", "a full disk"])
def test_a_cache_that_cannot_be_written_is_73_with_its_folder(tmp_path, limit):
    """It was called bad data."""
    rows = table(["cat"] * 1).select([0] * 300)
    rows = rows.add_column("noise", [picture(size=(64, 64)) for _ in range(300)])
    rows.to_parquet(tmp_path / "rows.parquet")
    home = tmp_path / "home"
    if limit == "a full disk":
        before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
    else:
        before = ""
        home.write_text("")
    program = f"{before}import sys; from relaunch.data_prep.prep import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "mine",
            "--source",
            tmp_path / "rows.parquet",
            "--out",
            tmp_path / "out",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HF_HOME": str(home / "hf")},
    )
    assert done.returncode == 73, done.stderr
    assert done.stderr.count("\n") == 1 and f"cannot write its cache {home}/hf" in done.stderr, done.stderr
    assert "export HF_HOME=FOLDER" in done.stderr


def test_a_hub_that_cannot_be_reached_is_65_with_its_id(tmp_path):
    done = subprocess.run(
        prep("x", "--source", "hub:no-such-user/no-such-set:large", "--out", tmp_path),
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 65 and done.stderr.count("\n") == 1, done.stderr
    assert "datasets cannot load hub:no-such-user/no-such-set:large" in done.stderr
