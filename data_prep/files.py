"""Files that are whole or not there, and what a disk that refuses them becomes. Nothing else syncs to disk.

with storage(path, "--out"):
    write_atomic(path, dump_json({"step": 1200}))
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from relaunch.data_prep.errors import DATA, STORAGE, Failure

CHUNK = 1 << 24  # bytes handed to the kernel at a time: hashed while they are still in the cache


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
        write_synced(part, content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes | memoryview) -> str:
    """Write a new file through to the disk; returns its SHA-256. An OSError may leave a part of it."""
    digest, view = hashlib.sha256(), memoryview(content).cast("B")
    with open(path, "wb") as f:
        for start in range(0, len(view), CHUNK):
            digest.update(view[start : start + CHUNK])
            f.write(view[start : start + CHUNK])
        f.flush()
        os.fsync(f.fileno())
    return digest.hexdigest()


def sync(path: Path | str) -> None:
    """Make a file's content, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` everything below a folder, and the folder itself last."""
    for below, _, names in os.walk(folder, topdown=False):
        for path in (*(os.path.join(below, name) for name in names), below):
            sync(path)


def remove(folder: Path) -> None:
    """Remove a folder and all that it holds, as far as that can be done."""
    shutil.rmtree(folder, ignore_errors=True)


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def md5(path: Path) -> str:
    """The same, for comparison with what the publishers of a data set give."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest()


def dump_json(value) -> str:
    """Strict JSON: a number that is not finite is a ValueError."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> dict:
    """The JSON of a file. Failure 65 if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failure(DATA, f"cannot read {path} ({error})") from error
