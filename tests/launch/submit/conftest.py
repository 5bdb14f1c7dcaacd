"""What the tests of `relaunch submit` share: an empty folder to submit from, and what the command writes."""

import os

import pytest

from rigs.submitting import relaunch


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAUNCH_DATA", str(tmp_path / "data"))
    for name in [n for n in os.environ if n.startswith(("SLURM_", "PET_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def written(capsys):
    """written("slurm", "mnist", …): what the command prints."""

    def write(*words) -> str:
        capsys.readouterr()
        assert relaunch(["submit", *map(str, words)]) == 0
        return capsys.readouterr().out

    return write
