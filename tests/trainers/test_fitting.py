"""--micro-batch auto: the largest that fits, tried on a copy, kept in config.json as --grad-accum-steps."""

import json

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import fitting
from relaunch.trainers.config import parse
from rigs.own import write
from rigs.runs import outcome

FORWARD = "    def forward(self, x):\n"
FULL = 'raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")'


def limited(folder, most: str):
    """A workload with dropout and batches of 16 whose training finds no memory for more than `most`."""
    checked = f"{FORWARD}        if self.training and len(x) > {most}:\n            {FULL}\n"
    return write(
        folder, (FORWARD, checked), ("from torch import nn\n", "import torch\nfrom torch import nn\n")
    )


@pytest.fixture
def four(relaunch_env):
    return limited(relaunch_env / "work", "4")


def accumulated(run) -> int:
    return json.loads((run / "config.json").read_text())["grad_accum_steps"]


def test_the_run_is_that_of_so_many_micro_batches_and_goes_on_as_one(
    train, four, relaunch_env, capsys, monkeypatch
):
    runs = relaunch_env / "runs"
    four = [four, "--epochs", 1]
    assert train(*four, "--micro-batch", "auto", "--run", "auto") == 0
    said = "--micro-batch auto: 4 at a time, 4 micro-batches a step; 8 at a time do not fit: out of memory"
    assert f"{said} (Tried to allocate 2.00 GiB)\n" in capsys.readouterr().out
    assert accumulated(runs / "auto") == 4
    assert train(*four, "--grad-accum-steps", 4, "--run", "typed") == 0
    assert outcome(runs / "auto") == outcome(runs / "typed")

    assert train(*four, "--micro-batch", "auto", "--run", "parts", "--stop-after", 5) == 75
    monkeypatch.setattr(fitting, "fitted", None)  # it is not tried again
    assert train(*four, "--micro-batch", "auto", "--run", "parts", "--resume", "auto") == 0
    assert outcome(runs / "parts") == outcome(runs / "auto")


def test_a_smallest_part_that_does_not_fit(train, relaunch_env, capsys):
    assert train(limited(relaunch_env / "work", "1"), "--micro-batch", "auto", "--run", "run") == 69
    assert "relaunch: 69 2 at a time do not fit: out of memory" in capsys.readouterr().err
    assert not (relaunch_env / "runs/run/config.json").exists()


def test_a_cpu_takes_no_more_than_there_is(train, relaunch_env, monkeypatch, capsys):
    """What the next size will take is foreseen: the kernel would not refuse it, but end the process."""
    peaks = iter([1.0e9, 1.3e9, 1.4e9, 1.6e9])  # bytes: before, with 2, 4 and 8 at a time
    monkeypatch.setattr(fitting, "peak", lambda: next(peaks))
    monkeypatch.setattr(fitting, "room", lambda: 2.0e9)
    assert train(write(relaunch_env / "work"), "--micro-batch", "auto", "--max-steps", 1, "--run", "run") == 0
    said = "16 at a time do not fit (about 2.1 GB, and a process has 2.0 GB here)"
    assert (
        f"8 at a time, 2 micro-batches a step; {said}" in capsys.readouterr().out
        and accumulated(relaunch_env / "runs/run") == 2
    )


def test_what_this_process_takes():
    assert fitting.peak() >= fitting.resident("VmRSS") > 1e6
    assert fitting.room() > fitting.ROOM * fitting.resident("VmRSS")


def test_it_is_said_once(relaunch_env):
    with pytest.raises(Failure) as failure:
        parse("mnist --micro-batch auto --grad-accum-steps 2".split())
    assert "--micro-batch auto and --grad-accum-steps 1 both say how many micro-batches" in failure.value.what
    file = write(relaunch_env / "work", ("dict(width=16, ", "dict(grad_accum_steps=2, width=16, "))
    job = parse([str(file), "--preset", "wide", "--micro-batch", "auto"])
    assert "grad_accum_steps" not in job.given and job.config.grad_accum_steps == 1
    assert parse([str(file), "--preset", "wide"]).config.grad_accum_steps == 2


@pytest.mark.slow
def test_ranks_agree_on_the_smaller(launch, relaunch_env):
    file = limited(relaunch_env / "work", '(2 if __import__("os").environ["RANK"] == "1" else 8)')
    done = launch(file, "--micro-batch", "auto", "--run", "two", processes=2, accelerate="accelerate")
    assert done.code == 0 and "2 at a time, 4 micro-batches a step; 4 at a time do not fit" in done.out
    assert accumulated(relaunch_env / "runs/two") == 4
