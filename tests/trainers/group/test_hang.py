"""A rank hangs or dies, on one machine, for real: one line names it, the code is right, nobody stays."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relaunch.data_prep.errors import DIED, HUNG, USAGE, Failure
from relaunch.launch import restart, supervise
from relaunch.trainers import rundir
from relaunch.trainers.config import parse
from relaunch.trainers.group import peers
from relaunch.trainers.group.missing import named
from relaunch.trainers.group.peers import CLOSED, TIMED_OUT, Peers
from rigs.ranks import living, ours, ranks
from rigs.runs import outcome, status, steps

# Ranks that do in each step what a training does.
WORKER = """
import sys
from relaunch.trainers.group import faults, process, stacks
from relaunch.trainers.rundir import RunDir
def run(argv):
    import torch
    from relaunch.trainers.group.runtime import Runtime
    runtime = Runtime(1, timeout=8)
    stacks.keep(RunDir("run"))
    model = runtime.accelerator.prepare(torch.nn.Linear(4, 4))
    with runtime.peers.watched():
        for step in range(10000):
            faults.fault("step", step)
            if step == 6 and runtime.rank != int(argv[0]):
                runtime.gather(step)
            with runtime.peers.waiting("all_reduce of the gradients"):
                model(torch.ones(2, 4)).sum().backward()
            runtime.agree(0)
    return 0, None
sys.exit(process.main(run))
"""


@pytest.fixture
def group(relaunch_env):
    """group("stop", victim=1): three ranks, one in trouble at step 5; (code, words, seconds from then on)."""
    script, trouble = relaunch_env / "worker.py", relaunch_env / "trouble"
    script.write_text(WORKER)

    def run(do: str, victim: int, supervised: bool = True, beside: str = "", skips: int = -1):
        fault = f"{beside}step=5,rank={victim},do={do},once={trouble}"
        done = subprocess.run(
            ranks(script, str(skips), count=3, supervised=supervised),
            capture_output=True,
            text=True,
            env=os.environ | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "3", "RELAUNCH_FAULT": fault},
            timeout=90,
        )
        assert not living(str(script)), "a process was left behind"
        return done.returncode, done.stderr, time.time() - trouble.stat().st_mtime

    return run


def at(word: str) -> str:
    """The place of the worker's line that holds `word`, as messages name it."""
    [number] = [n for n, line in enumerate(WORKER.splitlines(), 1) if word in line]
    return f"run, worker.py:{number}"


def stacks(rank: int) -> str:
    return Path(f"run/logs/stacks-rank-{rank}.txt").read_text()


@pytest.mark.parametrize(
    "do, victim",
    [
        pytest.param("stop", 1, marks=pytest.mark.slow),  # a half minute, most of it waiting
        pytest.param("sleep:1000", 2, marks=pytest.mark.slow),  # its other threads live
        pytest.param("stop", 0, marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_is_named_in_time_with_the_stacks_of_all(group, do, victim):
    late = "step=*,rank=0,do=sleep:0.5;"  # comes later than the others, and is not what they wait for
    code, errors, seconds = group(do, victim, beside=late if do != "stop" else "")
    assert code == HUNG and len(ours(errors)) == 1 and "Traceback" not in errors, errors
    assert (
        ours(errors)[0].startswith(f"relaunch: 76 rank {victim} (on ")
        and "is missing: the others waited 4 s in vain in all_reduce of the gradients" in ours(errors)[0]
    )
    assert seconds < 8 + supervise.LEAVING + 3  # 3: for a machine that is busy
    does = "stopped" if do == "stop" else f"in {at('fault(')}"
    assert (
        f" ({at('backward()')}), while rank {victim} is {does} (stacks: run/logs/stacks-rank-*.txt); "
        in ours(errors)[0]
    )
    assert ("T (stopped)" if do == "stop" else "faults.py") in stacks(victim)
    for rank in {0, 1, 2} - {victim}:
        assert f": waits in all_reduce of the gradients ({at('backward()')})" in stacks(rank)
        assert "in backward" in stacks(rank)


@pytest.mark.slow
def test_a_rank_that_leaves_out_a_collective_is_named(group):
    code, errors, seconds = group("sleep:0", 0, skips=1)
    assert code == HUNG and ours(errors)[0].startswith("relaunch: 76 rank 1 (on "), errors
    assert f" is in all_reduce of the gradients ({at('backward()')}), ranks 0, 2 (on " in ours(errors)[0]
    assert f" are in gather ({at('gather(')}): each waited 4 s in vain (stacks: " in ours(errors)[0]
    assert "in gather_object" in stacks(0) and "in backward" in stacks(1)
    assert seconds < 8 + supervise.LEAVING + 3


@pytest.mark.parametrize("do, victim", [("kill", 2), pytest.param("raise", 0, marks=pytest.mark.slow)])
def test_a_rank_that_dies_is_named_within_seconds(group, do, victim):
    code, errors, seconds = group(do, victim)
    assert (
        code == DIED
        and len(ours(errors)) == 1
        and f"rank {victim} (on " in ours(errors)[0]
        and " is gone: " in ours(errors)[0]
    )
    assert ("RuntimeError: RELAUNCH_FAULT at step 5" in errors) == (do == "raise")
    assert seconds < 4 + supervise.LEAVING + 5


@pytest.mark.slow
def test_accelerate_alone_says_it_too(group):
    """Plain `accelerate launch`: one of those left prints the line; accelerate ends the stopped one."""
    code, errors, _ = group("stop", 0, supervised=False)
    assert code == 1 and len(ours(errors)) == 1 and ours(errors)[0].startswith("relaunch: 76 rank 0 (on ")


@pytest.mark.slow
def test_a_killed_rank_costs_a_restart_and_no_bits_and_so_does_a_hung_one(relaunch_env):
    words = "train mnist --config cpu2 --num-processes 3 --max-steps 14 --epochs 9 --save-every 4 --threads 1"
    words += " --batch-size 18"  # of two, no order differs
    command = [sys.executable, "-m", "launch", *words.split(), "--run"]
    whole = subprocess.run([*command, "whole"], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    for do, says, flags in (
        ("kill", " is gone: ", []),
        ("stop", " is missing: ", ["--restart-hung", "--timeout", "30"]),
    ):
        fault = f"step=10,rank=1,do={do},once=once-{do}"  # two steps after the checkpoint, and not again
        environment = os.environ | {"RELAUNCH_FAULT": fault}
        broken = subprocess.run([*command, do, *flags], capture_output=True, text=True, env=environment)
        assert broken.returncode == 0, broken.stderr
        [said] = [line for line in ours(broken.stderr) if "the last lines in" not in line]
        assert said.startswith("relaunch: rank 1 (on ") and says in said
        assert f"; starting again from step 8 of runs/{do} (1 of 3)" in said
        run = relaunch_env / "runs" / do
        assert outcome(run) == outcome(relaunch_env / "runs/whole")
        assert status(run)["state"] == "done" and steps(run)[-1] == 14


# parts of it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, means",
    [
        (
            "[x/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] "
            "Timed out waiting 6000ms for recv operation to complete",
            TIMED_OUT,
        ),
        ("Application timeout caused pair closure", TIMED_OUT),
        (
            "[x/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1244",
            CLOSED,
        ),
        (
            "[x/third_party/gloo/gloo/transport/tcp/pair.cc:545] "
            "Read error [127.0.0.1]:36051: Connection reset by peer",
            CLOSED,
        ),
        ("mat1 and mat2 shapes cannot be multiplied", None),
        ("CUDA out of memory", None),
        ("the operation timed out", None),
    ],
)
def test_errors_of_collectives_are_told_from_others(text, means):
    assert peers.how(RuntimeError(text)) == means


def test_errors_of_the_group_have_types_of_their_own():
    import torch.distributed as dist

    assert peers.how(dist.DistStoreError("wait timeout after 300000ms, keys: /x")) == TIMED_OUT
    assert peers.how(dist.DistNetworkError("failed to recv, got 0 bytes")) == CLOSED
    assert peers.how(dist.DistBackendError("NCCL communicator was aborted on rank 1.")) == CLOSED


def test_names_of_the_missing():
    assert named({1}, ["n0", "n1"]) == "rank 1 (on n1) is"
    assert named({3, 2}, ["n0", "n0", "n1", "n1"]) == "ranks 2, 3 (on n1) are"
    assert named({0}, [""]) == "rank 0 is"


@pytest.mark.parametrize("seconds, patience", [(600, 570), (60, 30), (20, 10)])
def test_the_printed_time_covers_finding_out(seconds, patience):
    assert Peers(0, 1, seconds).patience.total_seconds() == patience


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="a bug"), Peers(0, 1, 600).watched():
        raise RuntimeError("a bug")
    with pytest.raises(Failure, match="the data"), Peers(0, 1, 600).watched():
        raise Failure(65, "the data is bad")


def test_the_timeout_is_a_flag_with_a_least_value():
    assert parse(["mnist"]).launch.timeout == 600 and parse(["mnist", "--timeout", "90"]).launch.timeout == 90
    with pytest.raises(Failure) as failure:
        parse(["mnist", "--timeout", "3"])
    assert failure.value.code == USAGE


@pytest.mark.parametrize(
    "said, code, crashed",
    [({"code": 76, "what": "w", "fix": "f"}, 76, False), ({"code": 1, "what": "w", "fix": ""}, 1, True)],
)
def test_what_the_launcher_makes_of_it(said, code, crashed):
    end = supervise.judge(0, json.dumps(said), None, False)
    assert (end.code, end.what, end.crashed) == (code, "w", crashed)


def test_the_launcher_notes_what_a_hung_rank_0_cannot(tmp_path):
    run, end = rundir.RunDir(tmp_path), supervise.End(HUNG, what="rank 0 is missing")
    run.write_status("running", step=7)
    restart.note(run, end)
    assert (status(tmp_path)["state"], status(tmp_path)["code"], status(tmp_path)["step"]) == (
        "failed",
        76,
        7,
    )
    run.write_status("failed", 70, 8, "rank 0 said so itself")
    restart.note(run, end)
    assert status(tmp_path)["code"] == 70


def test_without_a_checkpoint_and_without_restarts_a_crash_is_the_end():
    """It once started again for ever."""
    assert restart.verdict([restart.Crash("a", None, -1)], 0)
