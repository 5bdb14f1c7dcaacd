"""Which samples, in which order, with which randomness: functions of (seed, epoch, step, id), on any world.

Everything random in training is a hash of what it belongs to (SplitMix64's finalizer, Steele et al., OOPSLA
2014): there is no generator state to save, and library versions cannot change the order.
"""

from __future__ import annotations

import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
SALTS = {"order": 1, "augment": 2, "cutmix": 3, "dropout": 4, "init": 5, "generate": 6, "prepare": 7}


def key(purpose: str, *numbers: int) -> int:
    """A 64-bit key of (purpose, seed, epoch, …)."""
    h = SALTS[purpose]
    for n in numbers:
        h = (h + n + GOLDEN) & MASK
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & MASK
        h ^= h >> 31
    return h


def hashes(key: int, ids: np.ndarray) -> np.ndarray:
    """uint64 hash of each id under a key, of the ids' shape."""
    h = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN) + np.uint64(key)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def uniforms(key_: int, ids: np.ndarray, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each id: float64 [len(ids), count]."""
    lanes = ids.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
    return (hashes(key_, lanes) >> np.uint64(11)) * 2.0**-53


def permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The order of an epoch: int64 [samples], independent of world size and batch."""
    return np.argsort(hashes(key("order", seed, epoch), np.arange(samples)), kind="stable")


def share(batch: int, world: int, accumulation: int, rank: int, micro: int) -> slice:
    """The part of a global batch that is micro-batch `micro` of `rank`: each rank's part is consecutive."""
    size = batch // (world * accumulation)
    start = (rank * accumulation + micro) * size
    return slice(start, start + size)
