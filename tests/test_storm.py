"""A part of tests/storm.py that is fast; `make storm` does 2,000 cases."""

import pytest
import storm


@pytest.fixture
def folder(relaunch_env, signals):
    import torch

    threads = torch.get_num_threads()
    yield relaunch_env
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_damaged_run_is_noticed_by_whoever_reads_it(folder):
    with storm.Storm(folder) as calm:
        assert not [line for number in range(16) for line in calm.case(number)]
