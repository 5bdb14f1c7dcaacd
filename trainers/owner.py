"""Who owns a run, on disks that lend no locks: Lustre without -o flock, some NFS, FUSE and CIFS.

    own(RunDir("runs/first").path)    # True until the process ends; False: somebody else does

On one machine the kernel holds a name for us, which it frees when we die. Among machines there is RUN/.owner,
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
_names: list[socket.socket] = []  # held until the process ends


def own(run: Path) -> bool:
    """Whether this process owns the run from now on. OSError for a folder that cannot be written."""
    path, host = run / NAME, socket.gethostname()
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(b"\0relaunch-" + hashlib.sha256(os.fsencode(run.resolve())).hexdigest().encode())
    except OSError as error:
        name.close()
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    try:
        with open(path, "x", opener=files.shyly) as f:
            f.write(host)
    except FileExistsError:
        if files.read_small(path).decode(errors="replace") != host:
            name.close()
            return False  # else it is of a process of this machine that is gone: the name was free
    _names.append(name)
    atexit.register(path.unlink, missing_ok=True)
    return True
