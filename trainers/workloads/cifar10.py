"""CIFAR-10 with the tutorial's network and three better ones."""

from __future__ import annotations

from relaunch.trainers.tasks.images import ImageOptions, ImageTask
from relaunch.trainers.workloads import Workload


def model(config, sizes):
    from relaunch.models.cnn import Net, NetBN, SimpleCNN
    from relaunch.models.resnet import resnet18
    from relaunch.models.whitened import Whitened, whitened_small

    classes, channels = sizes.outputs, sizes.shape[0]
    if config.arch == "resnet18":
        return resnet18(classes, channels, stem="small")
    if config.arch == "whitened_small":
        return whitened_small(channels, classes)
    nets = {"net": Net, "net_bn": NetBN, "simple_cnn": SimpleCNN, "whitened": Whitened}
    return nets[config.arch](channels, classes)


# of short trainings, also other workloads': Muon, and a rate that falls to 0
SHORT = dict(optimizer="muon", momentum=0.6, weight_decay=0.01, schedule="linear")
FAST = SHORT | dict(lr=0.06, label_smoothing=0.2, crop=2, flip=True, flip_alternating=True)

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
    presets={
        # airbench's ideas (Jordan, 2024) in a network for a CPU, and with its own network
        "fast": FAST | dict(arch="whitened_small", epochs=4, batch_size=250),
        # a decay that keeps the weights' size, as airbench does by normalising them: without it they overfit
        "airbench": FAST | dict(arch="whitened", epochs=8, batch_size=1000, weight_decay=0.3),
        # PyTorch's "Training a Classifier" tutorial, as published
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
        ),
    },
)
