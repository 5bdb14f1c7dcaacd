"""Every mistake is one line with its code, and every failure of a run is in its status.json."""

import errno
import os
import shutil
import sys

import pytest
import torch

from relaunch.trainers.group import process
from rigs.processes import Process
from rigs.runs import outcome, status, tree
from rigs.sets import TRAIN, pack_images, pack_text

NET = "cifar10 --arch net --batch-size 8".split()


# mistakes: one line, the code, and nothing written --------------------------------------------------------


@pytest.fixture
def odd_sets(relaunch_env):
    """Sets that something is wrong with, in odd/."""
    pack_images(relaunch_env / "odd/tiny", (8, 8, 3))
    pack_text(relaunch_env / "odd/short", train=30)
    pack_images(relaunch_env / "odd/halved", (32, 32, 3))
    with open(relaunch_env / "odd/halved/train/images.npy", "r+b") as f:
        f.truncate(5000)
    (relaunch_env / "odd/begun").mkdir()


@pytest.mark.parametrize(
    "command, code, words",
    [
        ("minst", 64, "unknown workload 'minst'; did you mean mnist?"),
        ("mnist --data nothing", 65, "no packed data set 'nothing'"),
        ("mnist --data odd/begun", 65, "odd/begun has no meta.json"),
        ("cifar10 --data odd/halved", 65, "odd/halved/train/images.npy has 5,000 bytes instead of"),
        ("mnist --data wikitext2", 64, "mnist trains on images, and wikitext2 holds text"),
        ("wikitext2 --data mnist", 64, "wikitext2 trains on text, and mnist holds images"),
        ("mnist --data odd/tiny", 64, "cnn does not take the 3x8x8 images of tiny"),
        (
            "cifar10 --arch net --batch-size 8 --data odd/tiny",
            64,
            "net does not take the 3x8x8 images of tiny",
        ),
        (
            f"mnist --batch-size {TRAIN + 1}",
            64,
            f"--batch-size {TRAIN + 1} is more than the {TRAIN} training images",
        ),
        (
            "wikitext2 --data odd/short --batch-size 20",
            64,
            "--batch-size 20 is too many columns for 30 training words",
        ),
        (
            "mnist --batch-size 8 --grad-accum-steps 3",
            64,
            "--batch-size 8 does not divide by --grad-accum-steps 3",
        ),
        ("cifar10 --arch net_bn --batch-size 1", 64, "net_bn cannot train on one sample at a time"),
        (
            "cifar10 --arch net_bn --batch-size 4 --grad-accum-steps 4",
            64,
            "net_bn cannot train on one sample at a time",
        ),
        ("mnist --split test", 64, "--split goes with --evaluate"),
        (
            "wikitext2 --emsize 4000000000 --nhead 1",
            69,
            "out of memory (tried to allocate 800000000000 bytes); choose a smaller model",
        ),
    ],
)
def test_a_mistake_is_one_line(train, odd_sets, relaunch_env, capsys, command, code, words):
    before = tree(relaunch_env)
    assert train(*command.split()) == code
    error = capsys.readouterr().err
    assert error.startswith(f"relaunch: {code} ") and words in error and error.count("\n") == 1
    assert tree(relaunch_env) == before and not (relaunch_env / "runs").exists()


def test_a_mistake_of_a_real_process(launch, relaunch_env):
    for command, code, words in (
        (["minst"], 64, "did you mean mnist?"),
        (["mnist", "--data", "nothing"], 65, "no packed data set 'nothing'"),
    ):
        done = launch(*command)
        assert (done.code, done.out) == (code, "")
        assert done.err.startswith(f"relaunch: {code} ") and words in done.err and done.err.count("\n") == 1
    assert not (relaunch_env / "runs").exists()


def test_a_mistake_of_two_processes_is_said_once(launch, relaunch_env):
    done = launch("mnist", "--batch-size", 9, processes=2, accelerate="accelerate")
    assert done.code and done.err.count("relaunch: ") == 1
    said = "--batch-size 9 (over all processes) does not divide by 2 processes; use --batch-size 8 or 10"
    assert f"relaunch: 64 {said}\n" in done.err
    assert not (relaunch_env / "runs").exists()


def test_no_memory_for_a_step_or_an_evaluation(train, at, relaunch_env, capsys, monkeypatch):
    """Advice for each, and no restart: the same would happen again. The real allocator refuses."""
    from relaunch.trainers.tasks.sample_batches import SampleScorer

    def greedy(*_):
        return torch.empty(1 << 50)

    assert train(*NET, "--run", "./step", "--max-steps", 4, "--save-every", 2) == 0
    at(3, greedy)
    assert train(*NET, "--run", "./run", "--max-steps", 4, "--save-every", 2) == 69
    expected = f"relaunch: 69 out of memory (tried to allocate {1 << 52} bytes); raise --grad-accum-steps"
    assert capsys.readouterr().err.startswith(expected)
    assert (status(relaunch_env / "run")["state"], status(relaunch_env / "run")["code"]) == ("failed", 69)
    with monkeypatch.context() as patch:
        patch.setattr(SampleScorer, "score", greedy)
        assert train("cifar10", "--run", "./run", "--resume", "auto") == 69
    assert "; lower --eval-batch-size" in capsys.readouterr().err
    assert train("cifar10", "--run", "./run", "--resume", "auto") == 0
    assert outcome(relaunch_env / "run")["model"] == outcome(relaunch_env / "step")["model"]


ASKED = "Tried to allocate 20 GiB. GPU 0 has a total capacity of 79.18 GiB of which 1.75 GiB is free"


@pytest.mark.parametrize(
    "said, expected",
    [
        (
            f"CUDA out of memory. {ASKED}. Including …",
            f"({ASKED})",
        ),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out of memory"),
    ],
)
def test_what_a_gpu_says_when_it_has_no_memory(said, expected):
    with pytest.raises(process.Lost) as lost, process.fits("advice"):
        raise RuntimeError(said)
    assert lost.value.code == 69 and expected in lost.value.what
    with pytest.raises(RuntimeError, match="a bug"), process.fits("advice"):
        raise RuntimeError("a bug")


# failures after a run has begun ---------------------------------------------------------------------------


def test_a_failure_before_the_first_step_is_written_down(train, relaunch_env, capsys):
    """The curves cannot be opened, when status.json says `running` already."""
    assert train(*NET, "--max-steps", 4, "--run", "run", "--stop-after", 2) == 75
    run = relaunch_env / "runs/run"
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").write_text("not a folder")
    assert train("cifar10", "--run", "run", "--resume", "auto") == 73
    assert (status(run)["state"], status(run)["code"], status(run)["step"]) == ("failed", 73, 2)
    (run / "tensorboard").unlink()
    assert train("cifar10", "--run", "run", "--resume", "auto") == 0


def test_a_failure_of_ddp_is_written_down(relaunch_env):
    """Two machines have different data under one name: DDP finds that their models differ."""
    for rank, channels in enumerate((1, 3)):
        pack_images(relaunch_env / f"data-{rank}/mnist", (28, 28, channels))
    worker = (
        f"RELAUNCH_DATA=data-$RANK exec {sys.executable} -m trainers.train mnist --batch-size 8 --run run"
    )
    group = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    done = Process(
        ["env", "ACCELERATE_USE_CPU=true", sys.executable, *group, "sh", "-c", f"{worker} --timeout 20"]
    ).end()
    assert done.code and "not to match" in done.err, done.err
    found = status(relaunch_env / "runs/run")
    assert (found["state"], found["step"]) == ("failed", 0) and found["code"], found


def test_a_server_that_does_not_answer_ends_no_training(train, monkeypatch):
    """STOP is looked for once a second, and a stale handle is no STOP."""
    real = os.stat

    def stat(path, *args, **kwargs):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).endswith("STOP"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    assert train("mnist", "--max-steps", 2, "--run", "./run") == 0
