"""A denoising autoencoder: noise comes into the images, and they are to come out (Vincent et al., 2008).

    relaunch train ./examples/denoise.py --data digits --noise 0.8

There are no classes here: the targets are the clean images, and a scored row is one image's loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from relaunch.trainers.tasks.images import ImageTask
from relaunch.trainers.tasks.task import Facts
from relaunch.trainers.workloads import Workload, setting


@dataclass(frozen=True, kw_only=True)
class Options:
    noise: float = setting(0.5, "deviation of the noise; the images' own is 1", least=0)
    width: int = setting(16, "channels of the first layer", least=1)


class DenoiseTask(ImageTask):
    facts = Facts(columns={"loss": "float32"}, loss="loss", view="images", rows="images")

    def prepare(self, config, x, labels, random, training):
        """Noisy images [B,C,H,W], and the clean ones as targets."""
        uniform = random(x[0].numel()).view_as(x) - 0.5  # its deviation is 1/sqrt(12)
        return x + config.options.noise * 12**0.5 * uniform, x

    def loss(self, config, outputs, target):
        return (outputs - target).square().mean()

    def columns(self, config, outputs, target):
        return {"loss": (outputs - target).square().flatten(1).mean(1)}

    def output_shape(self, config, sizes):
        return 1, *sizes.shape


def model(config, sizes):
    from torch import nn

    channels, width = sizes.shape[0], config.options.width
    down, up = dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=4, stride=2, padding=1)
    return nn.Sequential(  # sides must divide by 4
        nn.Conv2d(channels, width, **down),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, **down),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, **up),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, **up),
    )


WORKLOAD = Workload(
    name="denoise",
    about="a convolutional autoencoder that takes noise out of images",
    task=DenoiseTask(),
    data="mnist",
    archs=("autoencoder",),
    options=Options,
    model=model,
    # AdamW at its usual rate needs no tuning for so small a network
    defaults=dict(epochs=5, batch_size=64, optimizer="adamw", lr=1e-3),
)
