"""What flows from which layer to which, while a model computes: read from autograd's graph.

flow = Flow(example)
before = flow.sources(inputs)                 # around each layer that calls no other
flow.reach("conv1", "Conv2d", before, out)
flow.end(model(flow.example))
flow.nodes, flow.edges                        # [{"name", "label"}], [["input", "conv1"]]

What a model does between its layers (a sum, a ReLU as a function) are nodes, too. Where autograd cannot see,
because a layer has whole numbers for outputs or detaches them, the edge is missing and nothing else.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

# autograd's functions that only give values another shape or type: no operation to whoever reads a graph
SHAPES = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Transpose|Permute|T|Unsqueeze|Squeeze|Expand|Clone|Slice|Select|Alias|"
    r"AsStrided|ToCopy|Unbind|Split|SplitWithSizes|Chunk|Detach|CopySlices|CopyBackwards|)\d*"
)
KEPT = 400  # nodes: more are no picture


class Flow:
    """Nodes and edges as far as the model has run."""

    def __init__(self, example: Tensor):
        """`example`: the model's input, of which `self.example` is one that autograd follows."""
        self.example = example
        self.nodes: list[dict[str, str]] = [{"name": "input", "label": f"input\n{sizes(example)}"}]
        self.edges: list[list[str]] = []
        self.made: dict[Any, str] = {}  # autograd's function -> the node whose output it made; keeps it alive
        if example.is_floating_point():
            with torch.enable_grad():
                self.example = (
                    example.clone().requires_grad_().clone()
                )  # its own function, so that it is found
            self.made[self.example.grad_fn] = "input"

    def sources(self, inputs) -> list[str]:
        """The nodes that these values come from; operations on the way become nodes."""
        found: dict[str, None] = {}
        for value in tensors(inputs):
            if value.grad_fn is not None:
                found |= dict.fromkeys(self._behind(value.grad_fn))
            elif not value.is_floating_point():  # words, which have no gradient
                found |= {"input": None}
        return list(found)

    def _behind(self, function) -> list[str]:
        """The node of an autograd function; of what only gives another shape, those behind it."""
        if function in self.made:
            return [self.made[function]]
        name = re.sub(r"Backward\d*$", "", function.name().rpartition("::")[2])
        behind = list(
            dict.fromkeys(n for f, _ in function.next_functions if f is not None for n in self._behind(f))
        )
        if not behind or SHAPES.fullmatch(name) or len(self.nodes) >= KEPT:  # parameters end here
            return behind
        node = self._node(snake(name), snake(name), behind)
        self.made[function] = node
        return [node]

    def reach(self, name: str, kind: str, sources: list[str], out) -> None:
        """A layer made `out` of what came from `sources`."""
        results = tensors(out)
        if not results or len(self.nodes) >= KEPT:
            return
        node = self._node(name or kind, f"{name}\n{kind} {sizes(results[0])}".strip(), sources)
        for value in results:
            if value.grad_fn is not None:
                self.made[value.grad_fn] = node

    def end(self, out) -> None:
        if sources := self.sources(out):
            self._node("output", "output", sources)
        self.made.clear()

    def _node(self, name: str, label: str, sources: list[str]) -> str:
        taken, unique, n = {node["name"] for node in self.nodes}, name, 1
        while unique in taken:
            n += 1
            unique = f"{name}#{n}"
        self.nodes.append({"name": unique, "label": label})
        self.edges += [[source, unique] for source in sources]
        return unique


def tensors(values) -> list[Tensor]:
    """Those in a layer's inputs or output: a tensor, or tuples, lists and dicts of them."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [t for value in values for t in tensors(value)] if isinstance(values, (list, tuple)) else []


def sizes(value: Tensor) -> str:
    """`64x24x24`: of one sample, where the batch is the first of its dimensions."""
    shape = value.shape[1:] if value.shape[:1] == (1,) else value.shape
    return "x".join(map(str, shape)) or "1"


def snake(name: str) -> str:
    """`MaxPool2DWithIndices` as people write it: `max_pool2d`."""
    name = name.removesuffix("WithIndices").replace("2D", "2d").replace("1D", "1d")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")
