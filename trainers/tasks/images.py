"""Images and their classes: the settings and the task. Its batches are in image_batches.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.tasks.samples import CLASSES, SampleTask
from relaunch.trainers.workloads import setting


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    crop: int = setting(0, "train on images shifted by up to this many pixels (zeros come in)", least=0)
    flip: bool = setting(False, "train on images mirrored half of the time")
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes (Szegedy et al., 2016)"
    )
    cutmix: float = setting(
        0.0, "share of training images that get a patch of another (CutMix, Yun et al., 2019)"
    )

    def __post_init__(self):
        for name, flag in (("label_smoothing", "--label-smoothing"), ("cutmix", "--cutmix")):
            if not 0 <= getattr(self, name) <= 1:
                raise Failure(USAGE, f"{flag} {getattr(self, name)} is not between 0 and 1")


class ImageTask(SampleTask):
    """Images, normalised to the training set's mean 0 and deviation 1, and their classes."""

    kind = "images"
    facts = replace(CLASSES, view="images", rows="images")
    libraries: tuple[str, ...] = ("torchvision", "timm")

    def open(self, packed, split, device):
        from relaunch.trainers.tasks.image_batches import Images

        return Images(packed, split, device)

    def batches(self, config, packed, device, rank, world):
        from relaunch.trainers.tasks.image_batches import ImageBatches

        return ImageBatches(self, config, packed, device, rank, world)
