"""Which parameters are trained and how fast: --freeze PATTERN and --lr-scale PATTERN=FACTOR.

    freeze(config, model)      # Failure 64 for a pattern that does nothing
    groups(config, model)      # for an optimizer

A pattern (fnmatch: * ? [abc]) is compared with the names of parameters: `layer1.*`, `*.bias`.
Torch-free at module level: a config checks what it is given here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import nearest

if TYPE_CHECKING:
    from torch import nn

    from relaunch.trainers.config import RunConfig


def freeze(config: RunConfig, model: nn.Module) -> None:
    """Keep what --freeze matches from being trained, and the running statistics of its BatchNorms.

    Failure 64 if a pattern of --freeze or --lr-scale has no effect, or nothing is left to train.
    """
    frozen = {p for pattern in config.freeze for p in matched("--freeze", pattern, model)}
    for p in frozen:
        p.requires_grad_(False)
    if frozen and not any(p.requires_grad for p in model.parameters()):
        raise Failure(
            USAGE, f"--freeze {' '.join(config.freeze)} leaves nothing to train", "leave the head out of it"
        )
    for name, module in model.named_modules():
        if keeps_statistics(module):
            own = set(module.parameters(recurse=False))
            called = f"{name}.running_mean"
            if own and own <= frozen or not own and any(fnmatchcase(called, p) for p in config.freeze):
                module.register_forward_pre_hook(hold)
    scales(config, model)


def keeps_statistics(module: nn.Module) -> bool:
    """Whether it is a BatchNorm, or another norm that normalises by what it has seen."""
    return getattr(module, "running_mean", None) is not None


def hold(module: nn.Module, args) -> None:
    """A hook: in eval mode, whoever called the model's train() since."""
    module.training = False


def groups(config: RunConfig, model: nn.Module) -> list[dict]:
    """The optimizer's groups, each with its `lr_scale`: one, unless --lr-scale makes more of them."""
    said = scales(config, model)
    found: dict[float, list[nn.Parameter]] = {}
    for p in model.parameters():
        if p.requires_grad:
            found.setdefault(scaled(said[p][-1])[1] if p in said else 1.0, []).append(p)
    return [{"params": parameters, "lr_scale": factor} for factor, parameters in found.items()]


def scales(config: RunConfig, model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Every --lr-scale that matches a parameter that is trained, as they were typed: the last one counts."""
    said: dict[nn.Parameter, list[str]] = {}
    for text in config.lr_scale:
        found = [p for p in matched("--lr-scale", scaled(text)[0], model) if p.requires_grad]
        if not found:
            what = f"--lr-scale {text} matches frozen parameters only"
            raise Failure(USAGE, what, "leave it out, or freeze less")
        for p in found:
            said.setdefault(p, []).append(text)
    for text in config.lr_scale:
        if all(texts[-1] != text for texts in said.values()):
            what = f"--lr-scale {text} has no effect: later ones match all that it matches"
            raise Failure(USAGE, what, "leave it out, or put it last")
    return said


def scaled(text: str) -> tuple[str, float]:
    """The pattern and the factor of a --lr-scale. Failure 64 if it is not PATTERN=FACTOR."""
    pattern, _, factor = text.rpartition("=")
    try:
        number = float(factor)
    except ValueError:
        number = 0.0
    if not pattern or not 0 < number < math.inf:
        what = f"--lr-scale {text!r} is not PATTERN=FACTOR with a factor above 0"
        raise Failure(USAGE, what, "e.g. --lr-scale 'layer4.*=0.1'; what is not to be trained, --freeze")
    return pattern, number


def matched(flag: str, pattern: str, model: nn.Module) -> list[nn.Parameter]:
    """The parameters of which a name matches: a tied one has several. Failure 64 if there are none."""
    named = list(model.named_parameters(remove_duplicate=False))
    found = {p: None for name, p in named if fnmatchcase(name, pattern)}
    if not found:
        known = [name for name, _ in named]
        if any(name.startswith(f"{pattern}.") for name in known):
            near: str | None = f"{pattern}.*"
        else:
            modules = [name for name, _ in model.named_modules() if name]
            near = nearest(pattern, known + [f"{name}.*" for name in modules])
        fix = f"did you mean '{near}'?" if near else f"they are called {known[0]} … {known[-1]}"
        raise Failure(USAGE, f"{flag} {pattern} matches no parameter", fix)
    return list(found)


def told(config: RunConfig, model: nn.Module) -> list[str]:
    """What both flags do to this model, a line for each."""
    lines = []
    if config.freeze:
        frozen = [p for p in model.parameters() if not p.requires_grad]
        lines.append(f"frozen: {size(frozen)} of {size(model.parameters())} parameters")
        if still := sum(hold in module._forward_pre_hooks.values() for module in model.modules()):
            lines[-1] += f"; {still} BatchNorm{'s keep their' if still > 1 else ' keeps its'} statistics"
    if config.lr_scale:
        parts = [f"{size(g['params'])} parameters at {g['lr_scale']:g} x" for g in groups(config, model)]
        lines.append(f"learning rate: {', '.join(parts)}")
        if several := [p for p, texts in scales(config, model).items() if len(texts) > 1]:
            lines[-1] += f"; several --lr-scale match {size(several)} of them, and the last one counts"
    return lines


def size(parameters: Iterable[nn.Parameter]) -> str:
    return f"{sum(p.numel() for p in parameters):,}"
