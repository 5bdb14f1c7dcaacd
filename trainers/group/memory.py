"""What the process does with memory that a training step gives back."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
NEVER = 2**31 - 1  # bytes at the heap's end from which on they go back to the kernel
LARGE = 32 << 20  # bytes: the most that M_MMAP_THRESHOLD takes
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def keep(apart: bool = False) -> bool:
    """Keep what is freed for the next step; whether glibc does so now.

    By default it gives every large tensor back to the kernel, which clears its pages one by one when the next
    step asks for them: 6,000 page faults a step of mnist, 95,000 of wikitext2, a tenth to a fifth of their
    time. Numbers stay what they are. Whoever sets malloc's own variables (mallopt(3)) has decided already.

    `apart`: what is larger than 32 MB, as a vocabulary's scores are, goes back all the same, and comes anew
    in pages of 2 MB, of which few are to be cleared. Among smaller blocks its place is soon cut by one of
    them, and the process grows by another: an evaluation of wikitext2 took 1.1 GB so. To be called before
    torch's first tensor, when it reads its variable.
    """
    theirs = any(name.startswith("MALLOC_") for name in os.environ)
    if theirs or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl and macOS have none
    if not mallopt or not mallopt(M_TRIM_THRESHOLD, NEVER):
        return False
    if not apart or not huge_pages():
        return bool(mallopt(M_MMAP_MAX, 0))
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for them
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE))


def huge_pages() -> bool:
    """Whether the kernel gives pages of 2 MB to those that ask."""
    try:
        return "[never]" not in HUGE_PAGES.read_text()
    except OSError:
        return False
