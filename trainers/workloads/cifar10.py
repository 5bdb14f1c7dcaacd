"""CIFAR-10 with the tutorial's network and three better ones."""

from __future__ import annotations

from relaunch.trainers.tasks.images import ImageOptions, ImageTask
from relaunch.trainers.workloads import Workload


def model(config, sizes):
    from relaunch.models.cnn import Net, NetBN, SimpleCNN
    from relaunch.models.resnet import resnet18

    classes, channels = sizes.outputs, sizes.shape[0]
    if config.arch == "resnet18":
        return resnet18(classes, channels, stem="small")
    if config.arch.startswith("whitened"):
        from relaunch.models.whitened import Whitened

        small = config.arch == "whitened_small"
        return Whitened(channels, classes, *(((32, 64, 128), 2) if small else ((64, 256, 256), 1)))
    return {"net": Net, "net_bn": NetBN, "simple_cnn": SimpleCNN}[config.arch](channels, classes)


WORKLOAD = Workload(
    name="cifar10",
    about="a CNN on CIFAR-10's small photographs: the tutorial's net, or better ones",
    task=ImageTask(),
    data="cifar10",
    archs=("net_bn", "net", "simple_cnn", "resnet18", "whitened", "whitened_small"),
    sides=dict.fromkeys(("net_bn", "net", "simple_cnn"), range(32, 36)),
    options=ImageOptions,
    model=model,
    # one-cycle SGD with momentum learns all four well in ten epochs at this batch
    defaults=dict(
        epochs=10,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        schedule="one-cycle",
        momentum=0.9,
        weight_decay=5e-4,
        crop=4,
        flip=True,
    ),
    # PyTorch's "Training a Classifier" tutorial, as published
    presets={
        "tutorial": dict(
            arch="net",
            epochs=2,
            batch_size=4,
            lr=0.001,
            schedule="constant",
            momentum=0.9,
            weight_decay=0.0,
            crop=0,
            flip=False,
            normalise="half",
            log_interval=2000,
            save_every=12500,
        )
    },
)
