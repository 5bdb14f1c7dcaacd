"""The memory of a save: the bytes of safetensors' own writer, and no number that is not finite."""

import pytest
import torch
from safetensors.torch import save

from relaunch.trainers.weights.kept import TYPES, Kept


def kept(tensors: dict) -> Kept:
    made = Kept(tensors)
    made.copy(tensors)
    return made


def test_it_is_the_file_that_safetensors_writes():
    """Every type, odd names, other strides, numbers alone and nothing at all."""
    tensors = {f'{i:02} é"\n/': (torch.randn(3, i) * 9).to(dtype) for i, dtype in enumerate(TYPES)}
    tensors |= {
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "t": torch.ones(3, 2).t(),
    }
    tensors |= {"one": torch.tensor(3), "none": torch.empty(0, 3)}
    assert bytes(kept(tensors).content) == save({name: t.contiguous() for name, t in tensors.items()})
    assert bytes(kept({}).content) == save({})


def test_it_is_taken_again_for_the_same_tensors_alone():
    tensors = {"a": torch.ones(2, 3), "b": torch.ones(4)}
    memory = kept(tensors)
    tensors["a"][1, 2] = 7
    assert memory.tensors["a"][1, 2] == 1  # a copy
    memory.copy(tensors)
    assert bytes(memory.content) == save(tensors)
    assert memory.fits(tensors)
    for other in ({"a": tensors["a"]}, tensors | {"b": torch.ones(5)}, tensors | {"b": torch.ones(4).half()}):
        assert not memory.fits(other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_number_that_is_not_finite_is_found(dtype):
    largest = torch.finfo(dtype).max
    tensors = {"count": torch.tensor(3), "a": torch.full((70_000,), largest, dtype=dtype), "b": torch.ones(2)}
    memory = kept(tensors)
    assert memory.not_finite() is None  # though no sum of them is finite
    for value in (float("nan"), float("inf"), -float("inf")):
        memory.tensors["a"][69_999] = value
        assert memory.not_finite() == "a"
