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
    kind: str  # of data: images | arrays | text
    counts: dict[str, int]  # split -> samples: images, or words
    shape: tuple[int, ...]  # of one input as a model gets it: [C,H,W] of images; empty for text
    outputs: int  # classes, words of the vocabulary, or numbers to predict of each sample
    names: tuple[str, ...] = ()  # of the classes
    mean: tuple[
        float, ...
    ] = ()  # of train: per channel of images, 0..1; per feature of inputs [N,F], else one
    std: tuple[float, ...] = ()
    vocabulary: str = ""  # SHA-256 of vocab.txt
    numbers: bool = False  # whether labels are numbers to predict, and not classes
    target_mean: tuple[float, ...] = ()  # of train's numbers to predict
    target_std: tuple[float, ...] = ()

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
    shape = tuple(next(iter(meta["splits"].values()))["shape"])
    labels = meta["arrays"]["train/labels.npy"] if "train" in meta["splits"] else {"dtype": "int64"}
    targets = meta.get("targets", {"mean": (), "std": ()})
    numbers = labels["dtype"] == "float32"
    return Sizes(
        **about,
        shape=(shape[2], *shape[:2]) if meta["kind"] == "images" else shape,
        outputs=len(targets["mean"]) if numbers else len(meta["classes"]),
        names=tuple(meta["classes"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        numbers=numbers,
        target_mean=tuple(targets["mean"]),
        target_std=tuple(targets["std"]),
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
