"""Other people's image classifiers by name, with random weights and their own parameter names.

    build("timm", "convnext_atto", outputs=10, shape=(1, 28, 28))(torch.zeros(1, 1, 28, 28)).shape   # [1, 10]

torchvision comes with Relaunch; timm (https://huggingface.co/docs/timm) is an extra.
"""

from __future__ import annotations

import inspect
import typing

from torch import nn

from relaunch.models import vision


def names(library: str) -> list[str]:
    """The models of "torchvision" or "timm". ImportError where the library is missing."""
    vision.ready()
    if library == "timm":
        import timm

        return timm.list_models()
    from torchvision import models

    return models.list_models(module=models)  # of classification: detection and the like lie deeper


def build(library: str, name: str, outputs: int, shape: tuple[int, ...]) -> nn.Module:
    """The model of that name for images [B,*shape] and that many outputs [B,outputs].

    Where a model is made for one size of image, it is made for this one. Without auxiliary heads, which train
    beside the output. ValueError, AssertionError and other errors of the library's where it cannot be.
    """
    vision.ready()
    return (timm_model if library == "timm" else torchvision_model)(name, outputs, shape)


def torchvision_model(name: str, outputs: int, shape: tuple[int, ...]) -> nn.Module:
    from torchvision import models

    channels, height, width = shape
    if channels != 3:
        raise ValueError(f"torchvision's models take 3 channels, and these have {channels}")
    builder = models.get_model_builder(name)
    takes = inspect.signature(typing.get_type_hints(builder)["return"]).parameters
    offered = {
        "image_size": height,  # of vision transformers: a square
        "input_size": (height, width),
        "aux_logits": False,
        "init_weights": True,  # as the paper has it; left out, two models warn that it will change
    }
    return builder(
        weights=None, num_classes=outputs, **{key: value for key, value in offered.items() if key in takes}
    )


def timm_model(name: str, outputs: int, shape: tuple[int, ...]) -> nn.Module:
    import timm

    channels, *size = shape
    asked = {"pretrained": False, "num_classes": outputs, "in_chans": channels}
    about = timm.get_pretrained_cfg(name)
    if about and about.fixed_input_size:
        try:
            return timm.create_model(name, img_size=tuple(size), **asked)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return timm.create_model(name, **asked)  # whether it takes the size, its first pass tells
