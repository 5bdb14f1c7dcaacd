"""What one process settles for itself, and what ranks do together."""

import json
import os
import subprocess
import sys

import pytest
import torch

from relaunch.data_prep.errors import Failure
from relaunch.trainers.group import memory
from relaunch.trainers.group.runtime import Runtime


def test_an_operation_without_a_deterministic_kernel(alone):
    """As the backward of AlexNet's pooling on CUDA."""
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(Failure, match="^put_ does not have a deterministic implementation$") as failure:
            with alone.watched():
                torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert failure.value.code == 64 and "--no-deterministic" in failure.value.fix
    with pytest.raises(RuntimeError, match="shape"), alone.watched():
        torch.zeros(2) @ torch.zeros(3, 2)


# one process, and what ranks do together ----------------------------------------------------------


@pytest.fixture
def alone(relaunch_env):
    import torch

    threads = torch.get_num_threads()
    yield Runtime(1)
    torch.set_num_threads(threads)


def test_threads_are_ours_whatever_was_exported(relaunch_env, monkeypatch):
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert Runtime(2).threads == torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_one_process_decides_for_itself(alone):
    def fails():
        raise Failure(65, "bad", "mend it")

    assert alone.on_rank_0(lambda: 3) == alone.on_every_rank(lambda: 3) == 3
    assert alone.sum([1.5, 2]) == [1.5, 2] and alone.agree(2) == 2 and alone.gather("x") == ["x"]
    for ask in (alone.on_rank_0, alone.on_every_rank):
        with pytest.raises(Failure, match="bad"):
            ask(fails)


FAULTS = """
import resource, sys
import torch
from relaunch.trainers.group.runtime import Runtime

runtime = Runtime(1, apart="apart" in sys.argv)

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.zeros(16_000_000) + 1  # 64 MB each, beyond every threshold that malloc sets by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1])

faults(10)
few, x = faults(10) < 40_000, torch.ones(16_000_000)
with_it = resident()
del x
print(runtime.keeps_memory, few, "stays" if resident() > with_it - 10_000 else "goes")
"""


@pytest.mark.parametrize(
    "theirs, apart, kept",
    [
        ({}, "", "True True stays"),
        ({}, "apart", "True True goes" if memory.huge_pages() else "True True stays"),
        ({"MALLOC_ARENA_MAX": "2"}, "", "False False goes"),
    ],
)
def test_a_step_takes_the_memory_of_the_one_before(relaunch_env, theirs, apart, kept):
    """Without, 64 MB are 16,000 faults, 320,000 in all. Who sets malloc's variables keeps glibc's ways.

    What is apart goes back, and is asked for again in few faults.
    """
    command = [sys.executable, "-c", FAULTS, apart]
    clean = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    made = subprocess.run(command, env=clean | theirs, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == kept


RANKS = """
import json
import sys
from relaunch.data_prep.errors import Failure
from relaunch.trainers.group import process
from relaunch.trainers.group.runtime import Runtime
import torch

def run(argv):
    r = Runtime(1)
    def fails_on(rank):
        def work():
            if r.rank == rank:
                raise Failure(65, f"rank {rank} cannot", "mend it")
            return r.rank
        return work
    seen = [r.agree(r.rank), r.sum([0.1, r.rank]), r.gather(r.rank), r.broadcast(r.rank)]
    seen += [r.on_rank_0(lambda: ("rank", r.rank)), r.on_every_rank(lambda: r.rank)]
    for ask, rank in ((r.on_rank_0, 0), (r.on_every_rank, 0), (r.on_every_rank, 2)):
        try:
            ask(fails_on(rank))
        except Failure as failure:
            seen.append(failure.what)
    module = torch.nn.BatchNorm1d(1)
    module.running_mean.fill_(r.rank + 5)
    r.share_buffers(module)
    seen.append(module.running_mean.item())
    everybody = r.gather(seen)
    if r.main:
        print(json.dumps(everybody))
    return 0, None

sys.exit(process.main(run))
"""


def test_three_processes_agree(relaunch_env, launch):
    """Also in a failure: all of them raise it, so that nobody waits for one that has left."""
    (relaunch_env / "ranks.py").write_text(RANKS)
    done = launch(module="ranks", processes=3, accelerate="accelerate")
    assert done.code == 0, done.err
    assert json.loads(done.out) == [
        [
            2,
            [0.1 + 0.1 + 0.1, 3],
            [0, 1, 2] if rank == 0 else None,
            0,
            ["rank", 0],
            rank,
            "rank 0 cannot",
            "rank 0 cannot",
            "rank 2 cannot",
            5.0,
        ]
        for rank in range(3)
    ]


WRAPPED = """
import json
import sys
import torch
from relaunch.models.cnn import NetBN
from relaunch.models.transformer import TransformerLM
from relaunch.trainers.group import process
from relaunch.trainers.group.runtime import Runtime

def run(argv):
    r = Runtime(1)
    seen = []
    for module, batch, name in (
        (TransformerLM(9, 4, 2, 4, 1), torch.zeros(3, 2, dtype=torch.long), "pos_encoder.pe"),
        (NetBN(), torch.ones(4, 3, 32, 32), "1.running_mean"),
    ):
        module.get_buffer(name).fill_(r.rank + 5)
        model = r.wrap(module)  # may give the module other tensors
        wrapped = module.get_buffer(name).flatten()[0].item()
        module.get_buffer(name).fill_(r.rank + 7)
        model(batch).sum().backward()
        seen.append([wrapped, module.get_buffer(name).tolist(), name in module.state_dict()])
    everybody = r.gather(seen)
    if r.main:
        print(json.dumps(everybody))
    return 0, None

sys.exit(process.main(run))
"""


def test_constant_buffers_are_sent_once_and_others_in_every_forward(relaunch_env, launch):
    (relaunch_env / "wrapped.py").write_text(WRAPPED)
    done = launch(module="wrapped", processes=2, accelerate="accelerate")
    assert done.code == 0, done.err
    (pe_0, mean_0), (pe_1, mean_1) = json.loads(done.out)
    assert pe_0[0] == pe_1[0] == mean_0[0] == mean_1[0] == 5  # rank 0's, when the model is wrapped
    assert (pe_0[1][0][0][0], pe_1[1][0][0][0]) == (7, 8)  # each rank's own, since
    assert mean_0[1] == mean_1[1] and max(mean_0[1]) < 8  # rank 0's again, and one batch of momentum 0.1
    assert pe_0[2] and mean_0[2], "all are in a checkpoint"


SPARE = """
import sys
import torch
from torch import nn
from relaunch.trainers.group import process
from relaunch.trainers.group.runtime import Runtime

class Spare(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.spare = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        return self.fc(x)

def run(argv):
    r = Runtime(1)
    r.unused = ["spare.weight", "spare.bias"] if "told" in argv else []
    module = Spare()
    model = r.wrap(module)
    for _ in range(3):
        module.zero_grad()
        model(torch.full((1, 2), float(r.rank))).sum().backward()
    if r.main:
        print(module.spare.weight.grad, module.fc.weight.grad.tolist())
    return 0, None

sys.exit(process.main(run))
"""


def test_a_parameter_without_gradient_stays_without_one(relaunch_env, launch):
    """Told of none, DDP gives up in the second step; with a gradient of zero, weight decay would move it."""
    (relaunch_env / "spare.py").write_text(SPARE)
    done = launch("told", module="spare", processes=2, accelerate="accelerate")
    assert (done.code, done.out) == (0, "None [[0.5, 0.5]]\n"), done.err


# what decides the bits on a GPU -------------------------------------------------------------------------


@pytest.fixture
def flags():
    """(deterministic, fills, benchmark, TF32 in convolutions, precision of products), put back after."""
    cudnn, deterministic = torch.backends.cudnn, torch.utils.deterministic

    def seen() -> tuple:
        on, fills = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
        return on, fills, cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()

    on, fills, benchmark, tf32, precision = seen()
    yield seen
    torch.use_deterministic_algorithms(on)
    deterministic.fill_uninitialized_memory, cudnn.benchmark, cudnn.allow_tf32 = fills, benchmark, tf32
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(
    "deterministic, tf32, expected",
    [
        (True, "conv", (True, False, False, True, "highest")),  # what torch does by itself, but for the fills
        (True, "all", (True, False, False, True, "high")),
        (True, "none", (True, False, False, False, "highest")),
        (False, "conv", (False, False, True, True, "highest")),
    ],
)
def test_what_decides_the_bits_on_a_gpu(alone, monkeypatch, flags, deterministic, tf32, expected):
    untouched = flags()
    alone.settle(1, deterministic, tf32)
    assert flags() == untouched, "a CPU has none of it"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    alone.device = torch.device("cuda")
    for _ in range(2):  # as in an evaluation, which settles when it knows the run
        alone.settle(1, deterministic, tf32)
    assert flags() == expected
