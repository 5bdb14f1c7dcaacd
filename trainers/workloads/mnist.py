"""Handwritten digits with the CNN of pytorch/examples."""

from __future__ import annotations

from relaunch.trainers.tasks.images import ImageOptions, ImageTask
from relaunch.trainers.workloads import Workload
from relaunch.trainers.workloads.cifar10 import SHORT


def model(config, sizes):
    from relaunch.models.cnn import MnistNet
    from relaunch.models.whitened import whitened_small

    make = {"cnn": MnistNet, "whitened_small": whitened_small}[config.arch]
    return make(channels=sizes.shape[0], classes=sizes.outputs)


WORKLOAD = Workload(
    name="mnist",
    about="a small CNN on MNIST's handwritten digits (pytorch/examples)",
    task=ImageTask(),
    data="mnist",
    archs=("cnn", "whitened_small"),
    sides={"cnn": range(28, 30)},
    options=ImageOptions,
    model=model,
    # pytorch/examples' mnist/main.py: Adadelta 1.0, x0.7 each epoch, batch 64, 14 epochs
    defaults=dict(
        epochs=14, batch_size=64, optimizer="adadelta", lr=1.0, schedule="step", gamma=0.7, momentum=0.0
    ),
    presets={
        # and its mean and deviation: our packed set's are those of its own training images
        "example": dict(normalise="0.1307:0.3081"),
        # above 99 % after one epoch: cifar10's recipe of that name, without mirroring
        "fast": SHORT
        | dict(arch="whitened_small", epochs=1, batch_size=125, lr=0.04, label_smoothing=0.1, crop=2),
    },
)
