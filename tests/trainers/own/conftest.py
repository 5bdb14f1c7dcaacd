"""Shared by the tests of workloads of somebody's own: a file, and a process that remembers none."""

import sys

import pytest

from relaunch.trainers import workloads
from relaunch.trainers.workloads import own
from rigs.own import write


@pytest.fixture(autouse=True)
def nothing_is_left():
    """A process of its own would end here: nothing is registered, imported or on sys.path."""
    yield
    own.forget()
    workloads._own.clear()
    sys.dont_write_bytecode = False


@pytest.fixture
def flowers(relaunch_env):
    return write(relaunch_env / "work")
