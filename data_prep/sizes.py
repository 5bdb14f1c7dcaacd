"""What a model needs to know of a data set: facts of its meta.json alone, of its arrays nothing.

sizes(open_packed("cifar10", "data").meta).shape     # (3, 32, 32)
published("cifar10")                                 # the same, where it is not packed here
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from relaunch.data_prep.errors import DATA, Failure


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of one packed set. A checkpoint's state.json keeps them, too."""

    data: str  # its name
    kind: str  # of data: images | text
    counts: dict[str, int]  # split -> samples: images, or words
    shape: tuple[int, ...]  # of one input as a model gets it: [C,H,W]; empty for text
    outputs: int  # classes, or words of the vocabulary
    names: tuple[str, ...] = ()  # of the classes
    mean: tuple[float, ...] = ()  # per channel of the train images, 0..1
    std: tuple[float, ...] = ()
    vocabulary: str = ""  # SHA-256 of vocab.txt

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Sizes:
        """What `to_json` gave. TypeError for anything else."""
        return Sizes(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def sizes(meta: dict[str, Any]) -> Sizes:
    """Of a packed set's meta.json."""
    counts = {split: facts["count"] for split, facts in meta["splits"].items()}
    about = {"data": meta["name"], "kind": meta["kind"], "counts": counts}
    if meta["kind"] == "text":
        vocab = meta["arrays"]["vocab.txt"]
        return Sizes(**about, shape=(), outputs=vocab["shape"][0], vocabulary=vocab["sha256"])
    height, width, channels = next(iter(meta["splits"].values()))["shape"]
    return Sizes(
        **about,
        shape=(channels, height, width),
        outputs=len(meta["classes"]),
        names=tuple(meta["classes"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
    )


PUBLISHED: dict[str, tuple[tuple[int, ...], int, dict[str, int]]] = {
    "mnist": ((1, 28, 28), 10, {"train": 60_000, "test": 10_000}),
    "digits": ((1, 28, 28), 10, {"train": 1_437, "test": 360}),
    "cifar10": ((3, 32, 32), 10, {"train": 50_000, "test": 10_000}),
    "tiny_imagenet": ((3, 64, 64), 200, {"train": 100_000, "val": 10_000}),
    "wikitext2": ((), 33_278, {"train": 2_088_628, "val": 217_646, "test": 245_569}),
}


def published(data: str) -> Sizes:
    """Of a set of ours that is not packed here, as its owners publish it. Failure 65 for any other."""
    if data not in PUBLISHED:
        raise Failure(DATA, f"the sizes of '{data}' are not known before it is packed", "relaunch prep it")
    shape, outputs, counts = PUBLISHED[data]
    if not shape:
        return Sizes(data=data, kind="text", counts=counts, shape=shape, outputs=outputs)
    grey = (0.5,) * shape[0]
    return Sizes(data=data, kind="images", counts=counts, shape=shape, outputs=outputs, mean=grey, std=grey)
