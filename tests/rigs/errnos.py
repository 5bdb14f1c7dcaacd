"""Errors of the system at the N-th call of a real process, at what it calls itself: no preloaded library.

    ERRNO='worker 12 ENOSPC once' python -c 'from rigs import errnos; ...; errnos.arm("worker"); ...'

From `arm` on, calls that concern the working folder, or the launcher's memory file, are counted, and that
one fails as the system says it. With `ever` that one and each after it: then the memory is no part of it,
as no disk that is full can fill it. A file `struck` tells that something failed.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import sys

from rigs.raw import opening

CALLS = (
    "open close write read pread fsync fstat stat lstat replace rename unlink mkdir rmdir listdir truncate"
)
HERE = os.getcwd()  # an error must not come from asking for it
readlink, make = os.readlink, os.open


class Trouble:
    def __init__(self, at: int, number: int, ever: bool):
        self.left, self.number, self.ever = at, number, ever

    def strike(self, what) -> None:
        """Count one call that concerns `what`, a path or a descriptor; raise if it is the one."""
        try:
            place = readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)
        except OSError:
            return
        place = os.fsdecode(place)
        if not isinstance(what, int) and not place.startswith("/"):
            place = f"{HERE}/{place}"
        memory = "relaunch-outcome" in place and not self.ever
        if place.endswith(".py") or not (place.startswith(HERE) or memory):
            return
        self.left -= 1
        if self.left == -1:
            make(f"{HERE}/struck", os.O_CREAT | os.O_WRONLY)
        if self.left == -1 or self.ever and self.left < 0:
            raise OSError(self.number, os.strerror(self.number), place)


class Raw(io.FileIO):
    """A file's descriptor: what is buffered above it is Python's own."""

    trouble: Trouble

    def __init__(self, file, *how):
        if not isinstance(file, int):
            self.trouble.strike(file)
        super().__init__(file, *how)

    def write(self, content):
        self.trouble.strike(self.fileno())
        return super().write(content)

    def readinto(self, buffer):
        self.trouble.strike(self.fileno())
        return super().readinto(buffer)

    def readall(self):
        self.trouble.strike(self.fileno())
        return super().readall()

    def truncate(self, size=None):
        self.trouble.strike(self.fileno())
        return super().truncate(size)

    def close(self):
        number = None if self.closed else self.fileno()
        try:
            if number is not None:
                self.trouble.strike(number)
        finally:
            super().close()  # whatever close(2) says, the descriptor is gone


opened = opening(Raw)


def arm(who: str) -> None:
    """Take up ERRNO if it is meant for this process."""
    told = os.environ.get("ERRNO", "").split()
    if not told or told[0] != who:
        return
    trouble = Trouble(int(told[1]), getattr(errno, told[2]), "ever" in told)
    Raw.trouble = trouble

    def failing(call):
        def wrapper(*args, **kwargs):
            if args and isinstance(args[0], (int, str, bytes, os.PathLike)):
                trouble.strike(args[0])
            return call(*args, **kwargs)

        return wrapper

    def closing(descriptor):
        try:
            trouble.strike(descriptor)
        finally:
            close(descriptor)

    def memory(*args):
        trouble.strike("relaunch-outcome")
        return memfd_create(*args)

    close, memfd_create = os.close, getattr(os, "memfd_create", None)
    for name in CALLS.split():
        setattr(os, name, failing(getattr(os, name)))
    fcntl.flock = failing(fcntl.flock)
    os.close = closing
    if memfd_create:
        os.memfd_create = memory
    builtins.open = io.open = opened  # type: ignore[assignment]
    sys.stdout, sys.stderr = (opened(n, "w", closefd=False) for n in (1, 2))
