import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from relaunch.data_prep.errors import Failure
from relaunch.trainers.weights.foreign import read

WEIGHTS = {"conv.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.ones(1)}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def imagenet(best, prefix="module."):
    """What pytorch/examples' imagenet script hands to torch.save."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    return {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": {prefix + k: v for k, v in WEIGHTS.items()},
        "best_acc1": best,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


@pytest.mark.parametrize(
    "best", [torch.tensor(71.5), np.float64(71.5), np.float32(71.5), np.int64(71), 71.5], ids=repr
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_imagenet_checkpoint(tmp_path, best, prefix):
    torch.save(imagenet(best, prefix), tmp_path / "model_best.pth.tar")
    assert same(read(tmp_path / "model_best.pth.tar"), WEIGHTS)


def test_format_before_zip_and_numpy_before_2(tmp_path):
    torch.save(imagenet(np.float64(71.5)), tmp_path / "new.pth.tar", _use_new_zipfile_serialization=False)
    old = (
        (tmp_path / "new.pth.tar")
        .read_bytes()
        .replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )
    (tmp_path / "old.pth.tar").write_bytes(old)
    assert same(read(tmp_path / "old.pth.tar"), WEIGHTS)


def test_bare_state_dicts(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert same(read(tmp_path / "a.pt"), model.state_dict())
    model.load_state_dict(read(tmp_path / "a.safetensors"))


class Evil:
    def __reduce__(self):
        return os.system, ("touch HACKED",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content",
    [Evil(), {"state_dict": WEIGHTS, "args": Evil()}, torch.nn.Linear(2, 2)],
    ids=["bare", "beside", "model"],
)
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, content, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(Failure) as failure:
        read(tmp_path / "x.pth")
    assert (
        failure.value.code == 65
        and "pickled" in failure.value.what
        and "weights_only" not in failure.value.line()
    )
    assert not (tmp_path / "HACKED").exists()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"state_dict": {}},
        {"state_dict": [1]},
        [WEIGHTS["fc.bias"]],
        WEIGHTS["fc.bias"],
        {"epoch": 1},
        {1: WEIGHTS["fc.bias"]},
    ],
    ids=repr,
)
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(Failure, match="holds no state dict") as failure:
        read(tmp_path / "x.pth")
    assert failure.value.code == 65


@pytest.mark.parametrize("suffix", ["pth.tar", "old.pth", "safetensors"])
def test_truncated_or_altered(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(imagenet(1.0), path, _use_new_zipfile_serialization=suffix == "pth.tar")
    whole, draw = path.read_bytes(), random.Random(0)
    for length in [0, 1, 7, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(20))]:
        path.write_bytes(whole[:length])
        with pytest.raises(Failure) as failure:
            read(path)
        assert failure.value.code == 65 and "\n" not in failure.value.line()
    for _ in range(
        60
    ):  # another byte may go unnoticed in a tensor; anywhere else it is a Failure and nothing worse
        altered = bytearray(whole)
        altered[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(altered)
        try:
            read(path)
        except Failure as failure:
            assert failure.code == 65


@pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors"])
def test_another_file(tmp_path, name):
    (tmp_path / name).write_text("Dear diary,\n" * 100)
    with pytest.raises(Failure) as failure:
        read(tmp_path / name)
    assert failure.value.code == 65
