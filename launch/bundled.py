"""A bundle: a run's files as one tar file, of which each byte is checked.

    write(f, "first", {"config.json": Path("runs/first/config.json"), …})
    with opened(path) as bundle:
        bundle.unpack(folder)

The files, each after its header; then BUNDLE.json, with the size, SHA-256 and time of each; then
BUNDLE.sha256, of fixed length, with the hash of BUNDLE.json. `tar` lists and unpacks it. It can be written in
one way only: headers and padding follow from BUNDLE.json. So a reader knows what each byte has to be, and
follows no name, link or size that a header claims.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from relaunch.data_prep import VERSION, files
from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.names import printable
from relaunch.trainers.shapes import shaped

SCHEMA = 1
BLOCK = 512  # bytes: each header and content takes whole ones
LIST, SEAL = "BUNDLE.json", "BUNDLE.sha256"
SEALED = re.compile(rb"# (\d{20}) bytes\n([0-9a-f]{64})  BUNDLE\.json\n")
LATEST = 8**11 - 1  # that a header can say, in seconds since 1970
TAIL = 4 * BLOCK  # of SEAL and the tar's end
ENTRY = {"bytes": int, "modified": int, "sha256": str}
AGAIN = "copy it again from where it was made"


# tar --------------------------------------------------------------------------------------------------------


def block(name: bytes, size: int, modified: int, kind: bytes) -> bytes:
    """One tar header, in GNU's form: sizes from 8 GiB on are binary."""
    digits = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    rights, nobody = b"0000644\0", b"0000000\0"
    before = [name[:100].ljust(100, b"\0"), rights, nobody, nobody, digits, b"%011o\0" % modified]
    after = [kind, bytes(100), b"ustar  \0"]
    total = sum(b"".join([*before, 8 * b" ", *after]))
    return b"".join([*before, b"%06o\0 " % total, *after]).ljust(BLOCK, b"\0")


def padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


def header(name: str, size: int, modified: int = 0) -> bytes:
    """What stands before a plain file; a name of more than 100 bytes has a header of its own before that."""
    raw, before = os.fsencode(name), b""
    if len(raw) > 100:
        before = block(b"././@LongLink", len(raw) + 1, 0, b"L") + raw + b"\0" + padding(len(raw) + 1)
    return before + block(raw, size, modified, b"0")


def tail(listed: bytes) -> bytes:
    """SEAL, of a bundle with this LIST, and the two blocks that end a tar file."""
    said = f"# {len(listed):020d} bytes\n{hashlib.sha256(listed).hexdigest()}  {LIST}\n".encode()
    return header(SEAL, len(said)) + said + padding(len(said)) + bytes(2 * BLOCK)


def framed(listed: bytes) -> bytes:
    """What stands after the files."""
    return header(LIST, len(listed)) + listed + padding(len(listed)) + tail(listed)


# writing ----------------------------------------------------------------------------------------------------


def write(f: BinaryIO, run: str, members: Mapping[str, Path | bytes]) -> dict[str, dict]:
    """Write a bundle of the run called `run`; `members`: its files by their names in it.

    Returns what LIST says of them. What is being written meanwhile is taken as long as it is now. Failure 65
    for what cannot be read; OSError.
    """
    entries = {}
    for name, content in members.items():
        with opened_member(content) as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(0)
            moment = time.time() if isinstance(content, bytes) else os.fstat(source.fileno()).st_mtime
            modified = min(max(0, int(moment)), LATEST)
            f.write(header(f"{run}/{name}", size, modified))
            try:
                sha256 = files.copy(source, f, size)
            except EOFError:
                raise Failure(DATA, f"{name} became shorter while it was read", "run it again") from None
            f.write(padding(size))
        entries[name] = {"bytes": size, "modified": modified, "sha256": sha256}
    told = {"schema": SCHEMA, "relaunch": VERSION, "run": run, "files": entries}
    f.write(framed(files.dump_json(told).encode()))
    return entries


def opened_member(content: Path | bytes) -> BinaryIO:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    try:
        return files.open_plain(content)
    except OSError as error:
        raise Failure(DATA, f"cannot read {content} ({error.strerror})", "run it again") from error


# reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    path: Path
    f: BinaryIO
    run: str  # its name where it was bundled
    files: dict[str, dict]
    ends: int  # where its files do, in bytes

    def unpack(self, folder: Path) -> None:
        """Write its files into an empty folder. Failure 65 at the first that is damaged; OSError."""
        self.f.seek(0)
        for name, entry in self.files.items():
            target, size = folder / name, entry["bytes"]
            target.parent.mkdir(parents=True, exist_ok=True)
            self.expect(header(f"{self.run}/{name}", size, entry["modified"]), name)
            try:
                with open(target, "xb") as out:
                    whole = files.copy(self.f, out, size) == entry["sha256"]
            except EOFError:
                whole = False
            if not whole:
                raise self.damaged(name)
            self.expect(padding(size), name)
            os.utime(target, (entry["modified"], entry["modified"]))
        if self.f.tell() != self.ends:
            raise self.damaged(LIST)

    def expect(self, content: bytes, name: str) -> None:
        if self.f.read(len(content)) != content:
            raise self.damaged(name)

    def damaged(self, name: str) -> Failure:
        return Failure(DATA, f"{self.path} is damaged: {printable(name)} is not as it was bundled", AGAIN)


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """A bundle whose LIST is whole, and names no place outside. Failure 65."""
    try:
        f = files.open_plain(path)
    except OSError as error:
        raise Failure(DATA, f"cannot read {path} ({error.strerror})") from error
    with f:
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - TAIL))
        match = SEALED.match(f.read(TAIL), BLOCK)
        count = int(match[1]) if match else 0
        ends = size - TAIL - BLOCK - count - len(padding(count))
        if not match or not 0 < count <= files.SMALL or ends < 0:
            what = f"{path} is no bundle, or it was cut short or damaged at its end"
            raise Failure(DATA, what, "copy it again, or make one with relaunch bundle RUN")
        f.seek(ends + BLOCK)
        listed = f.read(count)
        f.seek(ends)
        if f.read() != framed(listed):
            raise Failure(DATA, f"{path} is damaged: {LIST} is not as it was written", AGAIN)
        yield described(path, f, listed, ends)


def described(path: Path, f: BinaryIO, listed: bytes, ends: int) -> Bundle:
    """What a LIST says. It may be anybody's: hashes tell of accidents alone."""
    try:
        told = shaped(files.parse_json(listed), {"schema": int, "run": str, "files": dict})
        run, entries = told["run"], told["files"]
        if told["schema"] != SCHEMA:
            raise Failure(DATA, f"{path} has schema {told['schema']}, this version reads {SCHEMA}")
        for name, entry in entries.items():
            if not ENTRY.keys() <= shaped(entry, ENTRY).keys():
                raise ValueError(f"{name!r} lacks its size, time or hash")
            if not 0 <= entry["modified"] <= LATEST or entry["bytes"] < 0:
                raise ValueError(f"{name!r} has a size or time that cannot be")
        above = {folder for name in entries for folder in PurePosixPath(name).parents}
        for name in (run, *entries):
            if not plain(name) or name != run and PurePosixPath(name) in above or "/" in run:
                raise ValueError(f"{name!r} is no place in a run")
    except (ValueError, KeyError) as error:
        what = f"{path} is not as relaunch bundle makes it ({reason(error)})"
        raise Failure(DATA, what) from error
    return Bundle(path, f, run, entries, ends)


def reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def plain(name: str) -> bool:
    """Whether this is a name below a folder, in its one spelling. ValueError for what no disk can hold.

    No part has a dot first: nobody's lock of a run comes with a bundle.
    """
    os.fsencode(name)
    hidden = any(part.startswith(".") for part in name.split("/"))
    return str(PurePosixPath(name)) == name and not (hidden or name.startswith("/") or "\0" in name)
