"""Archives and pickles that mean harm: no code is run, nothing is left or written elsewhere, and one line.

`python tests/storm.py hostile --cases 1 --seed 17` is archive and pickle 17 again.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from relaunch.data_prep.recipes import prepare
from relaunch.trainers.weights import foreign
from rigs.prep_sources import cifar10, image_folder_files, wikitext_files, zip_of
from storms.fuzz import changed_bytes, said

SOURCES = {"wikitext2": wikitext_files, "pets": lambda: image_folder_files(2, classes=("cat", "dog"))}
NAMES = [
    "../evil.txt",
    "a/../../evil.txt",
    "{out}/evil.txt",
    "//{out}/evil.txt",
    "..\\evil.txt",
    "C:\\evil.txt",
]
NAMES += [
    "~/evil.txt",
    "./../evil.txt",
    "x/" * 300 + "evil.txt",
    "a" * 4000,
    "\x1b[31m.txt",
    "a\nb.txt",
    "\0evil",
    "..",
]
PACKERS = {"": lambda content: content, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def archive(folder: Path, chance: random.Random) -> tuple[str, Path]:
    """(the set that it would be, an archive with something in it that no data set has)."""
    name = chance.choice(sorted(SOURCES))
    files = SOURCES[name]()
    hostile = chance.choice(NAMES).replace("{out}", str(folder / "elsewhere"))
    make = chance.choice((tar_of, tar_of, evil_zip))
    return name, make(folder, files, hostile, chance)


def tar_of(folder: Path, files: dict, hostile: str, chance: random.Random) -> Path:
    stream = io.BytesIO()
    form = chance.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    kinds += (
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"Z",
        tarfile.REGTYPE,
        tarfile.REGTYPE,
    )
    places = [*files]
    with tarfile.open(fileobj=stream, mode="w", format=form) as out:
        at = chance.randrange(len(files) + 1)
        for place in (*places[:at], None, *places[at:]):
            info = tarfile.TarInfo(place or chance.choice((hostile, hostile, places[0], "link/evil.txt")))
            content = b"evil" if place is None else as_bytes(files[place])
            info.size, info.mode = len(content), 0o6777
            if place is None:
                info.type = chance.choice(kinds)
                info.linkname = chance.choice(
                    ("/etc/passwd", str(folder / "elsewhere"), "..", places[0], hostile)
                )
                info.devmajor = info.devminor = 1
                odd = {"path": hostile, "size": chance.choice(("-1", "9" * 30, "x")), "linkpath": "/etc"}
                if form == tarfile.PAX_FORMAT:
                    info.pax_headers = {
                        k: v for k, v in odd.items() if chance.random() < 0.4 and "\0" not in v
                    }
            try:
                out.addfile(info, io.BytesIO(content))
            except (ValueError, OSError):  # a name that this format cannot hold
                info.name = info.linkname = "evil.txt"
                out.addfile(info, io.BytesIO(content))
    ending, pack = chance.choice(sorted(PACKERS.items()))
    content = pack(damaged(stream.getvalue(), chance))
    if chance.random() < 0.1:
        content = pack(bytes(70 << 20)) if ending else content  # small, and it unpacks to more than data do
    path = folder / f"source.tar{ending}"
    path.write_bytes(damaged(content, chance))
    return path


def evil_zip(folder: Path, files: dict, hostile: str, chance: random.Random) -> Path:
    path = folder / "source.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, warnings.catch_warnings():
        for name, content in files.items():
            out.writestr(zipfile.ZipInfo(name), content)
        info = zipfile.ZipInfo("evil.txt")
        info.filename = info.orig_filename = chance.choice((hostile, [*files][0], "link", hostile))
        info.external_attr = chance.choice((0, 0, 0o120777, 0o020666, 0o010666, 0o104777)) << 16
        info.flag_bits |= chance.choice((0, 0, 1, 0x800))
        try:
            warnings.simplefilter("ignore")  # of a name that comes twice
            out.writestr(
                info, chance.choice((b"/etc/passwd", bytes(70 << 20), b"evil")), zipfile.ZIP_DEFLATED
            )
        except UnicodeError:
            pass
    whole = bytearray(path.read_bytes())
    if chance.random() < 0.3:  # what the directory at the end says of one: method, CRC or size
        at = whole.rindex(b"PK\x01\x02") + chance.choice((10, 16, 20, 24, 42))
        whole[at : at + 2] = bytes((chance.randrange(256), chance.randrange(256)))
    path.write_bytes(damaged(bytes(whole), chance))
    return path


def as_bytes(content) -> bytes:
    return content.encode() if isinstance(content, str) else content


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One in five times."""
    return changed_bytes(content, chance) if chance.random() < 0.2 else content


def try_archive(folder: Path, chance: random.Random) -> str:
    """What is wrong with how it is packed."""
    (folder / "elsewhere").mkdir(parents=True)
    name, source = archive(folder, chance)
    before = everything(folder)
    wrong, made = said(lambda: prepare(name, source, root=folder / "out", progress=False), (64, 65))
    left = [path for path in everything(folder) - before if path.split("/")[0] != "out"]
    out = [path for path in sorted(os.listdir(folder / "out")) if (folder / "out").exists()]
    if left:
        return f"{wrong} written elsewhere: {left[:3]}"
    if not made and out:
        return f"{wrong} left: {out[:3]}"
    return wrong


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# pickles ----------------------------------------------------------------------------------------------------


class Reduced:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


def payloads(mark: Path) -> dict[str, bytes]:
    """Pickles that make the file `mark` where they are let."""
    touch, code = f"touch {mark}".encode(), f"open({str(mark)!r}, 'w').close()"
    return {
        "a reduced object": pickle.dumps(Reduced(os.system, touch.decode()), 2),
        "code in a list": pickle.dumps([1, Reduced(exec, code)], 4),
        "protocol 0": b"cposix\nsystem\n(S'" + touch + b"'\ntR.",
        "an old instance": b"(S'" + touch + b"'\niposix\nsystem\n.",
        "an attribute's": pickle.dumps(Reduced(eval, f"__import__('os').system({touch.decode()!r})"), 5),
    }


def carried(kind: str, payload: bytes, folder: Path) -> str:
    """What is wrong with how a file of this kind is read whose pickle is `payload`."""
    if kind in ("data_batch_2", "batches.meta"):
        cifar10(folder / "c.tar.gz", **{kind: payload})
        out = folder / "out"
        wrong, _ = said(lambda: prepare("cifar10", folder / "c.tar.gz", root=out, progress=False), (65,))
        return wrong or ("a set was made" if os.listdir(out) else "")
    path = folder / "model.pth"
    if kind == "zip":
        torch.save({"state_dict": {"weight": torch.ones(2)}}, path)
        with zipfile.ZipFile(path) as whole:
            files = {n: payload if n.endswith("data.pkl") else whole.read(n) for n in whole.namelist()}
        zip_of(path, files)
    elif kind == "legacy":
        torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
        stream = io.BytesIO(path.read_bytes())
        for _ in range(3):  # its magic number, protocol and system
            pickle.load(stream)
        path.write_bytes(stream.getvalue()[: stream.tell()] + payload)
    else:
        path.write_bytes(payload)
    wrong, made = said(lambda: foreign.read(path), (65,))
    return wrong or ("it was read" if made else "")


CARRIERS = ("data_batch_2", "batches.meta", "zip", "legacy", "bare")


def pickles(folder: Path) -> Iterator[str]:
    """What is wrong with each."""
    for kind in CARRIERS:
        for name in payloads(Path()):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            mark = folder / "was-run"
            content = payloads(mark)[name]
            pickle.loads(content)
            assert mark.exists(), f"{name} does nothing"
            mark.unlink()
            wrong = carried(kind, content, folder)
            ran = "it was run " if mark.exists() else ""
            yield f"{name} in {kind}: {ran}{wrong}" if wrong or ran else ""


def storm(folder: Path, cases: int = 600, seed: int = 0) -> Iterator[tuple[str, int, list[str]]]:
    """(what was read, cases, what is wrong)."""
    place, wrong = folder / "hostile", []
    for number in range(seed, seed + cases):
        if found := try_archive(place, random.Random(f"archive {number}")):
            wrong.append(f"archive {number}: {found}")
        shutil.rmtree(place)
    yield "archives that mean harm", cases, wrong
    found = list(pickles(place))
    shutil.rmtree(place)
    yield "pickles that run code", len(found), [each for each in found if each]
