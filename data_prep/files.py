"""Files that are whole or not there, and what a disk that refuses them becomes. Nothing else syncs to disk.

with storage(path, "--out"):
    write_atomic(path, dump_json({"step": 1200}))
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TextIO

from relaunch.data_prep.errors import DATA, STORAGE, Failure
from relaunch.data_prep.talk import tell

CHUNK = 1 << 24  # bytes handed to the kernel at a time: hashed while they are still in the cache
SMALL = 1 << 26  # bytes: no small file is larger, and nobody runs out of memory over a damaged one
NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # fsync's, of some network disks and FUSE
KEPT = 1 << 26  # bytes of an `Appended` that wait for room: a week's metrics
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux's


@contextmanager
def storage(path: Path | str, flag: str):
    """Failure 73 for an OSError of the block, which writes `path`; `flag` is the option for another place."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Failure(
            STORAGE,
            f"cannot write {path} ({error.strerror or error})",
            f"{'free some space, or ' * full}choose another place with {flag}",
        ) from error


def write_atomic(path: Path, content: str | bytes | memoryview) -> None:
    """Replace a file whole: a reader, or a crash, sees the old content or the new, never a part. OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)  # of a process that had our number
        write_synced(part, content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """The same for what is written in parts, once the block has ended well. OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        with open(part, "wb", opener=shyly) as f:
            yield f
            f.flush()
            through(f.fileno())
        os.replace(part, path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def copy(source: BinaryIO, target: BinaryIO, size: int) -> str:
    """Copy so many bytes; returns their SHA-256. EOFError where there are fewer."""
    digest = hashlib.sha256()
    while size:
        part = source.read(min(size, CHUNK))
        if not part:
            raise EOFError
        digest.update(part)
        target.write(part)
        size -= len(part)
    return digest.hexdigest()


def write_synced(path: Path, content: bytes | memoryview) -> str:
    """Write a new file through to the disk; returns its SHA-256. An OSError may leave a part of it."""
    digest, view = hashlib.sha256(), memoryview(content).cast("B")
    with open(path, "wb", opener=shyly) as f:
        for start in range(0, len(view), CHUNK):
            digest.update(view[start : start + CHUNK])
            f.write(view[start : start + CHUNK])
        f.flush()
        through(f.fileno())
    return digest.hexdigest()


def sync(path: Path | str) -> None:
    """Make a file's content, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        through(descriptor)
    finally:
        os.close(descriptor)


_said_unsynced = False


def through(descriptor: int) -> None:
    """fsync, where the file system has one: elsewhere a line, once. A net that is missing is no full disk."""
    global _said_unsynced
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        if not _said_unsynced:
            _said_unsynced = True
            why = f"this file system syncs nothing to disk ({error.strerror})"
            tell(f"relaunch: {why}: what is written outlives kills, and not a power cut", sys.stderr)


def sync_tree(folder: Path) -> None:
    """`sync` everything below a folder, and the folder itself last."""
    for below, _, names in os.walk(folder, topdown=False):
        for path in (*(os.path.join(below, name) for name in names), below):
            sync(path)


def remove(folder: Path) -> None:
    """Remove a folder and all that it holds, or a file, as far as that can be done."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with suppress(OSError):
            folder.unlink()


def exchange(one: Path, other: Path) -> bool:
    """Let two folders swap their names in one step; False where the system or the disk cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if not call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(one))


def shyly(name: str, flags: int) -> int:
    """An opener for what is written where others may have been: no link is followed, no reader waited for."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def open_lock(path: Path) -> TextIO:
    """A file to lock, made if it is not there. What it holds stays, and a link is refused: OSError."""
    return open(path, "a+", opener=shyly)


def open_plain(path: Path | str) -> BufferedReader:
    """A file to read. OSError for anything else of that name: opening a pipe would wait for ever."""
    f = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
        f.close()
        raise OSError(errno.EINVAL, "not a file", str(path))
    return f


def read_small(path: Path) -> bytes:
    """All of a small file. OSError."""
    with open_plain(path) as f:
        if os.fstat(f.fileno()).st_size > SMALL:
            raise OSError(errno.EFBIG, f"more than {SMALL:,} bytes", str(path))
        return f.read()


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with open_plain(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def md5(path: Path) -> str:
    """The same, for comparison with what the publishers of a data set give."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest()


def dump_json(value) -> str:
    """Strict JSON: a number that is not finite is a ValueError."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def parse_json(text: bytes | str, constant: Callable | None = None):
    """The value of a JSON text. ValueError for what is none, with whatever depth, numbers and bytes.

    `constant` is called with NaN, Infinity and -Infinity.
    """
    try:
        return json.loads(text, parse_constant=constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> dict:
    """The JSON object of a file. Failure 65 if there is none."""
    try:
        value = parse_json(read_small(path))
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        return value
    except (OSError, ValueError) as error:
        raise Failure(DATA, f"cannot read {path} ({error})") from error


class Appended:
    """A file that one process appends rows to. What a full disk refuses is kept, and written once it fits.

    It is opened for each flush, so that a server that was away costs nothing; a link is not followed.
    `sealed` is what was written, as it should be found again.
    """

    def __init__(self, path: Path, now: bool = True):
        """Makes the file if it is not there: now, or at its first flush. OSError."""
        self.path, self.waiting, self.dropped = path, bytearray(), 0  # dropped: rows, beyond KEPT
        self.size = 0  # bytes, of whole rows
        if now:
            with self._open() as f:
                self.size = f.tell()
            if not self.size:
                sync(path.parent)  # its name, too, is to outlive a power cut
        self._digest = self._read_again()

    def _read_again(self):
        """The SHA-256 of what others have written."""
        digest, left = hashlib.sha256(), self.size
        if left:
            with open_plain(self.path) as f:
                while left and (part := f.read(min(left, CHUNK))):
                    digest.update(part)
                    left -= len(part)
        return digest

    def sealed(self) -> dict:
        """Size in bytes, and SHA-256, of the rows that are in the file."""
        return {"bytes": self.size, "sha256": self._digest.hexdigest()}

    def _open(self):
        return open(self.path, "ab", buffering=0, opener=shyly)

    def keep(self, row: bytes) -> None:
        """Write `row` at the next flush; beyond KEPT bytes it is dropped, and counted."""
        if len(self.waiting) + len(row) > KEPT:
            self.dropped += 1
        else:
            self.waiting += row

    def flush(self, look: bool = False) -> None:
        """Write what was kept; `look`: and see whether the file is still there. OSError: nothing is lost."""
        if not (self.waiting or look):
            return
        with self._open() as f:
            if f.tell() > self.size:  # a part of a row, that an error left
                f.truncate(self.size)
            if f.tell() < self.size:  # somebody emptied it
                self.size = f.tell()
                self._digest = self._read_again()
            view = memoryview(bytes(self.waiting))
            while view:
                view = view[f.write(view) :]
            self.size += len(self.waiting)
            self._digest.update(self.waiting)
            self.waiting.clear()

    def to_disk(self) -> None:
        """Make what was flushed outlive a power cut. From any thread. OSError."""
        with self._open() as f:
            through(f.fileno())
