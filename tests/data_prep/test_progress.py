"""Progress as a terminal shows it."""

import os
import pty
import subprocess
import sys
import termios

import pytest

BAR = """
import sys
from relaunch.data_prep.progress import Progress

total = int(sys.argv[1]) or None
with Progress("pages", total, "pages", show=True) as bar:
    bar.add(3)
print(bar.done)
"""


@pytest.mark.parametrize("total", [0, 9])
def test_a_terminal_sees_a_bar(total, relaunch_env):
    """Of an unknown total, too: of a download without a length, or of pages not yet counted."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    os.set_blocking(ours, False)
    command = [sys.executable, "-c", BAR, str(total)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True)
    shown = os.read(ours, 4096)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "3\n") and b"pages: " in shown and b"Traceback" not in shown
