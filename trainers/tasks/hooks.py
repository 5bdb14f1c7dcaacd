"""What a task's hooks return, checked where it comes back: a mistake is one line that names the hook."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from relaunch.data_prep.errors import USAGE, Failure


def wrong(task, hook: str, what: str, fix: str) -> Failure:
    return Failure(USAGE, f"{type(task).__name__}.{hook} {what}", fix)


def about(value: Any) -> str:
    """`float32 [8, 3]`, or what else it is."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(about, value))})"
    return type(value).__name__


def of_each(value: Any, count: int) -> bool:
    """Whether it is a tensor with a row for each of `count` samples."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == count


def in_float32(outputs: Any) -> Any:
    """What a model said, in the precision of scores: a tensor, or tuples, lists and dicts of them."""
    if isinstance(outputs, dict):
        return {name: in_float32(part) for name, part in outputs.items()}
    if isinstance(outputs, (tuple, list)):
        return [in_float32(part) for part in outputs]
    return outputs.float() if isinstance(outputs, Tensor) and outputs.is_floating_point() else outputs


ARGUMENTS = {
    "prepare": "config, x, labels, random, training",
    "loss": "config, outputs, target",
    "columns": "config, outputs, target",
    "summarise": "rows",
}


def check_arguments(task, mixed: bool = False) -> None:
    """Failure 64 if a hook cannot be called as it will be; with CutMix (`mixed`) loss gets three targets."""
    for hook, told in ARGUMENTS.items():
        given = told + ", other, share" * (hook == "loss" and mixed)
        takes = inspect.signature(getattr(task, hook))
        try:
            takes.bind(*given.split(", "))
        except TypeError:
            fix = "leave --cutmix out, or take them" if given != told else f"take ({given})"
            raise wrong(task, hook, f"takes {takes}, and is called with ({given})", fix) from None


def prepared(task, config, x: Tensor, labels: Tensor, random, training: bool) -> tuple[Tensor, Tensor]:
    """`task.prepare`, which gives inputs and targets [B,…] of as many samples as it got."""
    count = len(x)
    made = task.prepare(config, x, labels, random, training)
    if not (isinstance(made, tuple) and len(made) == 2 and all(of_each(part, count) for part in made)):
        fix = f"return inputs and targets, two tensors of {count} rows"
        raise wrong(task, "prepare", f"returns {about(made)} of {count} samples", fix)
    return made


def scored(task, config, outputs: Any, target: Tensor, scale) -> dict[str, Tensor]:
    """`task.columns`, one row for each sample, of the types that its facts say.

    With a scale the hook sees scaled numbers; truth and guess are put back into their own unit.
    """
    facts = task.facts
    columns = checked(task, task.columns(config, outputs, scale.to(target) if scale else target), len(target))
    if scale and facts.numbers and columns[facts.truth].shape == target.shape:
        columns |= {facts.truth: target, facts.guess: scale.back(columns[facts.guess])}
    return columns


def checked(task, columns: Any, count: int) -> dict[str, Tensor]:
    told = task.facts.columns
    if not isinstance(columns, dict) or set(columns) != set(told):
        found = sorted(columns) if isinstance(columns, dict) else about(columns)
        raise wrong(
            task, "columns", f"returns {found}, and its facts say {sorted(told)}", "make them the same"
        )
    result = {}
    for name, values in columns.items():
        whole = told[name].startswith("int")
        if not of_each(values, count) or values.dim() > 2 or whole and values.is_floating_point():
            fix = f"return {told[name]}, a row for each of {count} samples"
            raise wrong(task, "columns", f"returns {name} as {about(values)}", fix)
        result[name] = values.int() if whole else values.float()
    return result
