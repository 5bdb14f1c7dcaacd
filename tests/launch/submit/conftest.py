"""What the tests of `relaunch submit` share: an empty folder to submit from, and what the command writes."""

import os
from pathlib import Path

import pytest

from rigs import slurm
from rigs.cluster import Cluster
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


@pytest.fixture
def scheduler(monkeypatch):
    """scheduler(sbatch="echo 7"): SLURM's commands, in shell; others know no job, whatever is installed."""
    unknown = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"

    def install(**programs):
        Path("bin").mkdir(exist_ok=True)
        for name in ("squeue", "scontrol", "sacct"):
            if not Path("bin", name).exists():
                programs.setdefault(name, unknown)
        for name, body in programs.items():
            Path("bin", name).write_text(f'#!/bin/bash\necho {name} "$@" >>calls\n{body}\n')
            Path("bin", name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:/usr/bin:/bin")

    return install


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if reason := slurm.missing():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("home")
    with slurm.Rig(tmp_path_factory.mktemp("slurm")) as rig:
        yield Cluster(rig, home)
