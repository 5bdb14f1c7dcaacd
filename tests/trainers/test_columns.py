"""Rows that come in parts, in whole columns."""

import numpy as np
import pytest

from relaunch.trainers.columns import Columns


def test_parts_of_one_shape_and_no_others():
    kept = Columns(5)
    assert kept.filled() == {}
    kept.add({"id": np.arange(2), "x": np.ones((2, 3), np.float32)})
    with pytest.raises(ValueError):
        Columns(5).add({"id": np.arange(9)})  # more than there are
    kept.add({"id": np.arange(2, 3), "x": np.zeros((1, 3), np.float32), "more": np.ones(1)})
    found = kept.filled()
    assert found["id"].tolist() == [0, 1, 2] and found["x"].sum() == 6 and found["x"].dtype == np.float32
    for other in ({"id": np.arange(1), "x": np.ones((1, 1))}, {"id": np.arange(1)}):
        with pytest.raises((ValueError, KeyError)):
            kept.add(other)
