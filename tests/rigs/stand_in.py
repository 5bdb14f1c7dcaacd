"""Small packed sets and committed checkpoints for tests that need one and no training."""

import numpy as np

from relaunch.data_prep.files import dump_json, write_atomic
from relaunch.data_prep.making import new_folder
from relaunch.data_prep.packed import Packed, open_packed
from relaunch.data_prep.sizes import published
from relaunch.data_prep.writer import Writer
from relaunch.trainers import workloads
from relaunch.trainers.build import make_model, make_optimizer
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.checkpoint import State
from relaunch.trainers.weights.state import optimizer_state, weights_of

WORDS = ["<eos>", "<unk>", *"the a cat dog sat ran on under mat log . ,".split()]


def small_set(root, workload: str) -> Packed:
    """20 random training images of the size of the workload's own set, or 3,000 random words."""
    data = workloads.load(workload).data
    random, shape = np.random.default_rng(0), published(data).shape
    with new_folder(root / data) as folder:
        writer = Writer(folder)
        if not shape:
            writer.text(WORDS, {split: random.integers(0, len(WORDS), 3000) for split in ("train", "val")})
        else:
            pixels = (*shape[1:], shape[0])
            writer.classes = [f"class {i}" for i in range(10)]
            for split in ("train", "val"):
                writer.images(
                    split,
                    np.arange(20) % 10,
                    pixels,
                    [(range(20), random.integers(0, 256, (20, *pixels), np.uint8))],
                )
        writer.finish(data, "stand-in", {}, {})
    return open_packed(data, root)


def commit(path, command: str, packed: Packed, step: int = 12) -> tuple[RunDir, RunConfig, object]:
    """A run with one checkpoint of the model as it is initialised; returns (run, config, model)."""
    config, run = parse(command.split()).config, RunDir(path)
    model = make_model(config, packed.sizes)
    run.path.mkdir()
    write_atomic(run.config, dump_json(config.to_json()))
    meta = {
        "step": step,
        "samples": 0,
        "world": 1,
        "threads": 1,
        "config_hash": "",
        "data_hash": packed.hash,
        "global_batch": config.batch_size,
        "best": {"step": step},
        "config": config.to_json(),
    }
    checkpoint.save(
        run, State(weights_of(model), optimizer_state(make_optimizer(config, model), model), meta), keep=1
    )
    return run, config, model
