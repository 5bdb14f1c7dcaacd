"""A model's and an optimizer's state as named tensors: what a checkpoint holds.

weights, slots = weights_of(model), optimizer_state(optimizer, model)
load_weights(model, weights, "the checkpoint")
load_optimizer(optimizer, model, slots)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relaunch.data_prep.errors import DATA, Failure
from relaunch.trainers.weights.foreign import listed


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, where they are; a tied tensor once, under its first name."""
    found, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen and tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        found[name] = tensor.detach()
    return found


def load_weights(model: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    """Fill a model with weights by name; of a tensor that it has under two names, one is enough.

    Failure 65 names the first thing that is missing, too many or of another shape, and `origin`.
    """
    own, tied = model.state_dict(), dict[int, list[str]]()
    for name, tensor in own.items():
        tied.setdefault(tensor.data_ptr(), []).append(name)
    filled = dict(weights)
    for names in tied.values():
        given = next((weights[n] for n in names if n in weights), None)
        if given is not None:
            filled.update({n: given for n in names if n not in filled})
    missing, extra = [n for n in own if n not in filled], [n for n in filled if n not in own]
    shapes = [n for n in own if n in filled and own[n].shape != filled[n].shape]
    if missing or extra or shapes:
        if missing:
            what = f"lacks {missing[0]}" + (f" and has {listed(extra)}" if extra else "")
        elif extra:
            what = f"has {extra[0]}, which the model lacks"
        else:
            there, here = (list(tensors[shapes[0]].shape) for tensors in (filled, own))
            what = f"has {shapes[0]} of shape {there} instead of {here}"
        raise Failure(
            DATA,
            f"{origin} does not fit this model: it {what}",
            "give the --workload, --arch and --data it was trained with",
        )
    model.load_state_dict(filled)


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state, where it is, by name: `fc.weight/momentum_buffer`."""
    names = names_of(optimizer, model)
    return {
        f"{names[i]}/{entry}": torch.as_tensor(value).detach()
        for i, entries in optimizer.state_dict()["state"].items()
        for entry, value in entries.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give the optimizer the state that `optimizer_state` gave, of the same model; rates stay its own."""
    index = {name: i for i, name in enumerate(names_of(optimizer, model))}
    state: dict[int, dict] = {}
    for key, tensor in tensors.items():
        name, entry = key.rsplit("/", 1)
        state.setdefault(index[name], {})[entry] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def names_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """The optimizer's parameters in the order in which its state counts them: group by group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
