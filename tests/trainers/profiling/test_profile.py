"""Real steps, profiled: by `relaunch profile`, and while a run is trained."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from relaunch.data_prep.errors import Failure
from relaunch.trainers import profile, records
from relaunch.trainers.profiling import setting
from rigs import own
from rigs.runs import outcome

RANGES = {"step", "input", "forward", "backward", "optimizer"}


@pytest.fixture
def profiled(relaunch_env, signals, monkeypatch):
    """profiled("mnist", "-b", "1,4") in this process, by few steps; returns what the folder p holds."""
    monkeypatch.setattr(profile, "SECONDS", 0.0)
    threads = torch.get_num_threads()

    def run(*words) -> dict:
        assert profile.run([*words, "--threads", "1", "--out", "p"])[0] == 0
        return records.profile(Path("p"))

    yield run
    torch.set_num_threads(threads)


def ranges(trace: Path) -> list[str]:
    """The names of a trace's ranges that are ours, as Perfetto reads them."""
    with gzip.open(trace) as f:
        events = json.load(f)["traceEvents"]
    return [e["name"] for e in events if e.get("cat") == "user_annotation" and e["name"] in RANGES]


def sound(one: dict) -> None:
    """What holds of every setting."""
    assert sum(row["share"] for row in one["operators"]) == pytest.approx(1)
    assert sum(row["self_ms"] for row in one["operators"]) == pytest.approx(one["profiled_ms"])
    assert one["profiled_ms"] == pytest.approx(
        one["independent_ms"], rel=0.1, abs=3
    )  # ms: the machine may have others to serve
    assert sum(one["phases"].values()) <= one["profiled_ms"] and min(one["phases"].values()) > 0


def test_what_ran_is_what_was_asked_for_and_clocks_agree(profiled, capsys):
    found = profiled("mnist", "--batch-size", "1,8", "--grad-accum-steps", "1")
    assert [s["batch_size"] for s in found["settings"]] == [1, 8]
    for one in found["settings"]:
        sound(one)
        assert one["inputs"] == [[one["batch_size"], 1, 28, 28]]
        seen = ranges(Path("p", one["trace"]))
        assert set(seen) == RANGES and seen.count("step") == one["steps"] == seen.count("backward")
        convolutions = next(r for r in one["operators"] if r["name"] == "aten::convolution_backward")
        assert convolutions["calls"] == 2
    one, eight = found["settings"]
    assert eight["flops_per_step"] == 8 * one["flops_per_step"] > 0
    assert eight["sample_us"] < one["sample_us"]
    said = capsys.readouterr().out
    assert "mnist, batch 8 (8x1x28x28) on cpu" in said and "profiler overhead" in said
    page = Path("p/profile.html").read_text()
    assert "aten::convolution_backward" in page and Path("p/profile.md").exists()


@pytest.mark.slow
def test_a_step_in_parts_is_one_step_and_its_batch_the_whole(profiled):
    (one,) = profiled("cifar10", "-b", "8", "--grad-accum-steps", "2")["settings"]
    sound(one)
    assert (one["batch_size"], one["inputs"]) == (8, [[4, 3, 32, 32]])


@pytest.mark.slow
def test_text_is_counted_in_its_columns(profiled):
    (one,) = profiled("wikitext2", "-b", "4", "--bptt", "5", "--emsize", "8", "--nhead", "2")["settings"]
    sound(one)
    assert (one["batch_size"], one["inputs"][0]) == (4, [5, 4])


def test_a_model_that_cannot_train_so_leaves_nothing(profiled):
    with pytest.raises(Failure, match="cannot train on one sample"):
        profiled("cifar10", "-b", "1")
    assert not Path("p").exists()


def test_the_steps_of_a_training_are_profiled_and_train_the_same_bits(train):
    words = ("mnist", "--max-steps", 8, "--log-interval", 2, "--save-every", 4)
    assert train(*words, "--run", "plain") == train(*words, "--run", "seen", "--profile-steps", "3:6") == 0
    assert outcome(Path("runs/plain")) == outcome(Path("runs/seen"))
    (one,) = records.profile(Path("runs/seen/profile-3-6"))["settings"]
    sound(one)
    assert (one["steps"], one["batch_size"]) == (3, 64) and one["overhead"] is not None
    assert ranges(Path("runs/seen/profile-3-6", one["trace"])).count("step") == 3
    plan = json.loads(Path("runs/seen/plan.json").read_text())
    assert "--profile-steps" in plan["command"]


def test_a_training_that_stops_inside_the_window_writes_what_there_is_and_goes_on(train):
    words = ("mnist", "--max-steps", 8, "--run", "cut", "--profile-steps", "0:6")
    assert train(*words, "--stop-after", 2) == 75
    assert records.profile(Path("runs/cut/profile-0-6"))["settings"][0]["steps"] == 2
    assert train(*words, "--resume", "auto") == 0
    (one,) = records.profile(Path("runs/cut/profile-0-6"))["settings"]
    assert one["steps"] == 4


@pytest.mark.slow
def test_a_profile_that_finds_no_room_costs_no_training(train, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(setting.Window, "write_trace", full)
    assert train("mnist", "--max-steps", 4, "--run", "full", "--profile-steps", "1:3") == 0
    assert "no profile of steps 1:3 ([Errno 28]" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_inside_the_window_is_that_error_and_ends_the_profiler(train, fault):
    fault("step=3,do=raise")
    with pytest.raises(RuntimeError):
        train("mnist", "--max-steps", 6, "--run", "broken", "--profile-steps", "1:5")
    fault("")
    assert not torch.autograd._profiler_enabled() and not Path("runs/broken/profile-1-5").exists()


@pytest.mark.slow
def test_two_processes_are_profiled_by_the_first(relaunch_env):
    done = relaunch("profile", "mnist", "--config", "cpu2", "-b", "8", "--threads", "1", "--out", "p")
    assert done.returncode == 0 and "the first of 2 processes" in done.stdout, done.stdout + done.stderr
    (one,) = records.profile(Path("p"))["settings"]
    sound(one)
    assert (one["config"], one["batch_size"], one["inputs"]) == ("cpu2", 8, [[4, 1, 28, 28]])


@pytest.mark.slow
def test_it_is_refused_before_anything_is_made(relaunch_env):
    for words, code, says in (
        (("--config", "1gpu"), 69, "needs a GPU"),
        (("--config", "cpu2", "-b", "4,5"), 64, "--batch-size 5 (over all processes) does not divide"),
        (("-b", "4,1000000"), 64, "--batch-size 1000000 is more than"),
    ):
        done = relaunch("profile", "mnist", *words, "--out", "p")
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert not Path("p").exists()


@pytest.mark.slow
def test_a_workload_of_ones_own(relaunch_env):
    word = own.write(relaunch_env)
    done = relaunch("profile", word, "-b", "2,4", "--threads", "1", "--width", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    found = records.profile(Path("profiles/flowers"))
    assert [s["batch_size"] for s in found["settings"]] == [2, 4]
    for one in found["settings"]:
        sound(one)


def relaunch(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", "launch", *words], capture_output=True, text=True, timeout=200, env=environment
    )
