"""Mistakes on prep's command line, and columns of a table that cannot be what they are said to be."""

import subprocess

import pytest
from test_prep_refusals import refused

from relaunch.data_prep.prep import main
from rigs.prep_sources import ROOT, picture, prep


@pytest.mark.parametrize(
    "arguments, code, says",
    [
        ([], 64, "NAME"),
        (["mnist", "--sizes", "3"], 64, "--sizes"),
        (["mnist", "--size", "0"], 64, "--size 0"),
        (["mnist", "--source", "nothere"], 65, "there is no nothere"),
        (["mnist", "--source", ""], 65, "there is no"),
        (["pets"], 64, "add --source"),
        (["a/b", "--source", "."], 64, "not a name"),
        (["x", "--source", ".", "--as", "minst"], 64, "unknown recipe 'minst'"),
        (["x", "--source", ".", "--columns", "image"], 64, "--columns"),
        (["digits", "--source", "."], 64, "leave --source away"),
        (["digits", "--size", "8"], 64, "--size does not work"),
        (["digits", "--as-folders"], 64, "--as-folders works with tiny_imagenet"),
        (["nothere", "--verify"], 65, "no packed data set 'nothere'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert err.startswith(f"relaunch: {code} ") and says in err and err.count("\n") == 1 and out == ""


def test_help_is_light_and_has_examples():
    done = subprocess.run(prep("--help"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "relaunch prep cifar10 --source" in done.stdout


@pytest.mark.parametrize(
    "columns, code, says",
    [
        ({"image": "kind", "label": "kind"}, 65, "is missing"),
        ({"image": "number", "label": "kind"}, 64, "holds no images"),
        ({"image": "photo", "label": "photo"}, 65, "neither integer nor text"),
        ({"image": "photo", "label": "gaps"}, 65, "neither integer nor text"),
        ({"image": "photo", "label": "marks"}, 65, "unlabelled rows (label -1)"),
    ],
)
def test_columns_of_the_wrong_kind(tmp_path, monkeypatch, columns, code, says):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "kind": datasets.Value("string"),
            "number": datasets.Value("int64"),
            "gaps": datasets.Value("string"),
            "marks": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    rows = {
        "photo": [{"bytes": picture(), "path": None}] * 2,
        "kind": ["x", "y"],
        "number": [1, 2],
        "gaps": ["x", None],
        "marks": [0, -1],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    assert says in refused(tmp_path, "mine", tmp_path / "rows.parquet", code, columns=columns)


def test_a_damaged_parquet_is_one_line(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 not really")
    assert "datasets cannot load" in refused(tmp_path, "mine", tmp_path / "rows.parquet")
