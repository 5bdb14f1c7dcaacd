"""relaunch report: what stands in a run's folder stands in the page; what is missing is said."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.trainers import records, report
from relaunch.trainers.compare import predictions
from relaunch.trainers.config import parse
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.tasks.regression import RegressionTask
from rigs import pages
from rigs.predicted import scored


@pytest.fixture
def small(relaunch_env):
    return pages.packed(relaunch_env / "data", 400)


@pytest.fixture
def one(small, relaunch_env) -> Path:
    return pages.run(relaunch_env / "runs/first", small, scored(1))


def written(*argv) -> str:
    assert report.run([*map(str, argv)]) == (0, None)
    return Path("report.html").read_text()


def failure(*argv) -> Failure:
    with pytest.raises(Failure) as raised:
        report.run([*map(str, argv)])
    assert "\n" not in raised.value.line()
    return raised.value


def test_charts_are_the_metrics(one):
    charts = pages.points(written("first"))
    logged = {"train": "train", "test": "val"}  # the data have no val: test was scored, and is called so
    assert charts["Loss"]["series"] == {s: pages.records(one, t, "loss") for s, t in logged.items()}
    assert charts["Loss"]["marks"] == [[100, "resumed"]]
    assert charts["Top-1 accuracy"]["series"]["test"] == pages.records(one, "val", "top1")


def test_predictions_are_those_of_the_file(one):
    p = predictions.read(one / "predictions/test-000000200.parquet")
    page = written("first")
    [confusion] = [chart for chart in pages.points(page).values() if "matrix" in chart]
    for truth in range(10):
        for guess in range(10):
            assert confusion["matrix"][truth][guess] == np.sum((p.label == truth) & (p.pred == guess))
    wrong = np.flatnonzero(p.label != p.pred)
    assert f"{len(wrong):,} of 400 are wrong" in page
    most = wrong[p.confidence[wrong].argmax()]
    first = re.search(r'<ol class="tiles">\s*<li[^>]*><strong>#(\d+) ', page)
    assert int(first[1]) == most
    assert page.count("data:image/png") == 72 + 1  # and the matrix


def test_what_a_user_named_stays_text(one):
    page = written("first")
    assert "<script>alert" not in page and page.count("&lt;script&gt;alert") > 5


def test_two_runs_are_compared(one, small, relaunch_env):
    pages.run(relaunch_env / "runs/second", small, scored(2), seed=5)
    page = written("first", "second")
    a, b = scored(1), scored(2)
    lost = np.sum((a["pred"] == a["label"]) & (b["pred"] != b["label"]))
    assert f'<td>right -&gt; wrong</td><td class="n">{lost}</td>' in page
    names = {f"{name} {split}" for name in ("first", "second") for split in ("train", "test")}
    assert set(pages.points(page)["Loss"]["series"]) == names
    assert '<td>seed</td><td class="n">0</td><td class="n">5</td>' in page


def test_markdown_has_its_pictures_beside_it(one):
    assert report.run(["first", "-o", "out/report.md"]) == (0, None)
    text = Path("out/report.md").read_text()
    linked = re.findall(r"!\[[^\n]*?\]\((report_files/[^)]+)\)", text)
    assert len(linked) > 5 and all((Path("out") / name).exists() for name in linked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config", "plan", "status", "layers"])
def test_a_damaged_file_costs_what_is_in_it(one, name, monkeypatch):
    monkeypatch.setattr("relaunch.trainers.pages.about.again", lambda run, root: "no torch in this test")
    (one / f"{name}.json").write_text('{"step": ')
    page = written("first")
    assert "Traceback" not in page and pages.points(page)["Loss"]
    if name != "layers":
        assert f"{name}.json cannot be read" in page


def test_nothing_but_a_beginning(relaunch_env, monkeypatch):
    monkeypatch.setattr("relaunch.trainers.pages.about.again", lambda run, root: "no torch in this test")
    folder = pages.run(relaunch_env / "runs/young")
    for path in ("metrics.jsonl", "plan.json", "layers.json"):
        (folder / path).unlink()
    (folder / "status.json").write_text(json.dumps({"state": "preempted", "reason": "stopped by SIGTERM"}))
    page = written("young")
    assert "Nothing was logged yet." in page and "stopped by SIGTERM" in page
    assert "relaunch train mnist --run runs/young --resume auto" in page
    assert "has no predictions yet: relaunch evaluate runs/young" in page


def test_a_workload_of_ones_own_is_not_executed(relaunch_env):
    """It recorded no layers, and only its code could tell them."""
    folder = pages.run(relaunch_env / "runs/own")
    (folder / "layers.json").unlink()
    (folder / "code").mkdir()
    (folder / "code/flowers.py").write_text("raise SystemExit('executed')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"workload": "flowers", "code": {"file": "flowers.py"}}
    (folder / "config.json").write_text(json.dumps(config))
    page = written("own")
    assert "a report executes no workload of yours" in page and "Curves" in page


def test_damaged_predictions_are_passed_by(one):
    (one / "predictions/test-000000300.parquet").write_bytes(b"PAR1 nothing")
    page = written("first")
    assert "test-000000300.parquet is not a whole predictions file" in page
    assert "first at step 200" in page


def test_numbers_are_shown_as_scatter(relaunch_env):
    folder = pages.run(relaunch_env / "runs/first")
    truth = np.linspace(-1, 1, 50, dtype=np.float32)
    guess = truth + np.float32(0.1)
    facts = RegressionTask().facts
    rows = {name: np.zeros(50, np.float32) for name in facts.columns}
    rows |= {"id": np.arange(50), facts.truth: truth, facts.guess: guess, facts.loss: (guess - truth) ** 2}
    predictions.write(
        folder / "predictions", rows, {}, roles=facts, split="val", metrics={"mae": 0.1}, launch={},
        source=SimpleNamespace(name="first", step=200, sha256="ab" * 32, about={}),
        config=parse(["mnist"]).config,
        packed=SimpleNamespace(kind="arrays", name="small", hash="d" * 64, path=Path("nowhere")),
    )  # fmt: skip
    page = written("first")
    chart = pages.points(page)["Guess against truth"]
    assert np.allclose(chart["points"], np.stack([truth, guess], 1))
    assert "The 20 of 50 with the largest loss" in page and page.count("<td>truth ") == 20


def test_refusals_name_the_fix(one):
    assert failure("first", "-o", "report.pdf").code == USAGE
    assert "relaunch diff" in failure("first@best").fix
    assert "did you mean first?" in failure("frist").line()
    (Path("runs") / "empty").mkdir()
    assert failure("runs/empty").code == DATA


@pytest.mark.slow
def test_twenty_runs_make_a_page_of_less_than_10_mb(small, relaunch_env):
    for i in range(20):
        pages.run(relaunch_env / f"runs/lr-{i}", small, scored(i), seed=i, steps=2000)
    page = written(*(f"lr-{i}" for i in range(20)))
    assert len(page) < 10e6
    assert len(pages.points(page)["Loss (test)"]["series"]) == 20
    assert page.count("data:image/png") <= 72 + 240


@pytest.mark.slow
def test_a_training_records_its_layers_its_starts_and_what_it_wrote(train, relaunch_env):
    assert train("wikitext2", "--max-steps", 4, "--run", "w", "--stop-after", 2) == 75
    assert train("wikitext2", "--max-steps", 4, "--run", "w", "--resume", "auto") == 0
    page = written("w")
    bars = pages.points(page)["Wall time by cause"]["bars"]
    spent = records.time_spent(RunDir("runs/w"))
    assert sum(seconds for _, seconds, _ in bars) == pytest.approx(spent["wall"])
    plan = json.loads(Path("runs/w/plan.json").read_text())
    assert [start["step"] for start in plan["starts"]] == [0, 2]
    [net] = [chart for chart in pages.points(page).values() if "nodes" in chart]
    names = [node["name"] for node in net["nodes"]]
    layers = json.loads(Path("runs/w/layers.json").read_text())["layers"]
    assert {layer["name"] for layer in layers} <= set(names) and len(net["edges"]) >= len(names) - 2
    text = json.loads(Path("runs/w/shown.json").read_text())
    assert all(found["text"].splitlines()[0][:20] in page for found in text.values())
