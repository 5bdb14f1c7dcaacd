"""The test of chance against scipy's."""

import time

import pytest
from scipy.stats import binomtest

from relaunch.trainers.compare import changes


def test_mcnemar_is_exact_also_for_large_counts():
    for lost, gained in [(0, 1), (3, 14), (14, 3), (7, 7), (0, 60), (500, 600), (5000, 5100), (20000, 20400)]:
        assert changes.fair_coins(lost, gained) == pytest.approx(
            binomtest(lost, lost + gained).pvalue, rel=1e-9
        ), (lost, gained)
    assert changes.fair_coins(0, 0) == changes.fair_coins(100_000, 100_000) == 1
    assert (
        changes.fair_coins(0, 1074) == 2**-1073 and changes.fair_coins(0, 100_000) == 0
    )  # a float's last, and beyond
    began = time.perf_counter()
    assert 0 < changes.fair_coins(100_000, 100_500) < 1
    assert time.perf_counter() - began < 5
