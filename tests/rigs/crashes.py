"""What a power cut may leave: all that changes a folder is recorded, and disks are made of parts of it.

    with Recorder(root) as log:
        checkpoint.save(run, state, keep=1)
    for disk in log.disks():
        disk.lay(folder)

The disk after a cut between two calls, as file systems may leave it (after ALICE, OSDI 14, and CrashMonkey,
OSDI 18; weaker than what ext4 and XFS keep, whose journal has one order for all folders):

- What was synced is there: a file's bytes by its fsync, names in a folder by the folder's.
- Other changes of names in one folder come to the disk in their order, each whole or not at all (a rename is
  one change); the cut leaves any number of them. Folders and files do not wait for each other.
- Other bytes of a file are there, or not; or up to a half; or zeros in their place, or in the first half's.
"""

from __future__ import annotations

import builtins
import io
import itertools
import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from relaunch.data_prep import files
from rigs.raw import opening

LEFT_OUT = "tensorboard"  # a folder of that name: nothing is promised of it


@dataclass(eq=False)
class File:
    synced: bytes = b""  # when the recording began
    content: bytes = b""  # at present


@dataclass(eq=False)
class Folder:
    synced: dict[str, File | Folder] = field(default_factory=dict)
    content: dict[str, File | Folder] = field(default_factory=dict)


Node = File | Folder


@dataclass
class Op:
    """One call. `change`: a file's whole content, or what becomes of a folder's names; None: an fsync."""

    said: str
    node: Node
    change: bytes | dict | None = None


class Recorder:
    """Of all threads of this process. Links, and renames from one folder to another, are not known to it."""

    def __init__(self, root: Path):
        self.root = os.path.realpath(root)
        self.tree = taken(Path(self.root))
        self.ops: list[Op | object] = []  # notes among them
        self.lock = threading.RLock()

    def note(self, what: object) -> None:
        """Something that holds from here on."""
        with self.lock:
            self.ops.append(what)

    def __enter__(self):
        self.patches = ExitStack()
        calls = {"open": self.open, "mkdir": self.mkdir, "fsync": self.fsync}
        calls |= dict.fromkeys(("rename", "replace"), self.rename)
        calls |= dict.fromkeys(("unlink", "remove", "rmdir"), self.unlink)
        ours = [(owner, "open", self.opened(owner.open)) for owner in (builtins, io)]
        ours += [(os, name, self.around(getattr(os, name), record)) for name, record in calls.items()]
        ours += [(files, "exchange", self.around(files.exchange, self.exchange))]
        for each in ours:
            self.patches.enter_context(patch.object(*each))
        return self

    def __exit__(self, *error):
        self.patches.close()
        if not error[0]:
            assert laid(taken(Path(self.root))) == laid(self.tree), "something went by the recorder"

    # what is called -----------------------------------------------------------------------------------------

    def opened(self, plain):
        """`open`: on a descriptor that tells of its writes, for what lies in the folder."""
        recorder = self

        class Raw(io.FileIO):
            def __init__(self, file, mode, closefd, opener):
                opener = opener or (lambda name, flags: os.open(name, flags, 0o666))
                super().__init__(file, mode, closefd, opener)

            def write(self, content):
                with recorder.lock:
                    node = recorder.find(self.fileno())
                    written = super().write(content)
                    if node:
                        end = self.tell()
                        before = node.content.ljust(end - written, b"\0")
                        part = bytes(memoryview(content).cast("B")[:written])
                        recorder.data(self.name, node, before[: end - written] + part + before[end:])
                return written

            def truncate(self, size=None):
                with recorder.lock:
                    node, size = recorder.find(self.fileno()), super().truncate(size)
                    if node:
                        recorder.data(self.name, node, node.content[:size].ljust(size, b"\0"))
                return size

        ours = opening(Raw)

        def called(file, *args, **kwargs):
            inside = not isinstance(file, int) and self.name(os.fspath(file)) is not None
            return (ours if inside else plain)(file, *args, **kwargs)

        return called

    def around(self, call, record):
        def called(*args, **kwargs):
            with self.lock:
                first = self.name(args[0], kwargs.get("dir_fd"))
                if first is None:
                    return call(*args, **kwargs)
                rest = [a if isinstance(a, int) else self.name(a) for a in args[1:]]
                return record(lambda: call(*args, **kwargs), first, *rest)

        return called

    def open(self, call, path, flags, *mode):
        node = self.find(path)
        descriptor = call()
        if node is None and flags & os.O_CREAT:
            self.names(f"create {path}", path, File())
        elif isinstance(node, File) and flags & os.O_TRUNC and node.content:
            self.data(path, node, b"")
        return descriptor

    def mkdir(self, call, path, *mode):
        call()
        self.names(f"mkdir {path}", path, Folder())

    def rename(self, call, old, new):
        call()
        node = self.find(old)
        assert os.path.dirname(old) == os.path.dirname(new), f"{old} to {new}: another folder"
        if node is not self.find(new):
            self.names(f"rename {old} {os.path.basename(new)}", old, None, {os.path.basename(new): node})

    def unlink(self, call, path):
        call()
        self.names(f"remove {path}", path, None)

    def fsync(self, call, path):
        call()
        if node := self.find(path):
            self.ops.append(Op(f"fsync {path}", node))

    def exchange(self, call, one, other):
        if not call():
            return False
        nodes = self.find(one), self.find(other)
        self.names(f"exchange {one} {other}", one, nodes[1], {os.path.basename(other): nodes[0]})
        return True

    # what it means ------------------------------------------------------------------------------------------

    def name(self, what, dir_fd: int | None = None) -> str | None:
        """A path, or a descriptor's, in the folder; None: elsewhere."""
        if isinstance(what, int):
            what = os.readlink(f"/proc/self/fd/{what}")
        what = os.fsdecode(os.fspath(what))
        if dir_fd is not None:
            what = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), what)
        what = os.path.abspath(what)
        inside = f"{what}{os.sep}".startswith(self.root + os.sep) and LEFT_OUT not in what.split(os.sep)
        return os.path.relpath(what, self.root) if inside else None

    def find(self, what) -> Node | None:
        path, node = self.name(what) if isinstance(what, int) else what, self.tree
        for part in [] if path in (None, ".") else path.split(os.sep):
            node = node.content.get(part) if isinstance(node, Folder) else None
        return node if path is not None else None

    def data(self, said: str, node: File, content: bytes) -> None:
        node.content = content
        self.ops.append(Op(f"write {said}", node, content))

    def names(self, said: str, path: str, node: Node | None, more: dict | None = None) -> None:
        """The folder of `path` changes: its last part is `node` from now on."""
        folder = self.find(os.path.dirname(path) or ".")
        change = {os.path.basename(path): node} | (more or {})
        folder.content = changed(folder.content, [change])
        self.ops.append(Op(said, folder, change))

    # disks --------------------------------------------------------------------------------------------------

    def disks(self, most: int = 32, seed: int = 0) -> Iterator[Disk]:
        """What the disk may hold after a cut behind each call, `most` a call, without those seen before."""
        synced: dict[Node, bytes | dict] = {}
        pending: dict[Node, list] = {}
        notes: list = []
        seen = set()
        for n, op in enumerate([None, *self.ops]):
            if isinstance(op, Op):
                if op.change is not None:
                    pending.setdefault(op.node, []).append(op.change)
                elif changes := pending.pop(op.node, None):
                    before = synced.get(op.node, op.node.synced)
                    synced[op.node] = changes[-1] if isinstance(before, bytes) else changed(before, changes)
            elif op:
                notes.append(op)
            nodes = [node for node in reachable(self.tree, synced, pending) if node in pending]
            left = {node: options(synced.get(node, node.synced), pending[node]) for node in nodes}
            for choice in chosen(left, most, random.Random(f"{seed} {n}")):
                found = {node: left[node][at][1] for node, at in choice.items()}
                tree = laid(self.tree, lambda node: found.get(node, synced.get(node, node.synced)))
                key = tuple(tree.items()), len(notes)
                if key not in seen:
                    seen.add(key)
                    yield Disk(tree, [*notes], self.told(n, left, choice))

    def told(self, n: int, left: dict, choice: dict) -> str:
        """How one comes to this disk."""
        last = next((op.said for op in reversed(self.ops[:n]) if isinstance(op, Op)), "the beginning")
        paths = {node: path for path, node in everything(self.tree)}
        kept = [f"{paths.get(node, 'a removed one')}: {left[node][at][0]}" for node, at in choice.items()]
        return f"cut at call {n}, after {last}; " + ", ".join(kept)


@dataclass
class Disk:
    tree: dict[str, bytes | None]  # path -> content; None: a folder
    notes: list  # that held
    said: str

    def lay(self, folder: Path, store: dict[bytes, Path]) -> None:
        """Make the folder this disk, with links to files beside it: to be read, renamed, removed, no more."""
        folder.mkdir(exist_ok=True)
        for content in self.tree.values():
            if content is not None and content not in store:
                store[content] = folder.with_name(f"content-{len(store)}")
                store[content].write_bytes(content)
        there = set()
        for where, folders, names in os.walk(folder, topdown=False):  # what fits stays: removing is slow
            for name in (*names, *folders):
                path = os.path.relpath(os.path.join(where, name), folder)
                kept = self.tree.get(path, b"")
                if name in folders and path in self.tree:
                    there.add(path)
                elif name in folders:
                    os.rmdir(folder / path)
                elif path in self.tree and kept is not None and os.path.samefile(folder / path, store[kept]):
                    there.add(path)
                else:
                    os.unlink(folder / path)
        for path, content in self.tree.items():
            if path not in there:
                os.mkdir(folder / path) if content is None else os.link(store[content], folder / path)


def taken(path: Path) -> Node:
    """A folder as it lies there, all of it synced."""
    if not path.is_dir():
        content = path.read_bytes()
        return File(content, content)
    found = {name: taken(path / name) for name in sorted(os.listdir(path)) if name != LEFT_OUT}
    return Folder(found, {**found})


def changed(names: dict, changes: list[dict]) -> dict:
    for change in changes:
        names = {name: node for name, node in (names | change).items() if node is not None}
    return names


def options(synced, changes: list) -> list[tuple[str, bytes | dict]]:
    """What may be there of a file or folder; all of it first, nothing that was not synced last."""
    if isinstance(synced, dict):
        count = len(changes)
        return [(f"{n} of {count} names", changed(synced, changes[:n])) for n in range(count, -1, -1)]
    whole = changes[-1]
    same = len(os.path.commonprefix([synced, whole]))
    half = same + (len(whole) - same) // 2
    found = {
        "all": whole,
        "half": whole[:half],
        "zeros": whole[:same] + bytes(len(whole) - same),
        "half of it zeros": whole[:same] + bytes(half - same) + whole[half:],
        "as synced": synced,
    }
    return list({content: (said, content) for said, content in reversed(found.items())}.values())[::-1]


def chosen(left: dict, most: int, chance: random.Random) -> Iterator[dict]:
    """Which option of each: all combinations, or the corners and some at random."""
    counts = {node: len(found) for node, found in left.items()}
    total = 1
    for count in counts.values():
        total *= count
    if total <= most:
        for places in itertools.product(*map(range, counts.values())):
            yield dict(zip(counts, places))
        return
    ends = [dict.fromkeys(counts, 0), {node: count - 1 for node, count in counts.items()}]
    corners = [*ends]
    corners += [end | {node: at} for end in ends for node, count in counts.items() for at in range(count)]
    chance.shuffle(corners)
    yield from ends
    yield from corners[: most // 2]
    for _ in range(most // 2):
        yield {node: chance.randrange(count) for node, count in counts.items()}


def reachable(root: Node, synced: dict, pending: dict) -> Iterator[Node]:
    """What may be found from here after a cut."""
    yield root
    if isinstance(root, Folder):
        below = [synced.get(root, root.synced), *pending.get(root, [])]
        for node in {node: None for names in below for node in names.values() if node is not None}:
            yield from reachable(node, synced, pending)


def laid(node: Node, content=lambda node: node.content, path: str = "") -> dict[str, bytes | None]:
    """Everything below, by its path."""
    if isinstance(node, File):
        return {path: content(node)}
    found = {path: None} if path else {}
    for name, one in sorted(content(node).items()):
        found |= laid(one, content, f"{path}/{name}".lstrip("/"))
    return found


def everything(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Nodes that are there now."""
    yield path or "the folder", node
    if isinstance(node, Folder):
        for name, one in node.content.items():
            yield from everything(one, f"{path}/{name}".lstrip("/"))
