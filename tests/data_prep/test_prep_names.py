"""Names that a terminal, a disk or a reader stumbles over."""

import os
import sys

import pytest
from test_packed import failure
from test_prep_left_out import PETS
from test_prep_refusals import refused

from relaunch.data_prep.names import printable
from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.prep import main
from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import (
    picture,
    tree_of,
)


def test_a_name_that_is_not_utf8_is_said(tmp_path):
    source = tree_of(tmp_path / "s", PETS)
    os.mkdir(os.fsencode(source / "train") + b"/caf\xe9")
    with open(os.fsencode(source / "train") + b"/caf\xe9/0.png", "wb") as file:
        file.write(picture())
    assert "name is not UTF-8 (train/caf\\udce9/0.png); rename it" in refused(tmp_path, "mine", source)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_does_not_vanish(tmp_path):
    source = tree_of(tmp_path / "s", PETS)
    (source / "val" / "cat").chmod(0)
    try:
        assert "val/cat may not be read" in refused(tmp_path, "mine", source)
    finally:
        (source / "val" / "cat").chmod(0o700)


def test_control_characters_are_kept_in_meta_and_not_printed(tmp_path, capsys):
    names = ["red\x1b[31m", "zwei\u202eWörter", "猫", 'it\'s "so"']
    files = {f"train/{name}/{k}.png": picture() for k, name in enumerate(names)}
    source = tree_of(tmp_path / "s", files | {"train/a\x07/1.png": picture(), "train/a\x07/x\x1b.heic": b""})
    assert main(["mine", "--source", str(source), "--out", str(tmp_path), "--holdout", "1"]) == 64
    source = tree_of(tmp_path / "s", {f"val/{name}/0.png": picture() for name in names})
    assert main(["mine", "--source", str(source), "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in out + err)
    assert (
        "left out: 1 files that Pillow does not read as images (.heic), e.g. train/a\\x07/x\\x1b.heic" in err
    )
    assert "note: val has no images of 1 of 5 classes: a\\x07" in err
    assert set(open_packed("mine", tmp_path).classes) == {*names, "a\x07"}


@pytest.mark.parametrize(
    "name, shown",
    [
        ("plain", "plain"),
        ("猫 Äpfel", "猫 Äpfel"),
        ("a\x1b[31m\n", "a\\x1b[31m\\n"),
        ("\udce9\u2028", "\\udce9\\u2028"),
    ],
)
def test_printable(name, shown):
    assert printable(name) == shown


def test_nobody_is_told_to_remove_what_prep_did_not_make(tmp_path):
    tree_of(tmp_path / "out" / "mine", {"thesis.tex": "x"})
    line = failure(65, prepare, "mine", tree_of(tmp_path / "s", PETS), root=tmp_path / "out", progress=False)
    assert "no meta.json" in line and "move it away" in line and "remove it" not in line
