"""Shared by the tests of workloads of somebody's own: a file."""

import pytest

from rigs.own import write


@pytest.fixture
def flowers(relaunch_env):
    return write(relaunch_env / "work")
