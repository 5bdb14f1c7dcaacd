"""What a checkpoint costs a training: how long it stands still, and the CPU time of all threads.

    python benchmarks/checkpoint.py [--rounds 9] [--threads 1]

ResNet-18 with SGD's momentum (90 MB) and the word model with Adam (170 MB). Ours is a training's own save,
with its record and status, until the training may go on; what its thread then does counts as CPU time. The
peers save the same model and optimizer: `torch.save` into a file that is synced and renamed, accelerate's
`save_state`, and torch's `dcp.async_save`, which hash nothing. Must reach: a stall of at most 0.3 of that of
torch.save, and at most 2.5 times its CPU time (SHA-256 and the test for numbers that are not finite are in
ours). The last row is of training steps beside a write, as a multiple of the same steps without one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import ours
from rows import Block
from side_by_side import Bench, Child, alternate, program

# (what, command, steps that outlast a write)
MODELS = {
    "ResNet-18, 90 MB": ("tiny_imagenet --batch-size 4", 10),
    "word model, 170 MB": ("wikitext2 --optimizer adam --lr 0.001 --batch-size 2", 10),
}
STALL, CPU = 0.3, 2.5
SAVES = 3  # in a block


def training(turns, argv: str, root, threads: int) -> None:
    """`save` until the training may go on, `settle` until it is committed, and `steps`."""

    def what():
        from relaunch.data_prep.packed import open_packed
        from relaunch.trainers.config import parse
        from relaunch.trainers.group.runtime import Runtime
        from relaunch.trainers.metrics import Metrics
        from relaunch.trainers.spent import Spent

        config = parse([*argv.split(), "--threads", str(threads), "--keep", "1", *ours.ENDLESS]).config
        runtime = Runtime(config.threads, config.deterministic)
        runtime.settle(config.threads, config.deterministic, config.tf32)
        with tempfile.TemporaryDirectory() as folder:
            made = ours.make_training(config, open_packed(config.data, root), runtime, Path(folder))
            del made.save  # there for those that measure steps alone
            made.identity = {"config_hash": "", "data_hash": ""}
            made.metrics, made.spent = Metrics(made.run, 0), Spent(made.run)

            def steps(n: int) -> None:
                for _ in range(n):
                    made.iterate()

            steps(1)
            turns(save=lambda _: made.save(), settle=lambda _: made.saver.settle(), steps=steps)
        runtime.close()

    ours.in_a_rank(what)


def peer(turns, way: str, argv: str, root, threads: int) -> None:
    """`save` and `settle` of WAYS, in a plain process."""
    import torch

    from relaunch.data_prep.packed import open_packed
    from relaunch.trainers.build import make_model, make_optimizer
    from relaunch.trainers.config import parse

    torch.set_num_threads(threads)
    config = parse(argv.split()).config
    model = make_model(config, open_packed(config.data, root).sizes)
    optimizer = make_optimizer(config, model)
    for p in model.parameters():
        p.grad = torch.randn_like(p) / 1e3
    optimizer.step()
    optimizer.zero_grad()
    with tempfile.TemporaryDirectory() as folder:
        save, settle = WAYS[way](Path(folder), model, optimizer)
        turns(save=lambda _: save(), settle=lambda _: settle())


def torch_save(folder: Path, model, optimizer):
    import torch

    def save() -> None:
        with open(folder / "part", "wb") as f:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(folder / "part", folder / "checkpoint.pt")

    return save, lambda: None


def save_state(folder: Path, model, optimizer):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    accelerator.prepare(model, optimizer)
    return lambda: accelerator.save_state(str(folder / "state")), lambda: None


def dcp(folder: Path, model, optimizer):
    import torch.distributed as dist
    from torch.distributed.checkpoint import async_save
    from torch.distributed.checkpoint.state_dict import get_state_dict

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    pending = []

    def save() -> None:
        state = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer)))
        pending.append(async_save(state, checkpoint_id=folder / "part"))

    def settle() -> None:
        pending.pop().result()
        shutil.rmtree(folder / "whole", ignore_errors=True)
        os.rename(folder / "part", folder / "whole")

    return save, settle


WAYS: dict[str, Callable] = {"torch.save": torch_save, "save_state": save_state, "dcp.async_save": dcp}


def saves(child: Child) -> Callable[[int], Block]:
    """Blocks of saves: wall time is what the training waits for, CPU time and faults are of all threads."""

    def block(units: int) -> Block:
        parts = []
        for _ in range(units):
            parts.append((child.side("save")(1), child.side("settle")(1)))
        cpu, faults = (sum(getattr(b, n) for part in parts for b in part) for n in ("cpu", "faults"))
        return Block(units, sum(save.wall for save, _ in parts), cpu, faults, parts[-1][1].peak_mb, None)

    return block


def beside(child: Child, saving: bool) -> Callable[[int], Block]:
    """Blocks of steps, from right after a save was begun."""

    def block(units: int) -> Block:
        if saving:
            child.side("save")(1)
        found = child.side("steps")(units)
        child.side("settle")(1)
        return found

    return block


def stall(mine: Block, theirs: Block) -> dict[str, float]:
    return {"stall": mine.wall / theirs.wall}


def cpu(mine: Block, theirs: Block) -> dict[str, float]:
    return {"CPU": mine.cpu / theirs.cpu}


def steps(saving: Block, alone: Block) -> dict[str, float]:
    return {"wall": saving.wall / alone.wall}


def measure(bench: Bench) -> None:
    for what, (argv, units) in MODELS.items():
        bench.packed(argv.split()[0])
        with Child(training, argv, bench.root, bench.threads) as child:
            for way in WAYS:
                with Child(peer, way, argv, bench.root, bench.threads) as other:
                    sides = {"ours": saves(child), way: saves(other)}
                    blocks = alternate(sides, bench.args.rounds, bench.args.seconds, SAVES)
                bound = STALL if way == "torch.save" else None
                bench.record(f"{what}, {way}", blocks, unit="save", bound=bound, figure=stall)
                if bound:
                    bench.record(f"{what}, {way}, CPU", blocks, unit="save", bound=CPU, figure=cpu)
            sides = {"saving": beside(child, True), "alone": beside(child, False)}
            bench.compare(f"{what}, steps", sides, units=units, figure=steps)


if __name__ == "__main__":
    program(measure, __doc__)
