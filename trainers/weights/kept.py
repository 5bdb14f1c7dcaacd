"""Memory in which named tensors lie as a safetensors file of them: copied once, checked and written from it.

kept = Kept(tensors)    # once: fresh pages cost more than the copy
kept.copy(tensors)      # at each step that is saved
kept.content            # the file, byte for byte that of safetensors.torch.save(tensors)
"""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

# safetensors' names of types, in the order in which its own writer puts their tensors
TYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ORDER = {dtype: place for place, dtype in enumerate(TYPES)}
SUMMED = (torch.float32, torch.float64)  # by numpy, which takes no other threads and no memory for it


class Kept:
    """Memory for tensors of these names, types and shapes; `tensors` are its parts, contiguous."""

    def __init__(self, tensors: dict[str, Tensor], pinned: bool = False):
        """`pinned`: a CUDA device copies into it by itself. KeyError for a type that safetensors lacks."""
        names = sorted(tensors, key=lambda name: (ORDER[tensors[name].dtype], name))
        header, offset = {}, 0
        for name in names:
            t, begin = tensors[name], offset
            offset += t.numel() * t.element_size()
            header[name] = {"dtype": TYPES[t.dtype], "shape": [*t.shape], "data_offsets": [begin, offset]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # so that each tensor lies where its type may
        head = len(text).to_bytes(8, "little") + text
        whole = torch.empty(len(head) + offset, dtype=torch.uint8, pin_memory=pinned)
        self.content = whole.numpy().data
        self.content[: len(head)] = head
        data = whole[len(head) :]
        self.tensors = {}
        for name in names:
            begin, end = header[name]["data_offsets"]
            self.tensors[name] = data[begin:end].view(tensors[name].dtype).view(tensors[name].shape)
        self._copied: torch.cuda.Event | None = None

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether these are the tensors that it is for."""
        return tensors.keys() == self.tensors.keys() and all(
            (t.dtype, t.shape) == (self.tensors[name].dtype, self.tensors[name].shape)
            for name, t in tensors.items()
        )

    def copy(self, tensors: dict[str, Tensor]) -> None:
        """Take up their values. From a device they may come later, and yet before it does anything else."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            self._copied = torch.cuda.Event()
            self._copied.record()

    def wait(self) -> None:
        """Until the values are there."""
        if self._copied:
            self._copied.synchronize()

    def not_finite(self) -> str | None:
        """The name of a tensor that holds NaN or infinity."""
        with np.errstate(all="ignore"):  # what overflows is looked at
            return next((name for name, t in self.tensors.items() if t.is_floating_point() and odd(t)), None)


def odd(tensor: Tensor) -> bool:
    """Whether a number in it is not finite: a sum that is finite has only such terms."""
    if tensor.dtype in SUMMED and np.isfinite(np.add.reduce(tensor.numpy().reshape(-1))):
        return False
    return not bool(tensor.isfinite().all())
