"""Word-level language modelling with the Transformer of pytorch/examples."""

from __future__ import annotations

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.tasks.text import TextOptions, TextTask
from relaunch.trainers.workloads import Workload


def model(config, sizes):
    from relaunch.models.rotary import RotaryLM
    from relaunch.models.transformer import TransformerLM

    o = config.options
    if config.arch == "rotary" and o.emsize // o.nhead % 2:
        what = (
            f"--arch rotary turns pairs of numbers, and each of --nhead {o.nhead} of --emsize {o.emsize} has"
        )
        raise Failure(USAGE, f"{what} {o.emsize // o.nhead}", "choose an even share")
    sides = (o.emsize, o.nhead, o.nhid, o.nlayers)
    made = {"transformer": TransformerLM, "rotary": RotaryLM}[config.arch]
    return made(sizes.outputs, *sides, o.dropout, o.tied, o.encoder_dropout)


WORKLOAD = Workload(
    name="wikitext2",
    about="a word-level Transformer language model on WikiText-2 (pytorch/examples)",
    task=TextTask(),
    data="wikitext2",
    archs=("transformer", "rotary"),
    options=TextOptions,
    model=model,
    # pytorch/examples' settings but for the rate: theirs (20) does not train a Transformer, 5 does
    defaults=dict(
        epochs=10,
        batch_size=20,
        eval_batch_size=10,
        optimizer="sgd",
        lr=5.0,
        schedule="step",
        gamma=0.7,
        momentum=0.0,
        clip=0.25,
        log_interval=200,
    ),
    # the same in their model, too: its positions drop --dropout, its encoder's layers nn.Transformer's 0.1
    presets={
        "example": dict(dropout=0.2, encoder_dropout=0.1),
        "best": dict(
            arch="rotary",
            epochs=15,
            batch_size=64,
            eval_batch_size=64,
            emsize=512,
            nhid=2048,
            nlayers=8,
            nhead=8,
            bptt=128,
            context=64,
            dropout=0.4,
            encoder_dropout=0.2,
            tied=True,
            optimizer="muon",
            lr=2e-3,
            momentum=0.95,
            weight_decay=0.1,
            schedule="cosine",
            warmup_steps=200,
            ema=0.998,
            clip=1.0,
        ),
    },
)
