"""A log per rank: what this process and those that it starts write is kept in RUN/logs/rank-N.log, too.

log.keep(Path("runs/first/logs/rank-1.log"), "rank 1 of 2", aloud=False)
log.end()
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import platform
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.talk import settle, tell
from relaunch.trainers.rundir import HEAD

COPIER = Path(__file__).with_name("copier.py")
_copier: subprocess.Popen | None = None
_before: dict[int, int] = {}  # the two streams as they were


def keep(path: Path, who: str, aloud: bool) -> None:
    """From now on stdout and stderr, of native code as well, are in `path`; and, `aloud`, where they were.

    What cannot be kept costs a line, and all stays as it was.
    """
    global _copier
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", opener=files.shyly) as log:
            when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            log.write(f"{HEAD}{who}, process {os.getpid()} on {platform.node()}, {when}\n".encode())
            log.flush()
            _copier = divert(log.fileno(), aloud)
            atexit.register(end)  # after the traceback of what ends this process
    except OSError as error:
        tell(f"relaunch: no log of {who} in {path} ({error.strerror or error})", sys.stderr)


def end() -> None:
    """The streams are as they were, and what was said has arrived: whoever started us may read it now."""
    if not _before:
        return
    settle()
    for stream, before in _before.items():
        os.dup2(before, stream)
    _before.clear()
    with contextlib.suppress(subprocess.TimeoutExpired):  # a child of ours that lives on may still write
        _copier.wait(1.0)


def divert(log: int, aloud: bool) -> subprocess.Popen:
    """Put the copier between this process and its two streams. OSError, and then they are as before."""
    same = os.path.sameopenfile(1, 2)  # through one channel, so that their order stays
    channels = {1: channel(1)} if same else {1: channel(1), 2: channel(2)}
    try:
        pairs = [f"{read}:{stream}" for stream, (read, _) in channels.items()]
        copier = subprocess.Popen(
            [sys.executable, "-I", "-S", str(COPIER), str(log), "aloud" if aloud else "quiet", *pairs],
            stdin=subprocess.DEVNULL,
            pass_fds=[log, *(read for read, _ in channels.values())],
        )
        settle()
        for stream in (1, 2):
            _before[stream] = os.dup(stream)
            os.dup2(channels.get(stream, channels[1])[1], stream)
    finally:
        for ends in channels.values():
            for end in ends:
                os.close(end)
    return copier


def channel(stream: int) -> tuple[int, int]:
    """(the end to read, the end to write): a pipe; for a terminal another one, where a bar moves as well."""
    if not os.isatty(stream):
        return os.pipe()
    read, write = os.openpty()
    tty.setraw(write)  # what is written comes out as it is
    size = fcntl.ioctl(stream, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(write, termios.TIOCSWINSZ, size)
    return read, write
