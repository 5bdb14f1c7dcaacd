import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from relaunch.data_prep.errors import Failure
from relaunch.trainers.weights.foreign import fit, read
from relaunch.trainers.weights.state import load_weights

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


@pytest.mark.parametrize("key", ["model_state_dict", "model", "net", "weights", "module"])
def test_the_one_state_dict_under_whatever_key(tmp_path, key):
    beside = {"epoch": 3, "loss": 1.5, "acc": torch.tensor(90.0), "metrics": {"top1": torch.tensor(90.0)}}
    optimizer = imagenet(1.0)["optimizer"]
    torch.save(
        {**beside, key: {"module." + k: v for k, v in WEIGHTS.items()}, "optim": optimizer}, tmp_path / "x.pt"
    )
    assert same(read(tmp_path / "x.pt"), WEIGHTS)


@pytest.mark.parametrize("keys", [("generator", "critic"), ("state_dict", "state_dict_ema")])
def test_two_state_dicts_are_refused_by_their_keys(tmp_path, keys):
    torch.save({"epoch": 1, **dict.fromkeys(keys, WEIGHTS)}, tmp_path / "two.pt")
    with pytest.raises(Failure) as failure:
        read(tmp_path / "two.pt")
    assert failure.value.code == 65
    assert f"two.pt holds 2 state dicts, under the keys {keys[0]}, {keys[1]}; save" in failure.value.line()


def test_a_refusal_names_the_keys_that_were_found(tmp_path):
    torch.save({"epoch": 1, "optimizer": imagenet(1.0)["optimizer"], "best": 3.0}, tmp_path / "x.pt")
    with pytest.raises(Failure, match="a dict with the keys epoch, optimizer, best"):
        read(tmp_path / "x.pt")
    model = torch.nn.Linear(2, 2)
    with pytest.raises(Failure, match="lacks weight and has conv.weight, fc.bias"):
        load_weights(model, WEIGHTS, "x.pt")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.scale = torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), None
        self.scale = torch.nn.Parameter(torch.tensor(2.0))  # one number, and of the model


class Wrapped(torch.nn.Module):
    """A model all of whose names share a prefix of its own."""

    def __init__(self):
        super().__init__()
        self.net = Net()


def written(path, weights):
    torch.save({"state_dict": weights}, path)
    return read(path)


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.", "module.encoder.", "_orig_mod.net.", "a.b.c."])
@pytest.mark.parametrize("model", [Net, Wrapped])
def test_any_prefix_that_all_names_share(tmp_path, model, prefix):
    theirs, ours = model(), model()
    found = written(tmp_path / "x.pt", {prefix + k: v for k, v in theirs.state_dict().items()})
    weights, notes = fit(found, ours.state_dict())
    load_weights(ours, weights, "x.pt")
    assert same(ours.state_dict(), theirs.state_dict()) and not notes


def test_a_wrapper_that_the_model_has_and_the_file_lacks_is_refused(tmp_path):
    weights, _ = fit(written(tmp_path / "x.pt", Net().state_dict()), Wrapped().state_dict())
    with pytest.raises(Failure, match="lacks net.scale and has conv.weight|lacks net.scale and has scale"):
        load_weights(Wrapped(), weights, "x.pt")


def test_entries_of_wrappers_are_left_out(tmp_path):
    model = Net()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    weights, notes = fit(written(tmp_path / "x.pt", averaged.state_dict()), model.state_dict())
    load_weights(Net(), weights, "x.pt")
    assert notes == ["left out of its weights: n_averaged, which no layer has"]
    ema = {f"ema.{k}": v for k, v in model.state_dict().items()}
    ema |= {"num_updates": torch.tensor(7), "decay": torch.tensor([0.999])}
    weights, notes = fit(written(tmp_path / "x.pt", ema), model.state_dict())
    load_weights(Net(), weights, "x.pt")
    assert notes == ["left out of its weights: num_updates, decay, which no layer has"]


def test_files_without_batchnorms_counters(tmp_path):
    theirs, ours = Net(), Net()
    bare = {k: v for k, v in theirs.state_dict().items() if "num_batches" not in k}
    ours.bn.num_batches_tracked += 5
    weights, notes = fit(written(tmp_path / "x.pt", bare), ours.state_dict())
    load_weights(ours, weights, "x.pt")
    assert same(ours.state_dict(), theirs.state_dict())
    assert notes == ["it has no counters of BatchNorm (1 of num_batches_tracked): they begin at 0"]


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
