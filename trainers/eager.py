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
from torch import Tensor
from torch.optim import Optimizer

CACHE = "__dynamo_disable"  # on the function within: what torch._disable_dynamo calls, once it has made it
METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def made(kind: type[Optimizer], *args: Any, **settings: Any) -> Optimizer:
    """The optimizer kind(*args, **settings); its step is what its class computes, without hooks around it."""
    for name in METHODS:
        if within := getattr(getattr(Optimizer, name), "__wrapped__", None):
            vars(within).setdefault(CACHE, within)
    optimizer = kind(*args, **settings)
    step = MethodType(torch.no_grad()(inspect.unwrap(kind.step)), optimizer)
    if kind is torch.optim.SGD and settings.get("fused"):
        step = direct(optimizer, step)
    setattr(optimizer, "step", step)  # noqa: B010
    return optimizer


def direct(optimizer: Optimizer, whole: Callable) -> Callable:
    """The step `whole` of a fused SGD, by its kernel alone where a CPU's gradients and momenta are all there.

    To sort them by type and device each time takes twice as long as the kernel of a small model.
    """

    @torch.no_grad()
    def step(closure: Callable | None = None) -> Any:
        groups = optimizer.param_groups
        calls = [operands(group, optimizer.state) for group in groups]
        if closure or None in calls:
            return whole(closure)
        for group, tensors in zip(groups, calls):
            torch._fused_sgd_(
                *tensors,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                is_first_step=False,
                grad_scale=getattr(optimizer, "grad_scale", None),
                found_inf=getattr(optimizer, "found_inf", None),
            )

    return step


def operands(group: dict, state: dict) -> tuple[list[Tensor], list[Tensor], list[Tensor]] | None:
    """Parameters, gradients and momenta of a group, if the kernel for a CPU takes them as they are."""
    gradients, momenta = [], []
    for p in group["params"]:
        g = p.grad
        if g is None or not g.is_cpu or g.dtype != torch.float32 or g.layout != torch.strided:
            return None
        gradients.append(g)
        if group["momentum"]:
            if (momentum := state[p].get("momentum_buffer")) is None:
                return None
            momenta.append(momentum)
    return group["params"], gradients, momenta


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
