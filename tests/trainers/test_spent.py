"""Where the time went: the causes add up to the wall time, over starts, kills and ranks; what is read off."""

import json
import time

import pytest

from relaunch.launch import runs
from relaunch.trainers import goodput, records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.spent import Spent, taken_up
from rigs import own
from rigs.runs import steps

CAUSES = dict.fromkeys(goodput.CAUSES, 0.0)
SHORT = "mnist --batch-size 16 --max-steps 12 --log-interval 1 --save-every 5".split()


def told(run) -> dict:
    """The run's time, whose causes are its wall time, as its two clocks say."""
    found = records.time_spent(RunDir(run))
    record = records.times(RunDir(run))
    assert sum(found["causes"].values()) == pytest.approx(found["wall"])
    assert found["wall"] == pytest.approx(record["until"] - record["first"], abs=0.05)
    assert min(found["causes"].values()) >= 0
    return found


def a_record(**changes) -> dict:
    causes = CAUSES | {"start": 3.0, "compute": 8.0, "evaluation": 1.0}
    saves = {
        "0": CAUSES | {"start": 3.0},
        "10": CAUSES | {"start": 3.0, "compute": 5.0, "evaluation": 0.5},
        "20": causes,
    }
    record = {"schema": 1, "first": 1000.0, "until": 1012.0, "paused": 0, "starts": 1, "from_step": 0}
    record |= {"from_samples": 0, "step": 20, "samples": 320, "between": 0.0, "causes": causes}
    return record | {"saves": saves, "ranks": []} | changes


def test_nothing_lies_between_two_causes():
    spent = Spent()
    before = time.perf_counter()
    for cause in ("input", "compute", "optimizer", "other"):
        spent.switch(cause)
        time.sleep(0.01)
    spent.switch("evaluation")
    seconds = spent.causes()
    assert sum(seconds.values()) - seconds["start"] == pytest.approx(time.perf_counter() - before, abs=0.005)
    assert all(seconds[c] >= 0.01 for c in ("input", "compute", "optimizer", "other"))
    spent.found_communication(0.004)
    spent.found_communication(0.004)  # all of them until now, and not as much again
    assert spent.seconds["communication"] == 0.004 and sum(spent.causes().values()) >= sum(seconds.values())


@pytest.mark.parametrize(
    "step, sign, paused, repeated, restarts, compute",
    [
        (20, 1012.0, 0, 0.0, 88.0, 8.0),  # preempted, and a wait for a machine
        (20, 1015.0, 0, 3.0, 85.0, 8.0),  # killed 3 s after its checkpoint
        (10, 1015.0, 0, 6.5, 85.0, 5.0),  # and that checkpoint is damaged
        (0, 1012.0, 0, 9.0, 88.0, 0.0),
        (20, 1013.0, 1, 0.0, 0.0, 8.0),  # was done, and is made longer
        (20, 9999.0, 0, 88.0, 0.0, 8.0),  # another clock wrote the files
    ],
)
def test_what_was_lost_is_repeated(step, sign, paused, repeated, restarts, compute):
    record = taken_up(a_record(paused=paused), step, 1100.0, sign)
    causes = record["causes"]
    assert (causes["repeated"], causes["restarts"], causes["compute"]) == (repeated, restarts, compute)
    assert sum(causes.values()) == pytest.approx(12.0 if paused else 100.0)
    assert record["between"] == restarts


def test_a_clock_that_was_set_back_loses_nothing():
    assert sum(taken_up(a_record(), 20, 900.0, 800.0)["causes"].values()) == 12.0


@pytest.mark.parametrize(
    "waits, rank",
    [
        ([5.0, 1.0], 1),
        ([1.0, 5.0, 5.0], 0),
        ([5.0, 4.6], None),
        ([5.0], None),
        ([0.0, 0.0], None),
        ([], None),
    ],
)
def test_the_straggler_waits_least(waits, rank):
    found = goodput.straggler([{"steps": 10.0, "waited": waited} for waited in waits])
    assert (found and found["rank"]) == rank
    if rank == 1:
        assert found["longer"] == pytest.approx(0.8) and found["seconds"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    "causes, bound, says",
    [
        (dict(input=6.0, compute=4.0), "input wait", "at most 6.0 s less of 10.0 s (60 %)"),
        (dict(evaluation=8.0, compute=2.0), "evaluation", "--eval-every 2 (it is 1): 4.0 s less"),
        (dict(checkpoint=6.0, compute=4.0), "checkpoint", "--save-every 10 (it is 5): about 3.0 s less"),
        (dict(optimizer=6.0, compute=4.0), "optimizer", "--batch-size 32 (it is 16), which halves"),
        (
            dict(repeated=8.0, compute=2.0),
            "restarts and repeated steps",
            "--save-every 2 (it is 5): about 4.0",
        ),
        (dict(start=8.0, compute=2.0), "start", "over twice the steps it would be 67 %"),
        (dict(compute=9.9, input=0.1), "forward+backward", "no setting of this run would have saved 2 %"),
    ],
)
def test_the_change_is_computed(causes, bound, says):
    config = {"eval_every": 1, "save_every": 5, "batch_size": 16}
    rows = [{"split": "val", "step": step} for step in (5, 10)]
    found = goodput.judged(
        a_record(causes=CAUSES | causes), config, {"world": 1, "steps_per_epoch": 100}, rows
    )
    assert found["bound"] == bound and says in found["advice"], found["advice"]
    # the profiler tells more where the model itself takes the time
    assert ("relaunch profile" in str(goodput.rows(found))) == (bound in ("forward+backward", "optimizer"))


@pytest.mark.pure
def test_whoever_waits_for_raw_images_is_told_of_packed_ones():
    record, plan = a_record(causes=CAUSES | dict(input=6.0, compute=4.0)), {"world": 1}
    advice = goodput.judged(record, {"input": "raw", "workers": 2}, plan, [])["advice"]
    assert (
        advice
        == "--input packed (it is raw), or more --workers (they are 2): at most 6.0 s less of 10.0 s (60 %)"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"causes": {}}', json.dumps(a_record(causes={"compute": "9"})).encode()]
    + [json.dumps(a_record(ranks=[None])).encode(), json.dumps(a_record(saves={"x": CAUSES})).encode()],
)
def test_damaged_records_tell_nothing(tmp_path, content):
    run = RunDir(tmp_path)
    assert records.time_spent(run) == {} and goodput.rows({}) == []
    run.time.write_bytes(content)
    assert records.time_spent(run) == {}
    run.time.write_text(json.dumps(a_record()))
    assert records.time_spent(run)["wall"] == 12.0


def test_one_process(train, relaunch_env, capsys):
    """The end of a run says where its time went, and `runs show` says the same."""
    assert train(*SHORT, "--run", "./a") == 0
    found, ended = told(relaunch_env / "a"), capsys.readouterr().out
    assert found["causes"]["compute"] > 0 and found["causes"]["evaluation"] > 0 and found["starts"] == 1
    assert found["causes"]["repeated"] == found["causes"]["restarts"] == 0
    assert runs.main_runs(["show", "./a"]) == 0
    shown = capsys.readouterr().out
    for name, text in goodput.rows(found):
        assert text in ended and f"{name:12}{text}" in shown
    assert train(*SHORT[:-4], "--max-steps", 14, "--run", "./a", "--resume", "auto") == 0  # after a pause
    again = records.time_spent(RunDir(relaunch_env / "a"))
    assert again["starts"] == 2 and again["between"] == 0 and again["causes"]["repeated"] == 0


def test_a_crash_and_a_kill_count_as_repeated(train, fault, relaunch_env):
    """What comes after the last save is trained twice: what it took at first is lost."""
    fault("step=*,do=sleep:0.05;step=8,do=raise")
    with pytest.raises(RuntimeError):
        train(*SHORT, "--run", "./a")
    twice = 8 - steps(relaunch_env / "a")[-1]  # step 6, an epoch's end, is saved too
    fault("step=*,do=sleep:0.05")
    assert train(*SHORT, "--run", "./a", "--resume", "auto") == 0
    found = told(relaunch_env / "a")
    assert twice >= 2 and found["causes"]["repeated"] >= twice * 0.05 and found["causes"]["restarts"] > 0
    assert found["causes"]["other"] >= 12 * 0.05  # those that count


def test_a_slow_input_of_ones_own(train, relaunch_env, tmp_path):
    sleep = "        if training:\n            __import__('time').sleep(0.1)\n"
    file = own.write(tmp_path, ("        if training:\n", sleep))
    assert train(file, "--max-steps", 6, "--run", "./a") == 0
    found = told(relaunch_env / "a")
    causes = found["causes"] | {"start": 0.0}  # on a busy machine it may take longer
    assert max(causes, key=causes.__getitem__) == "input" and causes["input"] >= 6 * 0.1


def test_an_evaluation_that_takes_most(train, fault, relaunch_env, tmp_path):
    fault("evaluate=*,do=sleep:0.2")
    command = [own.write(tmp_path), "--epochs", 4, "--eval-batch-size", 12, "--run", "./a"]
    assert train(*command) == 0
    found = told(relaunch_env / "a")
    causes = found["causes"] | {"start": 0.0}
    assert max(causes, key=causes.__getitem__) == "evaluation" and causes["evaluation"] >= 4 * 2 * 0.2


def test_old_runs_begin_to_count_where_they_go_on(train, relaunch_env):
    assert train(*SHORT, "--stop-after", 5, "--run", "./a") == 75
    (relaunch_env / "a/time.json").unlink()
    assert records.time_spent(RunDir(relaunch_env / "a")) == {} and runs.main_runs(["show", "./a"]) == 0
    assert train(*SHORT, "--run", "./a", "--resume", "auto") == 0
    assert told(relaunch_env / "a")["from_step"] == 5


@pytest.mark.slow
def test_killed_and_started_again_by_the_launcher(launch, relaunch_env, monkeypatch):
    monkeypatch.setenv("RELAUNCH_FAULT", f"step=*,do=sleep:0.1;step=9,do=kill,once={relaunch_env}/died")
    done = launch("train", *SHORT, "--run", "./a", "--config", "cpu", module="launch")
    assert done.code == 0, done.err
    found = told(relaunch_env / "a")
    assert found["starts"] == 2 and "in 2 starts" in done.out
    # saved at the epoch's end, step 6; steps 7 and 8 were logged, each after 0.1 s
    assert 0.2 <= found["causes"]["repeated"] and found["causes"]["restarts"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("where", ["step", "input"])
def test_a_slow_rank_is_named(launch, relaunch_env, tmp_path, monkeypatch, where):
    """Two real processes: rank 1 sleeps after its steps, or within them, where only the all-reduce waits."""
    if where == "step":
        monkeypatch.setenv("RELAUNCH_FAULT", "step=*,rank=1,do=sleep:0.2")
        command = ["mnist", "--batch-size", 16]
    else:
        slow = "if training and os.environ.get('RANK') == '1':\n            __import__('time').sleep(0.2)"
        command = [own.write(tmp_path, ("if training:\n", f"{slow}\n        if training:\n"))]
    single = launch("train", *command, "--max-steps", 8, "--run", "./one", "--config", "cpu", module="launch")
    assert single.code == 0, single.err
    done = launch("train", *command, "--max-steps", 8, "--run", "./two", "--config", "cpu2", module="launch")
    assert done.code == 0, done.err
    found = told(relaunch_env / "two")
    assert found["straggler"]["rank"] == 1 and found["causes"]["communication"] >= 8 * 0.15, found
    assert "rank 1 waits least for the others" in done.out
    assert found["scaling"]["run"] == "one" and "of one, one process" in done.out
