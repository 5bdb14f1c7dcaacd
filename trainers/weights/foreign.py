"""Weights that others wrote: .pth.tar of pytorch/examples, bare state dicts, safetensors. Code is not run.

weights = read("model_best.pth.tar")
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import DATA, Failure

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile, before every name


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU, with the bare model's names. Failure 65 if there is none."""
    import torch

    loaded = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in weights.items()
        )
    ):
        raise Failure(
            DATA, f"{path} holds no state dict", "save model.state_dict(), alone or under the key state_dict"
        )
    for wrapper in (*WRAPPERS, *WRAPPERS):  # in either order
        if all(name.startswith(wrapper) for name in weights):
            weights = {name.removeprefix(wrapper): tensor for name, tensor in weights.items()}
    return weights


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
        with torch.serialization.safe_globals(harmless):
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
