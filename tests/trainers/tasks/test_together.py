"""Small steps' inputs are made for several steps at once: each step gets what it would get by itself."""

import numpy as np
import pytest
import torch

from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.recipes import prepare
from relaunch.trainers import workloads
from relaunch.trainers.build import make_batches
from relaunch.trainers.config import parse
from relaunch.trainers.tasks.arrays import ArrayTask, NoOptions
from relaunch.trainers.tasks.image_batches import Images
from relaunch.trainers.tasks.sample_batches import SampleBatches
from relaunch.trainers.workloads import Workload

CPU = torch.device("cpu")
AUGMENTED = "--crop 2 --flip --flip-alternating --normalise data".split()


def of_images(sets, *flags: str) -> SampleBatches:
    config = parse(["cifar10", "--batch-size", "8", *flags]).config
    return make_batches(config, open_packed("cifar10", sets), CPU)


@pytest.fixture
def of_arrays(tmp_path):
    x = np.random.default_rng(0).normal(size=(90, 5)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x_train=x, y_train=np.arange(90) % 3, x_val=x, y_val=np.arange(90) % 3)
    prepare("own", tmp_path / "s.npz", root=tmp_path, progress=False)
    about = dict(name="own", about="", data="own", archs=("n",), options=NoOptions)
    own = Workload(task=ArrayTask(), model=id, **about)
    workloads.register(own)
    yield lambda: make_batches(parse(["own", "-b", "7"]).config, open_packed("own", tmp_path), CPU)
    workloads.unregister(own)


@pytest.fixture(params=["images", "arrays"])
def pair(request, sets):
    """Batches, and those of a training that makes each step's by themselves."""
    make = request.getfixturevalue("of_arrays") if request.param == "arrays" else None
    several, single = (make() if make else of_images(sets, *AUGMENTED) for _ in range(2))
    assert several.together > 1
    single.together = 1
    return several, single


def test_each_step_gets_what_it_would_get_by_itself(pair):
    several, single = pair
    each = several.steps_per_epoch
    # from within an epoch into the one after the next, one step twice as a check has it, back, and on
    for step in [*range(3, 2 * each + 2), 5, 5, 6, 4, 0, 0, 1, each - 1, each]:
        found, wanted = several.batch(step, 0), single.batch(step, 0)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)), step
        assert all(a.storage_offset() == 0 and a.is_contiguous() for a in found)  # lies as one made alone
        for tensor in found:  # what a model does to its input is its own affair
            tensor.zero_()


def test_one_index_serves_several_steps(pair, monkeypatch):
    several, _ = pair
    asked, picked = [], several.picked
    monkeypatch.setattr(several, "picked", lambda step, *a: asked.append(step) or picked(step, *a))
    for step in range(several.steps_per_epoch):
        several.batch(step, 0)
    assert asked == list(range(0, several.steps_per_epoch, several.together))


@pytest.mark.parametrize("flags", ["--cutmix 0.5", "--grad-accum-steps 2", "--batch-size 64 --arch resnet18"])
def test_what_is_a_steps_own_is_made_for_it_alone(sets, flags, monkeypatch):
    monkeypatch.setattr("relaunch.trainers.tasks.sample_batches.TOGETHER", 1 << 20)
    assert of_images(sets, *flags.split()).together == 1


def test_what_normalises_otherwise_is_asked_for_each_step(sets, monkeypatch):
    class Own(Images):
        def normalise(self, x):
            return super().normalise(x) - len(x)

    monkeypatch.setattr(type(workloads.load("cifar10").task), "open", lambda self, *a: Own(*a))
    assert of_images(sets).together == 1
