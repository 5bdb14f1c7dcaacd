"""Whatever the header of an .npy holds, reading it is a ValueError or an array."""

import io
import random

import numpy as np
import pytest

from relaunch.data_prep import npy


def test_no_header_ends_in_another_error():
    kept = io.BytesIO()
    np.save(kept, np.zeros((3, 2), np.float32))
    whole, draw = kept.getvalue(), random.Random(0)
    assert npy.load(io.BytesIO(whole)).shape == (3, 2)
    damaged = [
        whole[:at] + bytes([byte]) + whole[at + 1 :] for at in range(128) for byte in b"(){}[]',\\9\0\xff"
    ]
    deep = b"(" * 60_000
    damaged += [whole[:8] + len(deep).to_bytes(2, "little") + deep]
    damaged += [bytes(draw.choice(whole) for _ in whole) for _ in range(50)]
    refused = 0
    for content in damaged:
        try:
            npy.load(io.BytesIO(content))
        except ValueError:
            refused += 1
    assert refused > len(damaged) / 2


def test_an_array_of_objects_is_none(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError):
        npy.load(tmp_path / "a.npy")
