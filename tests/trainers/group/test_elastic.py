"""--elastic-exact: the same bits on 1, 2, 4 and 8 processes."""

import json
import random
import shutil
from hashlib import sha256

import pytest
import torch
from torch import nn

from relaunch.data_prep.errors import Failure
from relaunch.trainers import shards, workloads
from relaunch.trainers.config import parse
from relaunch.trainers.group.elastic import Elastic, branch
from relaunch.trainers.group.runtime import Runtime
from relaunch.trainers.spent import Spent
from relaunch.trainers.tasks.sample_batches import SampleBatches
from relaunch.trainers.tasks.sharded import Sharded
from rigs.forked import together
from rigs.own import write
from rigs.runs import outcome, records

pytestmark = pytest.mark.xdist_group("processes")
WORLDS = (1, 2, 4, 8)
# batch norm, accumulation, clipping, an average; 6 steps an epoch, of which windows of 4 cut the second
NET = "cifar10 --batch-size 16 --max-steps 9 --log-interval 4 --clip 1 --ema 0.9 --elastic-exact".split()


def equal(run) -> dict:
    """What runs of any number of processes share."""
    found = outcome(run)
    for name in ("world", "open_sums"):
        del found["state"][name]
    return found


# sums -----------------------------------------------------------------------------------------------------


def tree(values: list[float]) -> float:
    """In float32."""
    kept: list = []
    for i, value in enumerate(values):
        branch(kept, i, [torch.tensor([value])])
    ((total,),) = kept
    return total.item()


def test_the_tree_is_the_same_whoever_has_its_branches():
    draw, others = random.Random(1), 0
    for _ in range(20):
        values = [draw.uniform(0, 1) for _ in range(shards.SHARDS)]
        whole = tree(values)
        for world in WORLDS:
            own = shards.SHARDS // world
            assert tree([tree(values[rank * own : (rank + 1) * own]) for rank in range(world)]) == whole
        assert whole == pytest.approx(sum(values), rel=1e-6)
        others += whole != torch.tensor(values).cumsum(0)[-1].item()
    assert others > 5, "in another order the sum would be the same"


class Adder:
    """Batches whose every sum depends on the order."""

    sums = 2

    def add(self, sums, seen):
        for value, _ in seen:
            sums[0] += value
            sums[1] += 1 / value

    def metrics(self, sums):
        return dict(zip("ab", sums))


@pytest.mark.parametrize("each", [1, 3])
def test_sums_for_the_log_are_the_same_on_any_number_of_processes(each):
    draw, steps = random.Random(2), 5
    seen = [[(draw.random() / 3, shard) for shard in range(8) for _ in range(each)] for _ in range(steps)]

    def logged(world: int) -> dict:
        own, total = 8 * each // world, [0.0] * 16
        for rank in range(world):
            batches, sums = Sharded(Adder(), rank, world, each), [0.0] * 16
            mine = [step[rank * own : (rank + 1) * own] for step in seen]
            batches.add(sums, sum(mine[:2], []))  # at once, or by and by
            for step in mine[2:]:
                batches.add(sums, step)
            assert batches.mine(sums) == sums
            total = [a + b for a, b in zip(total, sums)]
        return batches.metrics(total)

    assert logged(1) == logged(2) == logged(4) == logged(8)


# gradients of one process ---------------------------------------------------------------------------------


class Odd(nn.Module):
    """A part that only a mean above 0 trains, and one that nothing does."""

    def __init__(self):
        super().__init__()
        self.norm, self.always = nn.BatchNorm1d(2), nn.Linear(2, 1)
        self.sometimes, self.never = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        y = self.always(self.norm(x))
        return y + self.sometimes(x) if x.mean() > 0 else y


@pytest.fixture
def alone(relaunch_env):
    threads = torch.get_num_threads()
    yield Runtime(1)
    torch.set_num_threads(threads)


def test_the_mean_over_shards_and_the_statistics_of_the_first(alone):
    torch.manual_seed(0)
    x = torch.randn(8, 4, 2)
    x[:7] -= x[:7].mean((1, 2), keepdim=True) + 1
    x[7] += 5
    model, single = Odd(), Odd()
    single.load_state_dict(model.state_dict())
    alone.unused = ["never.weight", "never.bias"]
    elastic = Elastic(alone, model)
    for micro in elastic.micro_batches(1, Spent()):
        model(x[micro]).mean().backward()
    for part in x.flip(0):  # in another order, and with one process's own sums
        (single(part).mean() / 8).backward()
    for name, p in single.named_parameters():
        theirs = model.get_parameter(name).grad
        assert p.grad is None and theirs is None or torch.allclose(p.grad, theirs, atol=1e-6), name
    assert model.never.weight.grad is None and model.sometimes.weight.grad is not None
    first = Odd()
    first(x[0])
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), first.buffers()))


def test_a_layer_that_mixes_the_shards_is_refused(alone):
    with pytest.raises(Failure, match="SyncBatchNorm mixes them"):
        Elastic(alone, nn.SyncBatchNorm(2))


# what does not divide -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, processes, said",
    [
        ("-b 64", 3, "shares the 8 shards of each batch evenly, and there are 3 processes; use 1, 2, 4 or 8"),
        ("-b 60", 2, "does not divide by the 8 shards of --elastic-exact; use --batch-size 56 or 64"),
        ("-b 40 --grad-accum-steps 2", 1, "--elastic-exact x 2 micro-batches; use --batch-size 32 or 48"),
        ("-b 4", 1, "use --batch-size 8"),
        ("-b 64 --no-deterministic", 1, "and --no-deterministic gives them up; leave one"),
        ("-b 24", 4, None),
    ],
)
def test_what_does_not_divide(flags, processes, said):
    problem = shards.problem(parse(["mnist", *flags.split(), "--elastic-exact"]).config, processes)
    assert (problem and problem.code, said) == (64, said) and said in problem.line() if said else not problem


# trainings ------------------------------------------------------------------------------------------------


def test_one_process_two_and_one_after_the_other(train, relaunch_env, capfd):
    runs = relaunch_env / "runs"
    assert train(*NET, "--run", "whole") == 0
    assert together(2, *NET, "--run", "two", "--stop-after", 7) == [75, 75]  # within a window
    capfd.readouterr()
    assert train(*NET, "--run", "two", "--resume", "auto") == 0
    said = capfd.readouterr().out
    assert "saved by 2 processes in fp32: the same bits follow\n" in said
    assert "adding up the gradients of 8 shards took" in said
    assert equal(runs / "two") == equal(runs / "whole") and len(records(runs / "two")) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "workload, precision, worlds",
    [
        *((name, "no", (1, 2)) for name in workloads.names() if name not in ("cifar10", "wikitext2")),
        *((name, "no", WORLDS) for name in ("cifar10", "wikitext2")),
        *((name, "bf16", (1, 2)) for name in ("cifar10", "wikitext2")),
    ],
)
def test_every_workload(relaunch_env, workload, precision, worlds):
    net = [workload, "--batch-size", 16, "--max-steps", 5, "--log-interval", 2, "--elastic-exact"]
    found = []
    for world in worlds:
        assert set(together(world, *net, "--run", f"on{world}", precision=precision)) == {0}
        found.append(equal(relaunch_env / f"runs/on{world}"))
    assert all(one == found[0] for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [(8, 1, 2, 8), (2, 4, 1), (1, 8)])
def test_one_number_of_processes_after_the_other(relaunch_env, worlds):
    runs, net = relaunch_env / "runs", [*NET, "--grad-accum-steps", 2, "--batch-size", 32, "--max-steps", 12]
    assert together(1, *net, "--run", "whole") == [0]
    for world, stop in zip(worlds, [*(2, 5, 7)[: len(worlds) - 1], 99]):
        codes = together(world, *net, "--run", "parts", "--resume", "auto", "--stop-after", stop)
        assert set(codes) == {75 if stop < 12 else 0}
    assert equal(runs / "parts") == equal(runs / "whole")


@pytest.mark.slow
def test_a_workload_of_ones_own_with_a_part_that_is_not_trained(relaunch_env):
    spare = ("self.head = Head", "self.spare, self.head = nn.Linear(2, 2), Head")
    net = [write(relaunch_env / "work", spare), "--max-steps", 4, "--weight-decay", 0.1, "--elastic-exact"]
    for world in (1, 2):
        assert set(together(world, *net, "--run", f"on{world}")) == {0}
    assert equal(relaunch_env / "runs/on1") == equal(relaunch_env / "runs/on2")


# without it -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("worlds", [(8, 1, 2), (2, 4, 1), (1, 8)])
def test_without_it_the_same_samples_follow(relaunch_env, monkeypatch, capfd, worlds):
    """Also their order, augmentation, mixing and schedule; the resumed run says what is not the same."""
    net = "cifar10 --batch-size 16 --max-steps 9 --cutmix 0.5 --log-interval 1".split()
    batch, log = SampleBatches.batch, relaunch_env / "log"

    def noted(batches, step, micro):
        found = batch(batches, step, micro)
        rows = [sha256(b"".join(t.numpy().tobytes() for t in row)).hexdigest() for row in zip(*found)]
        with open(log / f"rank{batches.rank}", "a") as file:
            file.write(json.dumps([step, 16 // batches.world * batches.rank, rows]) + "\n")
        return found

    def seen(run: str) -> dict:
        """(step, place in the batch) -> hash of a sample with its label, as the model got them; and rates."""
        found: dict = {"lr": [r["lr"] for r in records(relaunch_env / run) if "lr" in r]}
        for line in "".join(file.read_text() for file in log.iterdir()).splitlines():
            step, first, rows = json.loads(line)
            for at, row in enumerate(rows, first):  # step 0 is looked at, too, and passed by DDP's warm-up
                assert found.setdefault((step, at), row) == row
        shutil.rmtree(log)
        return found

    monkeypatch.setattr(SampleBatches, "batch", noted)
    log.mkdir()
    assert together(1, *net, "--run", "./whole") == [0]
    whole = seen("whole")
    log.mkdir()
    for world, stop in zip(worlds, (3, 5, 99) if len(worlds) == 3 else (4, 99)):
        codes = together(world, *net, "--run", "./parts", "--resume", "auto", "--stop-after", stop)
        assert set(codes) == {75 if stop < 9 else 0}
    assert seen("parts") == whole and len(whole) == 1 + 9 * 16
    said = "in fp32: the same samples follow; dropout, BatchNorm and rounding may differ"
    assert capfd.readouterr().out.count(said) == len(worlds) - 1
