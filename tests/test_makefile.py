"""What `make` installs, and from where."""

import re
import shutil
import subprocess

import pytest

from rigs import REPOSITORY

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def installed(*words: str) -> str:
    """The command with which pip installs, as `make install` would run it."""
    command = ["make", "-n", "-B", "install", "VENV=/nowhere", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    (found,) = re.findall(r"^.* -m pip install .*?(?=^touch )", done.stdout, re.MULTILINE | re.DOTALL)
    return found


def test_a_machine_without_a_gpu_gets_the_small_build_or_none():
    """By its full version: where its index is out of reach, PyPI's of several GB does not replace it."""
    pinned = (REPOSITORY / "constraints.txt").read_text()
    pins = dict(re.findall(r"^(torch|torchvision)==(\S+)", pinned, re.MULTILINE))
    assert set(pins) == {"torch", "torchvision"}
    small = installed("TORCH=cpu")
    assert "--extra-index-url https://download.pytorch.org/whl/cpu " in small
    assert all(f" {name}=={version}+cpu " in small for name, version in pins.items())
    assert "relaunch: 69 pip did not get PyTorch's cpu build" in small
    assert "pytorch.org" not in installed() and "torch==" not in installed()
