"""Of a set that memory cannot hold, rows are asked for before they are read: the same batches."""

import os

import numpy as np
import pytest
import torch

from relaunch.data_prep import limits
from relaunch.data_prep.packed import open_packed
from relaunch.trainers.build import make_batches
from relaunch.trainers.config import parse
from relaunch.trainers.tasks.ahead import STEPS, Ahead

CONFIG = parse("cifar10 --batch-size 8 --grad-accum-steps 2 --cutmix 0.5 --crop 2".split()).config
CPU = torch.device("cpu")


@pytest.fixture
def asked(monkeypatch):
    """(start, bytes) of the file that were asked for, on a machine whose memory is full."""
    found, advise = [], os.posix_fadvise

    def told(file, start, count, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        found.append((start, count))
        advise(file, start, count, advice)

    monkeypatch.setattr(os, "posix_fadvise", told)
    monkeypatch.setattr(limits, "available", lambda: 1)
    return found


def rows_of(asked, ahead) -> list[int]:
    assert {count for _, count in asked} == {ahead.bytes}
    return sorted((start - ahead.offset) // ahead.bytes for start, _ in asked)


@pytest.mark.parametrize("rank, world", [(0, 1), (1, 2)])
def test_the_same_batches_whose_rows_were_asked_for(sets, asked, monkeypatch, rank, world):
    packed = open_packed("cifar10", sets)
    batches = make_batches(CONFIG, packed, CPU, rank, world)
    monkeypatch.setattr(limits, "available", lambda: 1 << 60)
    plain = make_batches(CONFIG, packed, CPU, rank, world)
    assert batches.ahead and not plain.ahead
    for step in range(5, 24):  # as of a resumed run; 12 are an epoch
        for micro in (0, 1):
            for ours, theirs in zip(batches.batch(step, micro), plain.batch(step, micro), strict=True):
                assert torch.equal(ours, theirs)
        batches.ahead.helper.submit(int).result()  # by now the helper has asked for the steps before
        first = 0 if step >= 12 else 5
        last = min(11, step % 12 + STEPS)
        own = batches.ids[first * 8 : (last + 1) * 8].view(-1, world, 8 // world)[:, rank].flatten()
        assert rows_of(asked, batches.ahead) == sorted(own.tolist())  # each of them once
        if step == 11:
            asked.clear()


def test_what_is_asked_for_is_the_row(sets, asked):
    images = open_packed("cifar10", sets).images("train")
    ahead = Ahead.of(images)
    ahead.ask(np.array([7, 3]))
    with open(images.filename, "rb") as file:
        for row, (start, count) in zip((3, 7), asked, strict=True):
            file.seek(start)
            assert file.read(count) == images[row].tobytes()


def test_what_memory_holds_is_left_to_the_kernel(sets, monkeypatch):
    images = open_packed("cifar10", sets).images("train")
    assert Ahead.of(images) is None and Ahead.of(np.array(images)) is None and Ahead.of(None) is None
    monkeypatch.setattr(limits, "memory", lambda: images.nbytes - 1)  # of a container
    assert Ahead.of(images)
    monkeypatch.delattr(os, "posix_fadvise")  # macOS
    assert Ahead.of(images) is None
