"""Workloads of installed packages, named as module:NAME or by an entry point."""

import sys

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import evaluate, workloads
from rigs.own import PETALS, write


@pytest.fixture
def garden(relaunch_env, monkeypatch):
    """An installed package with a workload and its entry point."""
    site = relaunch_env / "site"
    write(site / "garden", ("from petals", "from garden.petals"))
    (site / "garden/__init__.py").write_text("")
    (site / "torch").mkdir()  # as beside every installed package
    (site / "torch/nn.py").write_text("")
    (site / "garden-1.0.dist-info").mkdir()
    (site / "garden-1.0.dist-info/METADATA").write_text("Name: garden\nVersion: 1.0\n")
    points = "[relaunch.workloads]\nflowers = garden.flowers:WORKLOAD\n"
    (site / "garden-1.0.dist-info/entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    yield site
    for name in [name for name in sys.modules if name.split(".")[0] == "garden"]:
        del sys.modules[name]


@pytest.mark.parametrize("word", ["garden.flowers:WORKLOAD", "flowers"])
def test_a_workload_of_an_installed_package(word, garden, train, relaunch_env):
    assert train(word, "--run", "first", "--stop-after", 2) == 75
    assert train(word, "--run", "first", "--resume", "auto", "--max-steps", 3) == 0
    kept = (relaunch_env / "runs/first/code").rglob("*.py")
    assert sorted(p.name for p in kept) == ["__init__.py", "flowers.py", "petals.py"]
    assert evaluate.run(["first"])[0] == 0


def test_an_installed_package_that_changed_is_not_taken_for_the_runs(garden, train, capfd):
    train("flowers", "--run", "first", "--stop-after", 2)
    workloads._own.clear()
    (garden / "garden/petals.py").write_text(PETALS + "# better\n")
    assert train("flowers", "--run", "first", "--resume", "auto") == 64
    assert "garden/petals.py has changed since this run began" in capfd.readouterr().err
    workloads._own.clear()
    with pytest.raises(Failure) as caught:
        evaluate.run(["first"])
    assert caught.value.code == 65 and "garden/petals.py has changed" in caught.value.what
