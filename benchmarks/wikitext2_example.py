"""`relaunch train wikitext2 --preset example` against pytorch/examples' word language model (Transformer).

    python benchmarks/wikitext2_example.py [--rounds 9] [--threads 1] [--epoch]

Theirs is restated from the example's published settings: the stream in 20 columns, 35 words at a time, a
Transformer encoder of 2 layers, 2 heads and 200 units whose output is a log-softmax over the vocabulary, the
negative log-likelihood, gradients clipped at 0.25, each parameter moved by hand, and the loss read after each
step. The rate is 5 on both sides: 20, as published, does not train it. Both read the packed set's words. The
figure is our time as a multiple of theirs, which computes in float32.

With --epoch the blocks are an epoch together, some twenty minutes of each side: then the losses, which are
means over its second half, tell whether they end up alike.

| ours in | before | must reach |
|---|---|---|
| float32 | 1.03 | 0.72 |
| bfloat16 on the CPU (--config cpu_bf16) | - | 0.45, with an equal loss after an epoch |
"""

from __future__ import annotations

import ours
from side_by_side import BF16, Bench, Child, program

COLUMNS, LENGTH, SIZE, HEADS, LAYERS = 20, 35, 200, 2, 2
RATE, CLIP, DROPOUT = 5.0, 0.25, 0.2


def theirs(turns, root, threads: int) -> None:
    import math
    import warnings

    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    from relaunch.data_prep.packed import open_packed

    torch.set_num_threads(threads)
    torch.manual_seed(1111)
    warnings.filterwarnings("ignore", "enable_nested_tensor")  # of their encoder
    packed = open_packed("wikitext2", root)
    words = packed.sizes.outputs

    class Positions(nn.Module):
        def __init__(self, longest=5000):
            super().__init__()
            self.dropout = nn.Dropout(DROPOUT)
            place = torch.arange(longest, dtype=torch.float)[:, None]
            angle = place * torch.exp(torch.arange(0, SIZE, 2).float() * (-math.log(10000.0) / SIZE))
            pe = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
            self.register_buffer("pe", pe[:, None])

        def forward(self, x):
            return self.dropout(x + self.pe[: len(x)])

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.mask = None
            self.input_emb, self.positions = nn.Embedding(words, SIZE), Positions()
            self.encoder = nn.Transformer(SIZE, HEADS, LAYERS, 1, SIZE).encoder  # its dropout stays at 0.1
            self.decoder = nn.Linear(SIZE, words)
            nn.init.uniform_(self.input_emb.weight, -0.1, 0.1)
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
            nn.init.zeros_(self.decoder.bias)

        def forward(self, x):
            if self.mask is None or len(self.mask) != len(x):
                self.mask = torch.log(torch.tril(torch.ones(len(x), len(x))))
            x = self.positions(self.input_emb(x) * math.sqrt(SIZE))
            return F.log_softmax(self.decoder(self.encoder(x, mask=self.mask)), dim=-1)

    stream = torch.from_numpy(np.array(packed.tokens("train")).astype(np.int64))
    columns = stream[: len(stream) // COLUMNS * COLUMNS].view(COLUMNS, -1).t().contiguous()
    model, criterion = Model().train(), nn.NLLLoss()

    def windows():
        while True:
            for i in range(0, len(columns) - 1, LENGTH):
                end = min(i + LENGTH, len(columns) - 1)
                yield columns[i:end], columns[i + 1 : end + 1].reshape(-1)

    batches = windows()

    def steps(n: int) -> float:
        total = 0.0
        for _ in range(n):
            inputs, targets = next(batches)
            model.zero_grad()
            loss = criterion(model(inputs).view(-1, words), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            for p in model.parameters():
                p.data.add_(p.grad, alpha=-RATE)
            total += loss.item()
        return total / n

    turns(steps=steps)


def pair(bench: Bench, precision: str = "no") -> tuple[Child, Child]:
    argv = f"wikitext2 --preset example --batch-size {COLUMNS} --bptt {LENGTH} --lr {RATE} --clip {CLIP}"
    return (
        Child(ours.train, argv, bench.root, bench.threads, precision),
        Child(theirs, bench.root, bench.threads),
    )


def measure(bench: Bench) -> None:
    epoch = (bench.packed("wikitext2").splits["train"] // COLUMNS - 1) // LENGTH
    units = epoch // bench.args.rounds if bench.args.epoch else 0
    for what, precision, before, bound in (("fp32", "no", "1.03", 0.72), ("bf16", "bf16", "", 0.45)):
        if precision == "bf16" and not BF16.exists():
            bench.skip(what, f"there is no config {BF16.name}")
            continue
        mine, script = pair(bench, precision)
        with mine, script:
            sides = {"ours": mine.side(), "theirs": script.side()}
            bench.compare(what, sides, COLUMNS * LENGTH, bound=bound, before=before, units=units)


if __name__ == "__main__":
    program(measure, __doc__, {"--epoch": dict(action="store_true", help="blocks that make an epoch")})
