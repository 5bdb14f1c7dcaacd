"""Reading a zip, a tar (plain, gz, bz2, xz) or a folder without unpacking it and without trusting it.

`open_source(path)` lists regular files; `stream` reads the wanted ones in the source's own order, so a
compressed tar is read straight through. Whatever is wrong with a source is one Failure 65. loose.py reads
folders and single files.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.files import md5, sha256
from relaunch.data_prep.names import printable, some
from relaunch.data_prep.tally import Tally

MAX_FILES = 5_000_000  # ImageNet has 1.3 million
MAX_FILE = 4 << 30  # bytes of one file, which is read whole into memory; WikiText-103 has 0.5 GiB
MAX_TOTAL = 1 << 40  # bytes of all files
MAX_RATIO, RATIO_FROM = 200, 64 << 20  # unpacked/packed, looked at above 64 MiB: real data sets stay under 10
BROKEN = (
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
    ValueError,
)  # what the readers raise on damaged input


class Source:
    """Regular files by name. `sizes`: name -> bytes, in order of name; `folders`: those that it lists, which
    may be empty; `left_out` counts hidden files and what else is no regular file.

    Failure 65 when it cannot be read, or holds what no data set does: unsafe paths, links, a bomb.
    """

    def __init__(self, path: Path):
        self.path, self.name = path, path.resolve().name
        self.sizes: dict[str, int] = {}
        self.folders: set[str] = set()
        self.left_out = Tally()
        self.total = 0  # bytes of all files
        with self._reading():
            for name, size in self._list():
                self._add(name, size)
        self.sizes = dict(sorted(self.sizes.items()))

    def _list(self) -> Iterator[tuple[str, int]]:
        raise NotImplementedError

    def _stream(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        raise NotImplementedError

    def stream(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of each named file, in the source's order. Failure 65 if it is damaged."""
        with self._reading():
            yield from self._stream(set(names))

    def digest(self, names: Iterable[str], published: dict[str, str]) -> dict:
        """What meta.json says of the source: its SHA-256 (of a folder: of the names and hashes of the files
        used), and whether its MD5 is the published one, where one is known."""
        total, same = hashlib.sha256(), {}
        with self._reading():
            for label, file in self._files_on_disk(sorted(names)):
                sha = sha256(file)
                if file.name in published:
                    same[file.name] = md5(file) == published[file.name]
                total.update(f"{sha}  {label}\n".encode())
        facts = {"file": self.name, "sha256": sha if self.path.is_file() else total.hexdigest()}
        return facts | ({"as_published": all(same.values())} if same else {})

    def together(self, roles: dict[str, str]) -> dict[str, dict[str, str]]:
        """Folder -> {file name: its role} of the folders that have a file of each name in `roles`."""
        found: dict[str, dict[str, str]] = {}
        for name in self.sizes:
            folder, _, file = name.rpartition("/")
            if file in roles:
                found.setdefault(folder, {})[name] = roles[file]
        return {folder: names for folder, names in found.items() if len(names) == len(roles)}

    def only_one(self, places: Iterable[str]) -> None:
        """Failure 65 if a data set lies in each of several folders: taking one of them would be a guess."""
        several = sorted({place.strip("/") or "the top" for place in places})
        if len(several) > 1:
            self._refuse(
                f"it holds {len(several)} sets, in {some(several)}",
                "pass the folder of the one that you mean" + ", unpacked" * self.path.is_file(),
            )

    def _files_on_disk(self, names: list[str]) -> list[tuple[str, Path]]:
        return [(self.name, self.path)]

    def _add(self, name: str, size: int) -> None:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
            self._refuse(f"a member has the unsafe path {name!r}")
        if not name.isprintable() and any("\ud800" <= char <= "\udfff" for char in name):
            self._refuse(f"a file's name is not UTF-8 ({printable(name)})", "rename it")
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            self.left_out.add("hidden files", name)
            return
        if str(path) in self.sizes:
            self._refuse(f"it holds {name!r} twice")
        self.sizes[str(path)] = size
        self.total += size
        if size > MAX_FILE or self.total > MAX_TOTAL or len(self.sizes) > MAX_FILES:
            self._refuse("it unpacks to more files or bytes than any known data set")
        if self.path.is_file():
            self._check_ratio(self.total)

    def _check_ratio(self, unpacked: int) -> None:
        if unpacked > max(RATIO_FROM, MAX_RATIO * self.path.stat().st_size):
            self._refuse(f"it unpacks to more than {MAX_RATIO} times its size, which no data set does")

    def _refuse(self, why: str, fix: str = "get the archive from its official place"):
        raise Failure(DATA, f"{self.name} is refused: {why}", fix)

    @contextmanager
    def _reading(self):
        try:
            yield
        except BROKEN as error:
            if isinstance(error, PermissionError):
                raise Failure(DATA, f"{error.filename} may not be read", "check its permissions") from None
            raise Failure(
                DATA,
                f"{self.name} cannot be read, it is truncated or damaged ({error or type(error).__name__})",
                "copy or download it again",
            ) from None


class Zip(Source):
    def _list(self):
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = _slashes(info.filename)
                if name.endswith("/"):
                    self.folders.add(name.rstrip("/"))
                    continue
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                    self._refuse(f"{info.filename!r} is a link or a device")
                if info.flag_bits & 1:
                    self._refuse("it is encrypted")
                yield name, info.file_size

    def _stream(self, wanted):
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = str(PurePosixPath(_slashes(info.filename)))
                if name in wanted:
                    content = archive.read(info)  # checks the CRC and stops at the declared size
                    if len(content) != info.file_size:
                        raise EOFError(f"{name} is short")
                    yield name, content


def _slashes(name: str) -> str:
    return name.replace("\\", "/")  # as programs on Windows write them, against zip's own rules


class Tar(Source):
    def _list(self):
        with self._open() as archive:
            for info in archive:
                if info.isdir():
                    self.folders.add(str(PurePosixPath(info.name)))
                    continue
                if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                    self._refuse(f"{info.name!r} is a link or a device")
                yield info.name, info.size
            # tarfile takes a damaged header for the end; reading on also makes gzip check its CRC
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(512) != bytes(512):
                raise EOFError("no end mark")
            while archive.fileobj.read(1 << 20):
                pass

    def _stream(self, wanted):
        with self._open() as archive:
            for info in archive:
                name = str(PurePosixPath(info.name))
                if name in wanted:
                    yield name, archive.extractfile(info).read()

    @contextmanager
    def _open(self):
        openers: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
        opener = openers.get(_start(self.path)[:2], open)
        with opener(self.path, "rb") as stream, self._tar(stream) as archive:
            yield archive

    def _tar(self, stream):
        try:
            return tarfile.open(mode="r:", fileobj=_Metered(stream, self._check_ratio))
        except tarfile.ReadError:
            self._refuse(
                "it is a single compressed file, not an archive", "pass the folder that holds all files"
            )


class _Metered(io.RawIOBase):
    """A stream that asks `check(position)` before it reads on: a compression bomb stops while it unpacks."""

    def __init__(self, stream, check):
        self.stream, self.check = stream, check

    def read(self, size=-1):
        if size > 0:
            self.check(self.stream.tell() + size)
        return self.stream.read(size)

    def seek(self, offset, whence=0):
        if whence == 0:
            self.check(offset)
        return self.stream.seek(offset, whence)

    def tell(self):
        return self.stream.tell()

    def seekable(self):
        return True

    def readable(self):
        return True


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(262)  # as far as a tar's mark


def is_text(name: str) -> bool:
    """Whether a file of that name is read as text, e.g. WikiText's wiki.train.tokens and wiki.train.raw."""
    return name.lower().endswith((".txt", ".tokens", ".raw", ".text"))


def open_source(path: Path) -> Source:
    """A reader for a folder, zip, tar or text. Failure 65 when there is nothing, or it is something else."""
    from relaunch.data_prep.loose import Folder, Single

    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise Failure(DATA, f"there is no {path}", "check the path after --source")
    try:
        start = _start(path)
    except OSError as error:
        raise Failure(DATA, f"{path} cannot be read: {error.strerror}", "check its permissions") from None
    if start[:2] == b"PK":
        return Zip(path)
    if start[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7") or start[257:262] == b"ustar":
        return Tar(path)
    if start and is_text(path.name):
        return Single(path)
    raise Failure(
        DATA,
        f"{path.name} is {'empty' if not start else 'neither a folder nor a zip or tar archive'}",
        "pass an archive, the folder that holds the files, one text (.txt), or a parquet or csv table",
    )


def gunzip(name: str, content: bytes) -> bytes:
    """The content of a .gz file, unpacked. Failure 65 if it is damaged, or grows beyond MAX_RATIO."""
    limit = max(RATIO_FROM, MAX_RATIO * len(content))
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            data = stream.read(limit + 1)
            if len(data) <= limit:
                stream.read(1)  # the CRC is checked at the end
    except BROKEN as error:
        raise Failure(
            DATA, f"{name} cannot be read, it is truncated or damaged ({error})", "copy or download it again"
        ) from None
    if len(data) > limit:
        raise Failure(
            DATA,
            f"{name} is refused: it unpacks to more than {MAX_RATIO} times its size",
            "get it from its official place",
        )
    return data
