"""Parts of `make storm` that are fast, and those that take seconds."""

import pytest
from storms import crashes, damage


@pytest.fixture
def folder(relaunch_env, signals):
    import torch

    threads = torch.get_num_threads()
    yield relaunch_env
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_damaged_run_is_noticed_by_whoever_reads_it(folder):
    with damage.Storm(folder) as calm:
        assert not [line for number in range(16) for line in calm.case(number)]


def test_a_power_cut_at_any_call_of_saves_and_prunes(tmp_path):
    count, wrong = crashes.cuts(tmp_path, "saves", crashes.saves).wrong(most=16)
    assert not wrong and count > 60


@pytest.mark.slow
def test_a_power_cut_at_any_call_of_a_run(folder):
    found = list(crashes.storm(folder, every=80))
    assert not [line for _, _, wrong in found for line in wrong]
    assert sum(count for _, count, _ in found) > 1000
