"""Word-level text, read in columns of one long stream. Its batches are in text_batches.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.tasks.task import Facts
from relaunch.trainers.workloads import setting

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    emsize: int = setting(200, "size of the word embeddings", least=1)
    nhid: int = setting(200, "hidden units of each feed-forward layer", least=1)
    nlayers: int = setting(2, "Transformer layers", least=1)
    nhead: int = setting(2, "attention heads of each layer", least=1)
    bptt: int = setting(35, "words of a column that a step predicts", least=1)
    context: int = setting(
        0, "… and words before them that the model sees, too, in training and scoring", least=0
    )
    dropout: float = setting(0.2, "share of units dropped in training")
    encoder_dropout: float | None = setting(
        None, "… in the encoder's layers, where it differs (pytorch/examples: 0.1 whatever is asked)", least=0
    )
    tied: bool = setting(False, "share the weights of the embedding and the output layer")

    def __post_init__(self):
        if self.emsize % self.nhead:
            what = f"--emsize {self.emsize} does not divide by --nhead {self.nhead}"
            raise Failure(USAGE, what, "choose a multiple")
        for flag, share in (("--dropout", self.dropout), ("--encoder-dropout", self.encoder_dropout)):
            if share is not None and not 0 <= share < 1:
                raise Failure(USAGE, f"{flag} {share} is not between 0 and 1")
        if self.bptt + self.context > 5000:
            flags = f"--bptt {self.bptt}" + (f" with --context {self.context}" if self.context else "")
            raise Failure(USAGE, f"{flags} is beyond the 5000 positions that the model knows")


def context(config) -> int:
    """Words that the model sees before those it predicts. Options of one's own may have none of it."""
    return getattr(config.options, "context", 0)


def seen(config) -> int:
    """Words that the model sees at a time."""
    return config.options.bptt + context(config)


class TextTask:
    """Predicting each next word. The options of a workload that uses it have `bptt`."""

    kind = "text"
    labels = "any"
    facts = Facts(
        columns={"label": "int32", "pred": "int32", "confidence": "float32", "nll": "float32"},
        loss="nll",
        truth="label",
        guess="pred",
        sure="confidence",
        best=("nll", "min"),
        view="text",
        rows="words",
    )
    scores: Mapping[str, str] = {"nll": "min", "ppl": "min"}
    libraries: tuple[str, ...] = ()
    no_outputs = "a language model's would be words x vocabulary"

    def length(self, config, sizes) -> int:
        """Words of each column. Failure 64 where there is none to predict."""
        length = sizes.counts["train"] // config.batch_size
        if length < 2:
            what = f"--batch-size {config.batch_size} is too many columns for {sizes.counts['train']:,} "
            raise Failure(USAGE, f"{what}training words", "use a smaller one")
        return length

    def steps_per_epoch(self, config, sizes) -> int:
        return -(-(self.length(config, sizes) - 1) // config.options.bptt)

    def samples_done(self, config, sizes, step: int) -> int:
        """Words predicted in the first `step` steps, over all ranks."""
        epoch, i = divmod(step, self.steps_per_epoch(config, sizes))
        per_column = epoch * (self.length(config, sizes) - 1) + i * config.options.bptt
        return per_column * config.batch_size

    def example(self, config, sizes) -> Tensor:
        """int64 [bptt,1]."""
        import torch

        return torch.zeros(config.options.bptt, 1, dtype=torch.long)

    def inputs(self, config, sizes) -> dict:
        return {}

    def output_shape(self, config, sizes) -> tuple[int, ...] | None:
        return (config.options.bptt, 1, sizes.outputs)

    def batches(self, config, packed, device, rank, world):
        from relaunch.trainers.tasks.text_batches import TextBatches

        return TextBatches(self, config, packed, device, rank, world)

    def scorer(self, config, packed, split, device):
        from relaunch.trainers.tasks.text_batches import TextScorer

        return TextScorer(config, packed, split, device)

    def loss(self, config, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of outputs [bptt,B,words] and next words [bptt,B]."""
        from relaunch.trainers.tasks.next_word import next_word_loss

        return next_word_loss(outputs.flatten(0, 1), targets.flatten())

    def summarise(self, rows) -> dict[str, float]:
        """Exact mean over a split's rows in the order of their ids."""
        return perplexity(float(rows["nll"].astype("float64").mean()))

    def show(self, config, model, packed) -> dict[str, str]:
        from relaunch.trainers.tasks.text_batches import sample_text

        return {"generated": sample_text(model, packed, 60, 0.8, config.seed, bptt=seen(config))}


def perplexity(nll: float) -> dict[str, float]:
    """nll (nats a word) and its exponential."""
    return {"nll": nll, "ppl": math.exp(min(nll, 700.0))}
