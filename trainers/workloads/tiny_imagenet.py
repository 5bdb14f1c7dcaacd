"""Tiny-ImageNet-200 with torchvision's ResNet-18."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.tasks.images import ImageOptions, ImageTask
from relaunch.trainers.workloads import Workload, setting
from relaunch.trainers.workloads.cifar10 import SHORT


@dataclass(frozen=True, kw_only=True)
class Options(ImageOptions):
    stem: Literal["imagenet", "small"] = setting(
        "imagenet", "first layers: torchvision's 7x7 stride 2, or 3x3 for small images"
    )


def model(config, sizes):
    from relaunch.models.resnet import resnet18
    from relaunch.models.whitened import Whitened

    if config.arch == "whitened":
        if config.options.stem != Options.stem:
            what = f"--stem {config.options.stem} is resnet18's, and whitened has a first layer of its own"
            raise Failure(USAGE, what, "leave one of them out")
        return Whitened(sizes.shape[0], sizes.outputs, (32, 64, 128, 256), stride=2)
    return resnet18(sizes.outputs, sizes.shape[0], config.options.stem)


WORKLOAD = Workload(
    name="tiny_imagenet",
    about="ResNet-18 on Tiny-ImageNet's 64x64 photographs of 200 classes",
    task=ImageTask(),
    data="tiny_imagenet",
    archs=("resnet18", "whitened"),
    options=Options,
    model=model,
    # the lab's recipe (SGD with momentum, 15 epochs), with a schedule that uses them: He et al.'s 0.1 per 256
    defaults=dict(
        epochs=15,
        batch_size=128,
        optimizer="sgd",
        lr=0.05,
        schedule="cosine",
        warmup_steps=100,
        momentum=0.9,
        weight_decay=5e-4,
        crop=8,
        flip=True,
    ),
    # pytorch/examples' imagenet/main.py, but for its random crops of another size: images stay as packed
    presets={
        "example": dict(
            epochs=90,
            batch_size=256,
            lr=0.1,
            schedule="step",
            step_size=30,
            gamma=0.1,
            warmup_steps=0,
            momentum=0.9,
            weight_decay=1e-4,
            crop=0,
            flip=True,
            normalise="imagenet",
        ),
        # cifar10's recipe of that name, with a fourth group of convolutions and progressive sizes
        "fast": SHORT
        | dict(
            arch="whitened",
            epochs=8,
            half_size_epochs=3,
            batch_size=125,
            lr=0.04,
            warmup_steps=0,
            label_smoothing=0.1,
            crop=6,
            flip=True,
            flip_alternating=True,
        ),
    },
)
