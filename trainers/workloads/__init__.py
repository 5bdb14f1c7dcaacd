"""What can be trained: one file here per workload, whose name is the registry.

A workload file defines `WORKLOAD = Workload(...)`. It imports torch only inside functions, so that the command line
can read defaults and help without it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from relaunch.data_prep.errors import USAGE, Failure


def setting(default, help: str, short: str | None = None):
    """A dataclass field with its line of documentation, which is also its `--help`."""
    return field(default=default, metadata={"help": help, "short": short})


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    crop: int = setting(0, "train on images shifted by up to this many pixels (zeros come in)")
    flip: bool = setting(False, "train on images mirrored half of the time")
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes (Szegedy et al., 2016)"
    )
    cutmix: float = setting(
        0.0, "share of training images that get a patch of another (CutMix, Yun et al., 2019)"
    )

    def __post_init__(self):
        for name in ("label_smoothing", "cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise Failure(
                    USAGE, f"--{name.replace('_', '-')} {getattr(self, name)} is not between 0 and 1"
                )
        if self.crop < 0:
            raise Failure(
                USAGE,
                f"--crop {self.crop} is negative",
                "it is a number of pixels; 0 leaves images as they are",
            )


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    emsize: int = setting(200, "size of the word embeddings")
    nhid: int = setting(200, "hidden units of each feed-forward layer")
    nlayers: int = setting(2, "Transformer layers")
    nhead: int = setting(2, "attention heads of each layer")
    bptt: int = setting(35, "words that the model sees at a time")
    dropout: float = setting(0.2, "share of units dropped in training")
    tied: bool = setting(False, "share the weights of the embedding and the output layer")

    def __post_init__(self):
        for name in ("emsize", "nhid", "nlayers", "nhead", "bptt"):
            if getattr(self, name) < 1:
                raise Failure(USAGE, f"--{name} {getattr(self, name)} is too small", "it must be at least 1")
        if self.emsize % self.nhead:
            raise Failure(
                USAGE, f"--emsize {self.emsize} does not divide by --nhead {self.nhead}", "choose a multiple"
            )
        if not 0 <= self.dropout < 1:
            raise Failure(USAGE, f"--dropout {self.dropout} is not between 0 and 1")
        if self.bptt > 5000:
            raise Failure(USAGE, f"--bptt {self.bptt} is beyond the 5000 positions that the model knows")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Dataset + model + loss + scored rows + defaults."""

    name: str
    about: str  # first line: one sentence for the list of workloads
    kind: str  # of data: "images" or "text", which trainers/images.py or trainers/text.py batches and scores
    data: str  # name of its packed data set
    archs: tuple[str, ...]  # the first is the default
    options: type  # frozen dataclass of the workload's own settings
    model: Callable  # (RunConfig, Packed) -> nn.Module
    defaults: dict = field(default_factory=dict)  # over RunConfig's and options' own
    presets: dict[str, dict] = field(default_factory=dict)


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def nearest(word: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, 1)), None)


@cache
def load(name: str) -> Workload:
    """The workload of that name. Failure 64 names the nearest one."""
    if name not in names():
        near = nearest(name, names())
        raise Failure(
            USAGE,
            f"unknown workload {name!r}",
            f"did you mean {near}?" if near else f"known: {', '.join(names())}",
        )
    return importlib.import_module(f"{__name__}.{name}").WORKLOAD
