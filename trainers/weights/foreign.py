"""Weights that others wrote: .pth.tar of pytorch/examples, state dicts, safetensors. Code is not run.

weights = read("model_best.pth.tar")
weights, notes = fit(weights, model.state_dict())
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.names import listed

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile, before every name
COUNTER = "num_batches_tracked"  # of BatchNorm: how often it was trained; scoring does not use it


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, alone or the only one under some key, on the CPU, without WRAPPERS' prefixes.

    Failure 65 names the keys that were found where there is none, or more than one.
    """
    loaded = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    weights = loaded
    if not is_state_dict(loaded):
        entries = loaded if isinstance(loaded, dict) else {}
        found = [key for key, value in entries.items() if is_state_dict(value)]
        if len(found) > 1:
            raise Failure(
                DATA,
                f"{path} holds {len(found)} state dicts, under the keys {listed(map(str, found))}",
                f"save the one that is meant alone: torch.save(torch.load(FILE)[{found[0]!r}], 'one.pth')",
            )
        if not found:
            holds = (
                f"it is a dict with the keys {listed(map(str, entries))}"
                if entries
                else f"a {kind_of(loaded)}"
            )
            raise Failure(
                DATA,
                f"{path} holds no state dict ({holds})",
                "save model.state_dict(), alone or under a key of its own",
            )
        weights = loaded[found[0]]
    for wrapper in (*WRAPPERS, *WRAPPERS):  # in either order
        if all(name.startswith(wrapper) or is_bookkeeping(name, t) for name, t in weights.items()):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


def is_state_dict(value) -> bool:
    """Whether it is tensors by name, more than lone numbers among them (as a dict of metrics has)."""
    import torch

    if not isinstance(value, dict):
        return False
    tensors = all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in value.items())
    return tensors and any(tensor.dim() for tensor in value.values())


def is_bookkeeping(name: str, tensor: Tensor) -> bool:
    """Whether an entry looks like a wrapper's own: one number of no layer, as AveragedModel's n_averaged."""
    return "." not in name and tensor.numel() == 1


def kind_of(value) -> str:
    return "dict with nothing in it" if value == {} else type(value).__name__


def fit(weights: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under the names of a model whose state is `own`, and lines that say what was left out or added.

    The one prefix that all names share goes where the model's names lack it, and so do a wrapper's own
    entries; BatchNorm's counters that a file lacks are zero. What still does not fit is left as it is.
    """
    import torch

    layers = [name for name, tensor in weights.items() if not is_bookkeeping(name, tensor)]
    shared = layers[0].split(".")[:-1] if layers else []
    while not all(name.startswith("".join(f"{part}." for part in shared)) for name in layers):
        shared.pop()
    prefixes = ["".join(f"{part}." for part in shared[:depth]) for depth in range(len(shared) + 1)]

    def known(prefix: str) -> int:
        return sum(name.removeprefix(prefix) in own for name in layers)

    prefix = max(prefixes, key=known)  # of equals the shortest
    if prefix and known(prefix):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    notes = []
    if left := [n for n, tensor in weights.items() if n not in own and is_bookkeeping(n, tensor)]:
        notes.append(f"left out of its weights: {listed(left)}, which no layer has")
        weights = {name: tensor for name, tensor in weights.items() if name not in left}
    if added := [name for name in own if name.endswith(COUNTER) and name not in weights]:
        notes.append(f"it has no counters of BatchNorm ({len(added)} of {COUNTER}): they begin at 0")
        weights = weights | {name: torch.zeros_like(own[name]) for name in added}
    return weights, notes


def outputs(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], classes: int) -> int | None:
    """How many classes weights have that differ from a model of `classes` in nothing else, and have more."""
    found = {
        (tensor.shape[0], own[name].shape[0])
        for name, tensor in weights.items()
        if name in own and tensor.shape != own[name].shape and tensor.dim() == own[name].dim()
    }
    rest = all(t.shape[1:] == own[n].shape[1:] for n, t in weights.items() if n in own)
    if not rest or len(found) != 1:
        return None
    there, here = found.pop()
    return there if here == classes < there else None


def read_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Failure(DATA, f"{path} cannot be read ({error})", "copy it again") from error


def read_pickle(path: Path):
    """What torch.load gives of tensors and plain values; code in the file is refused, not run."""
    import numpy as np
    import torch

    scalar = np.float64(0).__reduce__()[0]
    harmless = [
        np.dtype,
        *{type(np.dtype(c)) for c in "fdilq"},
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
    ]  # a best_acc1 of numpy
    try:
        # it warns of pickles that it does not expect: they are refused here, or read
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(harmless):
            # mmap: the optimizer's half of the file is never read
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can fail in any way; torch's own advice is to run its code
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise Failure(
                DATA,
                f"{path} holds a pickled {found[1]}, and loading that could run code",
                "where it was written, save model.state_dict() alone",
            ) from error
        raise Failure(DATA, f"{path} is not a file of weights, or it is damaged", "copy it again") from error
