"""Images and their classes: the settings and the task. Its batches are in image_batches.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers.tasks.samples import CLASSES, SampleTask
from relaunch.trainers.workloads import setting

Numbers = tuple[float, ...]
NORMALISE = {  # mean and deviation of pixels in 0..1, per channel or one for all
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's weights; imagenet/main.py
    "half": ((0.5,), (0.5,)),  # PyTorch's CIFAR tutorial: pixels in -1..1
}
VIEWS = (1, 2, 6)
FOUR_WAYS = (
    "data (this set's own mean and deviation) | imagenet (torchvision's) | half (0.5:0.5) | "
    "MEAN:STD (of pixels in 0..1, one number or one per channel: 0.1307:0.3081)"
)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    crop: int = setting(
        0, "train on images shifted by up to this many pixels (zeros come in)", least=0, metavar="PIXELS"
    )
    flip: bool = setting(False, "train on images mirrored half of the time")
    flip_alternating: bool = setting(
        False, "… in every other epoch, the other half in those between (Jordan, 2024)"
    )
    half_size_epochs: int = setting(
        0, "first epochs, trained on images of half the side (progressive resizing)", least=0
    )
    label_smoothing: float = setting(
        0.0, "share of the target spread over all classes (Szegedy et al., 2016)"
    )
    cutmix: float = setting(
        0.0, "share of training images that get a patch of another (CutMix, Yun et al., 2019)"
    )
    normalise: str = setting(
        "data",
        f"what pixels are normalised by: {FOUR_WAYS}",
        alias="--normalize",
        before="data",
        metavar="HOW",
    )
    eval_resize: int = setting(
        0,
        "score weights from elsewhere on images whose short side is resized to this",
        least=0,
        metavar="PIXELS",
    )
    eval_crop: int = setting(
        0, "… and of which this square is taken from the centre", least=0, metavar="PIXELS"
    )
    eval_views: int = setting(
        1,
        "score each image by the mean output of so many views: 2: also mirrored; 6: both also shifted by a "
        "pixel, two ways",
    )

    def __post_init__(self):
        for name, flag in (("label_smoothing", "--label-smoothing"), ("cutmix", "--cutmix")):
            if not 0 <= getattr(self, name) <= 1:
                raise Failure(USAGE, f"{flag} {getattr(self, name)} is not between 0 and 1")
        if self.flip_alternating and not self.flip:
            raise Failure(USAGE, "--flip-alternating goes with --flip", "add --flip, or leave it out")
        if self.eval_views not in VIEWS:
            raise Failure(USAGE, f"--eval-views {self.eval_views} is not one of 1, 2, 6")
        statistics(self.normalise)


class ImageTask(SampleTask):
    """Images, normalised as the options say, and their classes."""

    kind = "images"
    facts = replace(CLASSES, view="images", rows="images")
    libraries: tuple[str, ...] = ("torchvision", "timm")
    raw = True

    def example(self, config, sizes):
        import torch

        return torch.zeros(1, *scored_shape(config, sizes))

    def small_example(self, config, sizes):
        """One input of the first epochs, where they are of half the side; else None."""
        small = getattr(config.options, "half_size_epochs", 0)
        return self.example(config, sizes)[..., ::2, ::2] if small else None

    def first_inputs(self, config, packed, count: int):
        """float32 [count,C,H,W]: the first training images as the model gets them, on the CPU."""
        import torch

        images = self.open(packed, "train", torch.device("cpu"))
        images.normalise_by(*normalisation(config, packed.sizes))
        return images.normalise(images.inputs[:count])

    def inputs(self, config, sizes) -> dict[str, Any]:
        mean, std = normalisation(config, sizes)
        frame = {name: getattr(config.options, f"eval_{name}", 0) for name in ("resize", "crop")}
        shape = list(scored_shape(config, sizes))
        frame |= {"images": "originals" if of_originals(config) else ""}
        views = getattr(config.options, "eval_views", 1)
        frame |= {"views": views if views > 1 else 0}
        return {"shape": shape, "mean": list(mean), "std": list(std)} | {k: v for k, v in frame.items() if v}

    def open(self, packed, split, device):
        from relaunch.trainers.tasks.image_batches import Images

        return Images(packed, split, device)

    def batches(self, config, packed, device, rank, world):
        for flag, usual in (("--eval-resize", 0), ("--eval-crop", 0), ("--eval-views", 1)):
            if getattr(config.options, flag[2:].replace("-", "_"), usual) != usual:
                raise Failure(
                    USAGE, f"{flag} is for scoring alone", "leave it out: evaluate and diff take it"
                )
        if config.input == "raw":
            from relaunch.trainers.tasks.raw_batches import RawBatches

            return RawBatches(self, config, packed, device, rank, world)
        from relaunch.trainers.tasks.image_batches import ImageBatches

        return ImageBatches(self, config, packed, device, rank, world)

    def scorer(self, config, packed, split, device):
        from relaunch.trainers.tasks.image_batches import ImageScorer

        return ImageScorer(self, config, packed, split, device)


def statistics(text: str) -> tuple[Numbers, Numbers] | None:
    """Mean and deviation, one number or one per channel, that --normalise names; None for `data`."""
    if text == "data":
        return None
    if text in NORMALISE:
        return NORMALISE[text]
    try:
        mean, std = (tuple(float(x) for x in part.split(",")) for part in text.split(":"))
    except ValueError:
        raise Failure(
            USAGE, f"--normalise {text!r} is not one of the four ways", f"use {FOUR_WAYS}"
        ) from None
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s < math.inf for s in std):
        what = f"--normalise {text}: means lie in 0..1 and deviations above 0, as pixels do in 0..1"
        raise Failure(USAGE, what, "divide those of 0..255 by 255")
    return mean, std


def normalisation(config, sizes: Sizes) -> tuple[Numbers, Numbers]:
    """Mean and deviation of each channel by which a config normalises images of these sizes."""
    text = getattr(config.options, "normalise", "data")  # options of one's own may lack it
    found = statistics(text)
    if found is None:
        return sizes.mean, sizes.std
    channels = sizes.shape[0]
    for numbers in found:
        if len(numbers) not in (1, channels):
            what = f"--normalise {text} is of {len(numbers)} channels, and the images of {sizes.data} have "
            raise Failure(USAGE, f"{what}{channels}", "give one number, or one per channel")
    mean, std = (numbers * (channels // len(numbers)) for numbers in found)
    return mean, std


def written(mean, std) -> str:
    """The --normalise that says these numbers, to the bit."""
    return ":".join(",".join(map(repr, map(float, numbers))) for numbers in (mean, std))


def of_originals(config) -> bool:
    """Whether --eval-crop frames the original images, and not the packed ones."""
    return bool(getattr(config.options, "eval_crop", 0) and (config.input == "raw" or config.raw))


def scored_shape(config, sizes: Sizes) -> tuple[int, ...]:
    """[C,H,W] of what the model scores: the packed images', or what --eval-resize and --eval-crop make."""
    channels, *side = sizes.shape
    resize, crop = (getattr(config.options, f"eval_{name}", 0) for name in ("resize", "crop"))
    if resize:
        short, long = min(side), max(side)
        side = [resize if s == short else int(resize * long / short) for s in side]
    return (channels, crop, crop) if crop else (channels, *side)
