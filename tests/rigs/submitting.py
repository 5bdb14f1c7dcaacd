"""What the tests of `relaunch submit` type."""

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.launch.__main__ import run as relaunch

DIGITS = ["mnist", "--data", "digits", "--config", "cpu"]


def refused(*words) -> str:
    """The line with which the command refuses, code 64."""
    with pytest.raises(Failure) as caught:
        relaunch(["submit", *map(str, words)])
    assert caught.value.code == 64, caught.value.line()
    return caught.value.line()
