"""A packed set is whole or not there, and one process at a time makes it.

with exclusive(root, "mine"), new_folder(root / "mine") as folder:
    (folder / "meta.json").write_text("{}")
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relaunch.data_prep import owner
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.files import open_lock, remove, storage, sync, sync_tree
from relaunch.data_prep.packed import FLAG
from relaunch.data_prep.progress import ctrl_c_between_batches
from relaunch.data_prep.talk import tell


@contextmanager
def exclusive(root: Path, name: str) -> Iterator[None]:
    """One process at a time prepares ROOT/NAME. The kernel lets go of the lock when its holder dies.

    Failure 64 for a name that is not one, 73 if `root` cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        what = f"'{name}' is not a name for a data set"
        raise Failure(USAGE, what, "use letters, digits, '.', '_' and '-'")
    path, mark = root / f".{name}.lock", None
    with storage(path, FLAG):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            lock = open_lock(path)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell(f"another process is preparing {root / name}; waiting for it", sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in owner.NO_LOCKS:
                    lock.close()
                    raise
                mark = _owned(root, name)
                break
            try:
                if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    break
            except FileNotFoundError:
                pass
            lock.close()  # its last holder removed it: only a lock on the file that is there now counts
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if mark:
                owner.release(mark)


def _owned(root: Path, name: str) -> Path:
    """Own ROOT/NAME by a file, once nobody else does, and return the file: on a disk without locks."""
    mark, waits = root / f".{name}.owner", False
    while not owner.own(mark):
        if not waits:
            there = f"if it was killed on another machine, remove {mark}"
            tell(f"another process is preparing {root / name}; waiting for it ({there})", sys.stderr)
        waits = True
        time.sleep(0.5)
    return mark


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target` that becomes `target` atomically if the block succeeds.

    `target` must not exist. Call it inside `exclusive`: then a partial folder that lies there is a dead
    process's, and is removed. Failure 73 if it cannot be written.
    """
    partial = target.with_name(f".{target.name}.partial")
    with storage(target, FLAG):
        remove(partial)
        partial.mkdir()
    try:
        with ctrl_c_between_batches():
            yield partial
        with storage(target, FLAG):
            sync_tree(partial)
            os.rename(partial, target)
            sync(target.parent)
    except BaseException:  # also Ctrl-C: leave nothing behind
        remove(partial)
        raise
