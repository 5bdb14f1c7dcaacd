"""A classifier with a loss of its own: the focal loss, for classes of which some are rare (Lin et al., 2017).

    relaunch train ./examples/focal.py --data cifar10 --focusing 2

The loss differs and nothing else: predictions, metrics and diff are those of every classifier, and the nll
that is scored stays the plain one, so that runs with other losses compare.
"""

from __future__ import annotations

from dataclasses import dataclass

from relaunch.trainers.tasks.images import ImageTask
from relaunch.trainers.workloads import Workload, setting


@dataclass(frozen=True, kw_only=True)
class Options:
    focusing: float = setting(
        2.0, "how little sure samples count; 0 is cross-entropy (the paper: 2)", least=0
    )
    crop: int = setting(0, "train on images shifted by up to this many pixels (zeros come in)", least=0)
    flip: bool = setting(False, "train on images mirrored half of the time")


class FocalTask(ImageTask):
    def loss(self, config, outputs, target):
        from torch.nn.functional import cross_entropy

        nll = cross_entropy(outputs, target, reduction="none")
        return ((1 - (-nll).exp()) ** config.options.focusing * nll).mean()


def model(config, sizes):
    from relaunch.models.cnn import NetBN

    return NetBN(sizes.shape[0], sizes.outputs)


WORKLOAD = Workload(
    name="focal",
    about="cifar10's net_bn, trained with the focal loss",
    task=FocalTask(),
    data="cifar10",
    archs=("net_bn",),
    options=Options,
    model=model,
    # cifar10's own, so that the loss is the only difference
    defaults=dict(
        epochs=10,
        batch_size=128,
        optimizer="sgd",
        lr=0.1,
        schedule="one-cycle",
        weight_decay=5e-4,
        crop=4,
        flip=True,
    ),
)
