"""`relaunch compare`: what it plans and refuses, runs that are there, real cells killed and gone on with."""

import csv
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from relaunch.data_prep.errors import DIVERGED, HARDWARE, STORAGE, USAGE, Failure
from relaunch.launch import compare
from relaunch.launch.compare import cells, gather, run
from relaunch.trainers import records
from relaunch.trainers.bench.reading import reading
from relaunch.trainers.rundir import RunDir
from rigs.processes import Process


def planned(*words: str) -> cells.Plan:
    own = compare.parser()
    given, rest = own.parse_known_args(list(words))
    return cells.plan(given, rest, own)


def test_equal_samples_are_steps_of_each_batch(relaunch_env):
    found = planned("mnist", "--grid", "batch_size=4,16,32", "--samples", "70", "--repeats", "2")
    assert [cell.settings.max_steps for cell in found.cells] == [18, 4, 2] and found.seeds == (1, 2)
    assert [cell.samples for cell in found.cells] == [72, 64, 64] and found.equal
    assert [cell.settings.epochs for cell in found.cells] == [1, 1, 1]
    assert "batch_size=4: 72" in found.notes[0] and found.rule == "70 images each"
    assert found.cells[0].words[-6:] == ("--epochs", "1", "--log-interval", "1", "--keep", "1")
    (one,) = planned("cifar10", "--preset", "tutorial", "--grid", "batch_size=4", "--samples", "80").cells
    assert one.settings.log_interval == 1  # the preset's would be the whole run, warm-up and all
    (text,) = planned("wikitext2", "--grid", "bptt=35", "--samples", "700", "-b", "10").cells
    assert text.samples == 700 and text.settings.max_steps == 2


def test_marks_are_of_what_is_measured(relaunch_env):
    """Another grid finds the cells of this one; another length, arch or target does not."""

    def marks(*words: str) -> set[str]:
        return {cell.mark for cell in planned("mnist", "--epochs", "1", *words).cells}

    base = marks("--grid", "batch_size=4,16")
    assert len(base) == 2
    assert base < marks("--grid", "batch_size=16,4,8", "precision=no")
    assert base == marks("--grid", "batch_size=4,16", "--seed", "7", "--repeats", "9")
    for words in (["--lr", "0.5"], ["--config", "bf16"], ["--until", "top1=60"], ["--epochs", "2"]):
        assert not base & marks("--grid", "batch_size=4,16", *words), words
    # what an older version did not know makes no other cell of one that does without it
    plain, averaged = (planned("mnist", "--grid", "batch_size=4", *w).cells for w in ([], ["--ema", "0.9"]))
    assert not {"ema", "eval_views"} & cells.chosen(plain[0].settings).keys()
    assert cells.chosen(averaged[0].settings)["ema"] == 0.9 and plain[0].mark != averaged[0].mark


def test_what_this_machine_has_not_is_a_row(relaunch_env, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = planned("mnist", "--grid", "batch_size=8,9,500", "config=cpu,1gpu,cpu2", "--epochs", "1").cells
    reasons = {(c.point.settings["batch_size"], c.point.settings["config"]): c.reason for c in found}
    assert not reasons["8", "cpu"] and not reasons["9", "cpu"] and not reasons["8", "cpu2"]
    assert "needs a GPU" in reasons["8", "1gpu"] and "does not divide" in reasons["9", "cpu2"]
    assert "more than the 96 training images" in reasons["500", "cpu"]
    assert all(cell.mark for cell in found if cell.point.settings["config"] == "cpu" and not cell.reason)


def test_runs_of_another_machine_fill_in_what_this_one_cannot(relaunch_env, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ["mnist", "--epochs", "1", "--repeats", "2", "--out", "bench"]
    gpu = planned(*words, "--grid", "config=1gpu").cells[0]
    here = run.Bench(planned(*words, "--grid", "config=cpu,1gpu"), Path("bench"), words)
    assert [cell.state for cell in here.found().cells] == ["waiting", "cannot"]
    for seed in (1, 2):
        invent(f"bench/runs/{gpu.named(seed)}", 1.0, seed, 500.0, host="there", device="cuda")
    found = here.found().cells[1]
    assert found.state == "measured" and found.repeats("device_memory_mb").mean == 812.0
    assert found.repeats("peak_memory_mb") is None and len(here.waiting()) == 2


@pytest.mark.parametrize(
    "words, says",
    [
        (["mnist"], "nothing to compare"),
        (["--grid", "lr=1,2"], "the workload is missing"),
        (["mnist", "--grid", "batch_sise=4"], "did you mean batch_size?"),
        (["mnist", "--grid", "batch_size=4,x"], "'x' is not a whole number"),
        (["mnist", "--grid", "epochs=1,2"], "equally long"),
        (["mnist", "--grid", "lr=0.1,0.2", "--time", "5m"], "--time does not go with a comparison"),
        (["mnist", "--grid", "seed=1,2"], "--repeats"),
        (["mnist", "--grid", "config=cpu,9gpu"], "did you mean 8gpu?"),
        (["mnist", "--grid", "lr=1,2", "--lr", "3"], "--lr is in the grid and beside it"),
        (["mnist", "--grid", "lr=1,2", "--samples", "9", "--epochs", "3"], "leave --epochs"),
        (["mnist", "--grid", "lr=1,2", "--until", "top9=3"], "did you mean top"),
        (["mnist", "--grid", "lr=1,2", "--until", "top1"], "METRIC=VALUE"),
        (["mnist", "--grid", "lr=1,2", "--run", "x"], "--run does not go"),
        (["mnist", "--grid", "lr=1,2", "--sample", "9"], "did you mean --samples?"),
        (["mnist", "--runs", "a"], "mnist does not go with --runs"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(relaunch_env, words, says):
    with pytest.raises(Failure) as caught:
        compare.main(words)
    assert caught.value.code == USAGE and says in caught.value.line()
    assert not Path("compares").exists()


def test_no_cell_here_is_no_comparison(relaunch_env, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(Failure) as caught:
        compare.main(["mnist", "--grid", "config=1gpu,8gpu"])
    assert caught.value.code == HARDWARE and "no cell can be measured here" in caught.value.line()


def test_a_place_that_takes_nothing_is_one_line(relaunch_env):
    Path("bench").write_text("a file")
    with pytest.raises(Failure) as caught:
        compare.main(["mnist", "--grid", "lr=1,2", "--config", "cpu", "--out", "bench"])
    assert caught.value.code == STORAGE and "--out" in caught.value.fix


def invent(
    name: str, lr: float, seed: int, speed: float, host: str = "here", device: str = "cpu", **status
) -> None:
    run = RunDir(Path(name))
    run.path.mkdir(parents=True)
    options = {"width": 2}
    config = {"workload": "mnist", "lr": lr, "seed": seed, "epochs": 1, "options": options, "keep": seed}
    run.config.write_text(json.dumps(config))
    run.plan.write_text(json.dumps({"device": device, "host": host, "config": "cpu", "precision": "no"}))
    run.status.write_text(json.dumps({"state": "done"} | status))
    at = {"step": 10, "samples": 1000, "epoch": 1.0}
    rows = [
        at | {"split": "train", "samples_per_s": speed, "peak_memory_mb": 812.0},
        at | {"split": "val", "top1": 90.0 + seed},
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_runs_that_are_there_are_compared_by_what_differs(tmp_path, monkeypatch):
    """As a sweep leaves them: seeds are repeats, a run from another machine is said to be."""
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        invent(f"runs/s-lr0.1-seed{seed}", 0.1, seed, 100.0 + seed)
        invent(f"runs/s-lr1-seed{seed}", 1.0, seed, 200.0 + seed, host="there")
    invent("runs/s-lr9-seed1", 9.0, 1, 1.0, state="failed", code=DIVERGED, reason="the loss is not finite")
    compared = gather.compare([str(path) for path in sorted(Path("runs").iterdir())])
    said = "\n".join(reading(compared))
    assert said.startswith("lr=1.0 was the fastest:") and "1.98 ± 0.02 times" in said
    assert "several machines (here, there)" in said
    assert "lr=9.0 failed: runs/s-lr9-seed1 is failed: the loss is not finite" in said
    found = compared.to_json()
    assert found["grid"] == {"lr": ["0.1", "1.0", "9.0"]} and found["repeats"] == 3
    assert found["cells"][1]["quality"]["values"] == [91.0, 92.0, 93.0]


# real cells ---------------------------------------------------------------------------------------


@pytest.fixture
def begin(relaunch_env, monkeypatch):
    """begin("mnist", …): starts a comparison on one thread in the folder `bench`, without GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    started = []

    def start(*words: str) -> Process:
        words = (*words, "--threads", "1", "--warmup", "0", "--config", "cpu", "--out", "bench")
        started.append(Process([sys.executable, "-m", "relaunch.launch", "compare", *words]))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def wait_for(what, process: Process):
    """Poll until `what` is true, as long as the comparison lives."""
    while not (value := what()):
        assert process.popen.poll() is None, process.out + process.err
        time.sleep(0.05)
    return value


def states(folder: Path) -> dict[str, dict]:
    return {run.name: records.status(RunDir(run)) for run in sorted((folder / "runs").glob("*seed*"))}


@pytest.mark.slow
def test_killed_in_the_middle_it_repeats_no_finished_part(begin):
    """A cell that fails is a row with its reason, one that cannot be measured too; the rest is measured."""
    words = ["mnist", "--grid", "lr=1,1e9", "precision=no,fp16", "--samples", "160", "-b", "8"]
    words += ["--repeats", "2"]
    first, folder = begin(*words), Path("bench")

    def finished() -> list[dict]:
        return [status for status in states(folder).values() if status.get("state") == "done"]

    done = wait_for(finished, first)[0]
    first.signal(signal.SIGKILL).popen.wait()
    second = begin(*words).end(300)
    assert second.code == 0 and "there already" in second.err, second.err
    assert done["pid"] in [status["pid"] for status in states(folder).values()]
    found = {cell["name"]: cell for cell in records.comparison(folder)["cells"]}
    assert {name: cell["state"] for name, cell in found.items()} == {
        "lr=1 precision=no": "measured",
        "lr=1 precision=fp16": "cannot",
        "lr=1e9 precision=no": "failed",
        "lr=1e9 precision=fp16": "cannot",
    }
    assert "70 " in found["lr=1e9 precision=no"]["reason"] and "fp16 needs a GPU" in second.out
    measured = found["lr=1 precision=no"]
    assert len(measured["seconds"]["values"]) == 2 and measured["samples"] == [160, 160]
    rows = list(csv.DictReader((folder / "compare.csv").read_text().splitlines()))
    assert rows[0]["Optimization Technique"] == "lr=1 precision=no"
    assert float(rows[0]["Training Time (seconds)"]) > 0
    before = states(folder)
    third = begin(*words).end(300)
    assert third.code == 0 and "there already" in third.err and states(folder) == before


@pytest.mark.slow
def test_stopped_it_saves_and_goes_on_to_the_target(begin):
    words = ["mnist", "--grid", "lr=0.5,1", "--until", "top1=30", "--epochs", "900", "-b", "8"]
    words += ["--eval-every", "5", "--repeats", "1"]
    first, folder = begin(*words), Path("bench")
    wait_for(lambda: any(p.stat().st_size for p in folder.glob("runs/*/metrics.jsonl")), first)
    first.signal(signal.SIGINT).end()
    assert "relaunch: SIGINT: stopping; the run that is trained now saves after its step; Ctrl" in first.err
    assert [status["reason"] for status in states(folder).values()] == ["stopped by SIGINT, and saved"]
    assert first.code == 75 and "to go on: relaunch compare mnist --grid lr=0.5,1" in first.err, first.err
    second = begin(*words).end(300)
    assert second.code == 0, second.err
    found = records.comparison(folder)
    assert found["target"] == {"metric": "top1", "value": 30.0} and found["best"].startswith("lr=")
    for cell in found["cells"]:
        assert cell["state"] == "measured" and cell["quality"]["mean"] >= 30 and cell["epochs"][0] < 900, cell
