"""torch's parts without torch.compile, which takes half a second to load, and 110 MB.

    optimizer = made(torch.optim.SGD, groups, 0.1, momentum=0.9, fused=True)

Optimizers and dispatch modes load it to be left alone by it (torch._disable_dynamo). A model that is compiled
loads it by itself.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch.optim import Optimizer

CACHE = "__dynamo_disable"  # on the function within: what torch._disable_dynamo calls, once it has made it
METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def made(kind: type[Optimizer], *args: Any, **settings: Any) -> Optimizer:
    """The optimizer kind(*args, **settings); its step is what its class computes, without hooks around it."""
    for name in METHODS:
        if within := getattr(getattr(Optimizer, name), "__wrapped__", None):
            vars(within).setdefault(CACHE, within)
    optimizer = kind(*args, **settings)
    setattr(optimizer, "step", MethodType(torch.no_grad()(inspect.unwrap(kind.step)), optimizer))  # noqa: B010
    return optimizer


@contextlib.contextmanager
def spared(method: Callable) -> Iterator[None]:
    """Within it this method, which torch.compile is kept away from, does not load it."""
    within = getattr(method, "__wrapped__", None)
    if within is None or CACHE in vars(within):
        yield
        return
    vars(within)[CACHE] = within
    try:
        yield
    finally:
        del vars(within)[CACHE]  # a compiled model is to find the mode as torch made it
