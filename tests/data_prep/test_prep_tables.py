"""Tables of paths or encoded bytes, configurations, and a cache of `datasets` that cannot be written."""

import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
from test_prep_labels import SHADES, cache, packed, right, shade, table  # noqa: F401  cache is a fixture
from test_prep_refusals import refused

from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import ROOT, picture, prep, tree_of


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
    assert "'Larg'; did you mean large? it has: " in refused(tmp_path, "mine", f"hub:{folder}:Larg", 64)
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
