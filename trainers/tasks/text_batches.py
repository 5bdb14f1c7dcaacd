"""Word-level text: batches as columns of one long stream, one scored row per word, and text that is drawn.

batches = TextTask().batches(config, packed, device, rank=0, world=1)
words, targets = batches.batch(step=0, micro=0)    # [bptt, B/world]
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.packed import Packed
from relaunch.trainers.config import RunConfig
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.sample_batches import class_columns
from relaunch.trainers.tasks.text import TextTask, context, perplexity


def predicted(model: Callable, words: Tensor, count: int) -> Tensor:
    """The logits [count,B,words] of the last `count` of words [T,B]."""
    return model(words) if len(words) == count else model(words, last=count)


class TextBatches:
    """The training split (see task.Batches)."""

    sums = 2

    def __init__(
        self, task: TextTask, config: RunConfig, packed: Packed, device: torch.device, rank: int, world: int
    ):
        self.task, self.config, self.rank, self.world = task, config, rank, world
        self.bptt, self.context = config.options.bptt, context(config)
        length, tokens = task.length(config, packed.sizes), packed.tokens("train")
        columns = tokens[: length * config.batch_size].reshape(config.batch_size, length)
        # what lies before a column is the end of the one before it; before the first one, that of the text
        places = np.arange(config.batch_size)[:, None] * length + np.arange(-self.context, 0)
        columns = np.concatenate([tokens[places % columns.size], columns], 1).astype(np.int64)
        rows = np.ascontiguousarray(columns.T)
        self.stream = torch.from_numpy(rows).to(device)  # [context + length, columns]
        self.steps_per_epoch = task.steps_per_epoch(config, packed.sizes)

    def batch(self, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """Words int64 [context + bptt, B] and next words [bptt, B]: this rank's columns, never shuffled."""
        i = step % self.steps_per_epoch * self.bptt
        part = order.share(self.config.batch_size, self.world, self.config.grad_accum_steps, self.rank, micro)
        end = min(i + self.bptt, len(self.stream) - self.context - 1)
        words = self.stream[i : self.context + end, part]
        return words, self.stream[self.context + i + 1 : self.context + end + 1, part]

    def loss(self, model: Callable, batch: tuple[Tensor, ...]) -> tuple[Tensor, tuple]:
        words, targets = batch
        loss = self.task.loss(self.config, predicted(model, words, len(targets)), targets)
        return loss, (loss.detach(), targets.numel())

    def add(self, sums: list[float], seen: list[tuple]) -> None:
        """To [nll, words]."""
        losses, words = zip(*seen)
        for loss, n in zip(torch.stack(losses).tolist(), words):
            sums[0] += loss * n
            sums[1] += n

    def metrics(self, sums: list[float]) -> dict[str, float]:
        return perplexity(sums[0] / sums[1])

    def look(self) -> dict:
        return {}


class TextScorer:
    """A split in windows of bptt words, a row for each word but the first (see task.Scorer).

    Each is read with the words before it that --context asks for. The first windows, which have fewer, and
    the shorter last one are batches of their own.
    """

    def __init__(self, config: RunConfig, packed: Packed, split: str, device: torch.device):
        if packed.splits[split] < 2:
            raise Failure(
                USAGE,
                f"split {split} of {packed.name} has one word, so there is none to predict",
                "choose another split",
            )
        self.device, self.bptt, self.size = device, config.options.bptt, config.eval_batch_size
        self.context = context(config)
        self.tokens = torch.from_numpy(packed.tokens(split).astype(np.int64))
        self.rows = len(self.tokens) - 1
        self.windows = self.rows // self.bptt  # whole ones
        self.early = min(self.windows, -(-self.context // self.bptt))
        self.batches = self.early + -(-(self.windows - self.early) // self.size) + (self.rows % self.bptt > 0)

    def score(self, model: Callable, k: int) -> dict[str, np.ndarray]:
        """Rows of batch k, whose id is the word's position - 1."""
        first = k if k < self.early else self.early + (k - self.early) * self.size
        last = k + 1 if k < self.early else min(first + self.size, self.windows)
        if first < self.windows:
            start, end, width = first * self.bptt, last * self.bptt, self.bptt
        else:
            start, end = self.windows * self.bptt, self.rows
            width = end - start
        before = min(self.context, start)
        words = self.tokens[start - before : end].unfold(0, before + width, width).T.to(self.device)
        targets = self.tokens[start + 1 : end + 1].view(-1, width).T.to(self.device)
        logits = predicted(model, words, width)  # as large as all else together: not copied
        logits = logits.float().flatten(0, 1)
        columns = class_columns(logits, targets.flatten(), used_up=True)
        rows = {n: column.view(width, -1).T.flatten().cpu().numpy() for n, column in columns.items()}
        return {"id": np.arange(start, end)} | rows


def sample_text(
    module: nn.Module,
    packed: Packed,
    words: int,
    temperature: float,
    seed: int,
    prompt: str = "",
    bptt: int = 35,
) -> str:
    """The prompt, and `words` words drawn from softmax(logits / temperature) of the last `bptt` before each.

    Equal arguments give an equal text, and other random numbers stay as they were. What the vocabulary lacks
    of the prompt becomes <unk>. The text begins as a new line does. A model whose forward takes `last` is
    asked for its last position alone.
    """
    vocab = packed.vocab()
    index = {word: i for i, word in enumerate(vocab)}
    ids = [index[word if word in index else "<unk>"] for word in ("<eos> " + prompt).split()]
    device, training = next(module.parameters()).device, module.training
    generator = torch.Generator().manual_seed(order.key("generate", seed))
    only_last = {"last": True} if "last" in inspect.signature(type(module).forward).parameters else {}
    module.eval()
    with torch.no_grad():
        for _ in range(words):
            read = torch.tensor(ids[-bptt:], device=device)[:, None]
            logits = module(read, **only_last)[-1, 0].double().cpu()
            p = ((logits - logits.max()) / temperature).softmax(0)
            ids.append(int(torch.multinomial(p, 1, generator=generator)))
    module.train(training)
    return re.sub(" ?<eos> ?", "\n", " ".join(vocab[i] for i in ids[1:]))
