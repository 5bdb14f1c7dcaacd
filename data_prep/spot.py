"""A cheap look at packed arrays when a training begins: that nobody has changed them since they were packed.

    check(packed)                    # times; what looks changed is hashed whole
    compare(packed, look(packed))    # and, of a run that goes on, a hash of sampled pages

Sizes are compared wherever a set is opened; `relaunch prep NAME --verify`, and `--verify-data`, hash it all.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any

from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.files import open_plain, sha256
from relaunch.data_prep.packed import Packed, verify
from relaunch.data_prep.talk import tell

PAGES, PAGE = 64, 4096  # of each array, from its first to its last: milliseconds, also on a file server


def check(packed: Packed, whole: bool = False) -> None:
    """Failure 65 for an array that is not as it was packed: of all if `whole`, else of what looks changed."""
    if whole:
        return verify(packed)
    written = os.stat(packed.path / "meta.json").st_mtime_ns  # the last thing that prep writes
    for name, facts in packed.meta["arrays"].items():
        path = packed.path / name
        if path.stat().st_mtime_ns <= written:
            continue
        tell(f"relaunch: {path} is newer than its meta.json: copied, or changed; hashing it", sys.stderr)
        if sha256(path) != facts["sha256"]:
            raise changed(packed, name)


def look(packed: Packed) -> dict[str, Any]:
    """What a run keeps of its data, for `compare`: the same for equal sets, wherever they lie."""
    arrays = {
        name: {"shape": facts["shape"], "sha256": facts["sha256"], "pages": _pages(packed, name)}
        for name, facts in packed.meta["arrays"].items()
    }
    return {"classes": _classes(packed), "arrays": arrays}


def compare(packed: Packed, before: dict[str, Any] | None) -> None:
    """Failure 65 if a sampled page is not as `look` saw it. A run of an older version knows of none."""
    for name, facts in (before or {"arrays": {}})["arrays"].items():
        if name in packed.meta["arrays"] and facts["pages"] != _pages(packed, name):
            raise changed(packed, name)


def differences(packed: Packed, before: dict[str, Any] | None) -> str:
    """What is another than `look` saw, in words; empty if that is not known."""
    if before is None:
        return ""
    words, now = [], packed.meta["arrays"]
    if _classes(packed) != before["classes"]:
        words.append(f"its {len(packed.classes)} classes are not the {before['classes']['count']} of then")
    for name in sorted(before["arrays"].keys() | now.keys()):
        if name not in now:
            words.append(f"it lacks {name}")
        elif name not in before["arrays"]:
            words.append(f"{name} is new")
        elif (then := before["arrays"][name])["shape"] != now[name]["shape"]:
            words.append(f"{name} is {_shape(now[name])} and was {_shape(then)}")
        elif then["sha256"] != now[name]["sha256"]:
            words.append(f"{name} has other contents")
    return "; ".join(words) or "it was packed by another schema"


def changed(packed: Packed, name: str) -> Failure:
    what = f"{packed.path / name} was changed after it was packed"
    return Failure(DATA, what, f"put it back, or remove {packed.path} and prepare it again")


def _classes(packed: Packed) -> dict[str, Any]:
    names = "\n".join(packed.classes).encode()
    return {"count": len(packed.classes), "sha256": hashlib.sha256(names).hexdigest()}


def _shape(facts: dict[str, Any]) -> str:
    return "x".join(f"{n}" for n in facts["shape"])


def _pages(packed: Packed, name: str) -> str:
    """SHA-256 of PAGES pages, evenly spread over a file."""
    digest = hashlib.sha256()
    with open_plain(packed.path / name) as f:
        last = max(0, os.fstat(f.fileno()).st_size - PAGE)
        for place in sorted({last * i // (PAGES - 1) for i in range(PAGES)}):
            digest.update(os.pread(f.fileno(), PAGE, place))
    return digest.hexdigest()
