"""torchvision, also beside a PyTorch that its compiled operators do not fit: none of our models uses one.

ready()    # before `from torchvision import …`
"""

from __future__ import annotations

import sys

import torch


def ready() -> None:
    """Import torchvision. ImportError where it is missing.

    PyPI's is compiled for CUDA. Beside a PyTorch without CUDA it has no operators, and falls over describing
    them (`operator torchvision::nms does not exist`): those that are not there are passed by.
    """
    if "torchvision" in sys.modules:
        return
    register = torch.library.register_fake

    def describe(operator, *rest, **more):
        space, _, name = str(operator).partition("::")
        if space == "torchvision" and not hasattr(torch.ops.torchvision, name):
            return lambda function: function
        return register(operator, *rest, **more)

    torch.library.register_fake = describe
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = register
