"""Parts of `make storm` that are fast, and those that take seconds."""

import pytest
from storms import crashes, damage, fuzz, hostile, kills


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


@pytest.mark.slow
def test_what_is_read_may_hold_anything(relaunch_env):
    found = list(fuzz.storm(relaunch_env, 500))
    assert not [line for _, _, wrong in found for line in wrong] and len(found) == len(fuzz.KINDS)


@pytest.mark.slow
def test_archives_and_pickles_that_mean_harm(tmp_path):
    assert [(count, wrong) for _, count, wrong in hostile.storm(tmp_path, 60)] == [(60, []), (25, [])]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random(folder):
    """Of one process, of two ranks, at calls of its saves, too, and of the launcher and all below it."""
    found = list(kills.storm(folder, 20))
    assert not [line for _, _, wrong in found for line in wrong]
    assert [count for _, count, _ in found] == [8, 8, 2, 4]
