"""Who owns a run, or a set in the making, on disks that lend no locks: Lustre without -o flock, some NFS.

    mark = Path("runs/first/.owner")
    own(mark)    # True until `release`, or the process's end; False: somebody else does

On one machine the kernel holds a name for us, which it frees when we die. Among machines there is the file,
which one of them makes: whoever is killed leaves it, and only its own machine can know that it is over.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import os
import socket
from pathlib import Path

from relaunch.data_prep import files

NAME = ".owner"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_held: dict[Path, socket.socket] = {}


def own(mark: Path) -> bool:
    """Whether this process owns `mark` from now on. OSError for a folder that cannot be written."""
    host, place = socket.gethostname(), os.fsencode(mark.parent.resolve() / mark.name)
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(b"\0relaunch-" + hashlib.sha256(place).hexdigest().encode())
        try:
            with open(mark, "x", opener=files.shyly) as f:
                f.write(host)
        except FileExistsError:
            if files.read_small(mark).decode(errors="replace") != host:
                name.close()
                return False  # else it is of a process of this machine that is gone: the name was free
    except OSError as error:
        name.close()
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    _held[mark] = name
    atexit.register(mark.unlink, missing_ok=True)
    return True


def release(mark: Path) -> None:
    """Let go of what `own` took."""
    atexit.unregister(mark.unlink)
    mark.unlink(missing_ok=True)
    _held.pop(mark).close()
