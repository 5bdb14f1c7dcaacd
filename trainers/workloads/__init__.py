"""What can be trained: one file here per workload, whose name is the registry.

A workload file defines `WORKLOAD = Workload(...)`. It imports torch only inside functions, so that the
command line can read defaults and help without it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from relaunch.data_prep.errors import USAGE, Failure


def setting(default, help: str, short: str | None = None, **facts):
    """A dataclass field with its line of documentation, which is also its `--help`.

    `least`: the smallest value that it takes. `before`: its value in runs that were written before there was
    this field, where that is not the default.
    """
    return field(default=default, metadata={"help": help, "short": short, **facts})


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    crop: int = setting(0, "train on images shifted by up to this many pixels (zeros come in)", least=0)
    flip: bool = setting(False, "train on images mirrored half of the time")
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes (Szegedy et al., 2016)"
    )
    cutmix: float = setting(
        0.0, "share of training images that get a patch of another (CutMix, Yun et al., 2019)"
    )

    def __post_init__(self):
        for name, flag in (("label_smoothing", "--label-smoothing"), ("cutmix", "--cutmix")):
            if not 0 <= getattr(self, name) <= 1:
                raise Failure(USAGE, f"{flag} {getattr(self, name)} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    emsize: int = setting(200, "size of the word embeddings", least=1)
    nhid: int = setting(200, "hidden units of each feed-forward layer", least=1)
    nlayers: int = setting(2, "Transformer layers", least=1)
    nhead: int = setting(2, "attention heads of each layer", least=1)
    bptt: int = setting(35, "words that the model sees at a time", least=1)
    dropout: float = setting(0.2, "share of units dropped in training")
    tied: bool = setting(False, "share the weights of the embedding and the output layer")

    def __post_init__(self):
        if self.emsize % self.nhead:
            what = f"--emsize {self.emsize} does not divide by --nhead {self.nhead}"
            raise Failure(USAGE, what, "choose a multiple")
        if not 0 <= self.dropout < 1:
            raise Failure(USAGE, f"--dropout {self.dropout} is not between 0 and 1")
        if self.bptt > 5000:
            raise Failure(USAGE, f"--bptt {self.bptt} is beyond the 5000 positions that the model knows")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Dataset + model + loss + scored rows + defaults."""

    name: str
    about: str  # first line: one sentence for the list of workloads
    kind: str  # of data: "images" or "text", which tasks/images.py or tasks/text.py batches and scores
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
