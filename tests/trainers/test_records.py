"""A run's folder read by others: whole, damaged, odd, old, and while it is written."""

import json
import os

import pytest

from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

ODD = (
    b"",
    b"{",
    b"[]",
    b"[1]",
    b"null",
    b'"x"',
    b"\xff\xfe{}",
    b'{"step": "x", "code": [], "seconds": "long"}',
)


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path)


@pytest.mark.parametrize("content", ODD)
def test_an_odd_small_file_is_passed_by(run, content):
    for path in (run.status, run.plan, run.config):
        path.write_bytes(content)
    status = records.status(run)
    assert not {"step", "code", "seconds"} & status.keys() and not records.plan(run).get("total_steps")
    assert isinstance(records.config(run), dict) and records.seconds(run) >= 0
    assert records.damaged(run) == ([] if b"step" in content else ["config.json", "plan.json", "status.json"])


def test_nothing_is_read_of_nothing(run):
    assert records.status(run) == records.plan(run) == records.config(run) == {}
    assert records.metrics(run) == records.checkpoints(run) == records.predictions(run) == []
    assert records.newest(run) is None and records.seconds(run) == 0 and records.damaged(run) == []


def test_a_bad_line_of_metrics_costs_that_line_alone(run):
    good = [{"step": n, "split": "train", "loss": 1.0} for n in (1, 2, 3)]
    bad = [b'{"step": 2, "sp', b"[]", b"7", b'{"step": "2", "split": "train"}', b"\xff\xfe", b'{"loss": 1.0}']
    lines = [json.dumps(good[0]).encode(), *bad, json.dumps(good[1]).encode(), json.dumps(good[2]).encode()]
    run.metrics.write_bytes(b"\n".join(lines) + b'\n{"step": 4, "spl')
    assert records.metrics(run) == good
    run.cut_metrics(2, 2)  # as a resume does
    assert records.metrics(run) == good[:2] and run.metrics.read_bytes().count(b"\n") == 2


def test_checkpoints_are_committed_steps_in_their_order(run):
    for name in ("step-000000009", "step-000000010", "step-1000000000", "step-x", ".step-000000011.1.part"):
        (run.checkpoints / name).mkdir(parents=True)
    for step in (9, 1000000000):
        (run.checkpoint(step) / "MANIFEST.json").write_text("{}")
    assert [records.step_of(p) for p in records.checkpoints(run)] == [9, 10, 1000000000]
    assert [records.step_of(p) for p in records.committed(run)] == [9, 1000000000]
    assert records.newest(run) == 1000000000


def at(run: RunDir, **when: float):
    for name, moment in when.items():
        path = getattr(run, name)
        path.touch()
        os.utime(path, (moment, moment))


def test_the_time_of_a_run_is_that_of_all_its_starts(tmp_path, run):
    run.config.write_text("{}")
    run.lock()
    run.write_status("preempted", 75, 10)
    run._lock.close()
    assert 0 <= records.seconds(run) < 5
    run.status.write_text(json.dumps(records.status(run) | {"seconds": 1000.0}))
    at(run, config=5e5, status=5e5, metrics=5e5 + 7)  # logged for 7 s after the last save, then killed
    assert records.seconds(run) == 1007
    again = RunDir(tmp_path)
    again.lock()
    at(run, config=9e5)  # a resume writes it again
    again.write_status("running", step=10)
    assert 1007 <= records.status(run)["seconds"] < 1012
    RunDir(tmp_path).write_status("failed", 76, 10)  # by one that did not train
    assert 1007 <= records.status(run)["seconds"] < 1012


def test_an_old_runs_time_is_its_last_starts(run):
    run.status.write_text('{"state": "done", "step": 3}')
    at(run, config=5e5, metrics=5e5 + 60, status=5e5 + 61)
    assert records.seconds(run) == 61


def test_a_real_runs_time_goes_on_at_a_resume(train):
    run = RunDir("runs/first")
    assert train("mnist", "--run", "first", "--max-steps", 2, "--stop-after", 1) == 75
    first = records.status(run)["seconds"]
    run.status.write_text(json.dumps(records.status(run) | {"seconds": first + 3600}))
    assert train("mnist", "--run", "first", "--max-steps", 2, "--resume", "auto") == 0
    assert records.status(run)["seconds"] > first + 3600
