"""What may be asked of a profile, and what a folder of profiles holds."""

import json

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import records
from relaunch.trainers.config import parse
from relaunch.trainers.profiling import asked, results, steps


@pytest.mark.parametrize("words", [["-b", "1,16,64"], ["-b1,16,64"], ["--batch_size=1,16,64,16"]])
def test_batch_sizes_are_a_list_and_the_rest_is_a_training(words):
    sizes, rest = asked.split(["mnist", *words, "--lr", "0.5"])
    assert sizes == [1, 16, 64]
    job = parse(rest)
    assert [c.batch_size for c in asked.configs(job, sizes)] == [1, 16, 64] and job.config.lr == 0.5


def test_without_batch_sizes_it_is_the_workloads_own():
    sizes, rest = asked.split(["mnist"])
    assert [c.batch_size for c in asked.configs(parse(rest), sizes)] == [64]


@pytest.mark.parametrize(
    "words,said",
    [
        (["-b", "1,x"], "no list of whole numbers"),
        (["-b", "1, 16"], "no list of whole numbers"),
        (["--resume", "auto"], "--resume is for trainings"),
        (["--profile-steps", "1:3"], "--profile-steps is for trainings"),
    ],
)
def test_what_is_no_profile_is_refused(words, said):
    with pytest.raises(Failure, match=said):
        sizes, rest = asked.split(["mnist", *words])
        asked.configs(parse(rest), sizes)


@pytest.mark.parametrize(
    "text,said",
    [
        ("10", "no window of steps"),
        ("a:b", "no window of steps"),
        ("5:5", "holds no step; try 5:15"),
        ("9:3", "holds no step; try 9:19"),
        ("0:5000", "holds 5,000 steps"),
        ("35:45", "lies beyond the 40 steps of this training; try 20:30"),
    ],
)
def test_a_window_that_cannot_be_is_refused(text, said):
    with pytest.raises(Failure) as raised:
        steps.check(text, 40)
    assert raised.value.code == 64 and said in raised.value.line()


def test_a_window_goes_with_training_alone():
    assert parse(["mnist", "--profile-steps", "0:10"]).launch.profile_steps == "0:10"
    with pytest.raises(Failure, match="goes with training"):
        parse(["mnist", "--evaluate", "--resume", "first", "--profile-steps", "0:10"])


# the folder ---------------------------------------------------------------------------------------

ROW = {"name": "aten::mm", **dict.fromkeys(("self_ms", "total_ms", "share", "calls", "memory_mb"), 1.0)}


def setting(config: str, batch: int, step_ms: float = 1.0) -> dict:
    numbers = dict.fromkeys(("sample_us", "profiled_ms", "independent_ms"), 1.0)
    about = {"device": "cpu", "device_name": "x86_64", "world": 1, "threads": 1, "steps": 3}
    operators = [ROW | {"device_ms": 0.0}]
    trace = results.trace_name(config, batch)
    return {
        "config": config,
        "batch_size": batch,
        "step_ms": step_ms,
        **numbers,
        **about,
        "phases": {},
        "operators": operators,
        "trace": trace,
    }


def test_settings_are_added_by_config_and_batch_size_and_replaced_when_measured_again(tmp_path):
    about = results.about(parse(["mnist"]).config, "mnist", {})
    results.put(tmp_path, results.held(tmp_path, about), setting("cpu", 16))
    for one in (setting("cpu2", 16), setting("cpu", 1), setting("cpu", 16, step_ms=2.0)):
        results.put(tmp_path, results.held(tmp_path, about), one)
    assert [(s["config"], s["batch_size"], s["step_ms"]) for s in records.profile(tmp_path)["settings"]] == [
        ("cpu", 1, 1.0),
        ("cpu", 16, 2.0),
        ("cpu2", 16, 1.0),
    ]


def test_other_data_are_refused_and_other_settings_begin_anew(tmp_path, capsys):
    config = parse(["mnist"]).config
    results.put(tmp_path, results.about(config, "mnist", {}), setting("cpu", 16))
    (tmp_path / "trace-cpu-b16.json.gz").touch()
    with pytest.raises(Failure, match="holds a profile of data mnist, not digits"):
        results.held(tmp_path, results.about(config, "digits", {}))
    with pytest.raises(Failure, match="holds a profile of workload mnist, not cifar10"):
        results.held(tmp_path, results.about(parse(["cifar10"]).config, "mnist", {}))
    other = results.about(parse(["mnist", "--optimizer", "sgd", "-b", "8"]).config, "mnist", {})
    found = results.held(tmp_path, other)
    assert found["settings"] == [] and "measured with --optimizer adadelta: it is begun anew" in (
        capsys.readouterr().err
    )
    results.put(tmp_path, found, setting("cpu", 8))
    assert not list(tmp_path.glob("trace-*"))  # of what is gone
    (tmp_path / "profile.json").write_text('{"schema": 1, "settings": [')
    assert results.held(tmp_path, other)["settings"] == []
    assert "profile.json cannot be read: it is begun anew" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "settings": 3}'])
def test_a_damaged_profile_is_none(tmp_path, damage):
    (tmp_path / "profile.json").write_text(damage)
    assert records.profile(tmp_path) == {}


def test_damaged_settings_are_passed_by(tmp_path):
    found = results.put(tmp_path, results.about(parse(["mnist"]).config, "mnist", {}), setting("cpu", 16))
    bad = [
        3,
        {},
        setting("cpu", 1) | {"step_ms": "fast"},
        setting("cpu", 2) | {"operators": [{"name": 3}, 4]},
    ]
    (tmp_path / "profile.json").write_text(json.dumps(found | {"settings": found["settings"] + bad}))
    read = records.profile(tmp_path)["settings"]
    assert [(s["batch_size"], len(s["operators"])) for s in read] == [(16, 1), (2, 0)]
