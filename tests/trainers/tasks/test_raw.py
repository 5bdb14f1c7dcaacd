"""--input raw: the bits of the packed route, of every form of originals; workers come and go with it."""

import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.recipes import ensure, prepare
from relaunch.trainers.build import make_batches, make_model, make_optimizer
from relaunch.trainers.config import parse
from relaunch.trainers.tasks.raw_batches import RawBatches
from rigs import prep_sources as sources
from rigs.runs import outcome, status

CPU = torch.device("cpu")


def mnist(folder: Path):
    sources.mnist(folder / "idx", train=40)
    return prepare("mnist", folder / "idx", root=folder, progress=False), folder / "idx"


def cifar10(folder: Path):
    sources.cifar10(folder / "c.tar.gz", rows=8)
    return prepare("cifar10", folder / "c.tar.gz", root=folder, progress=False), folder / "c.tar.gz"


def tiny_imagenet(folder: Path):
    path = sources.tree_of(folder / "tiny", sources.tiny_imagenet_files(train=9))
    return prepare("tiny_imagenet", path, root=folder, progress=False), path


def resized(folder: Path):
    """Turned, made RGB, resized, cropped, and a part of it taken out as val."""
    files = sources.image_folder_files(count=12, size=(41, 30), splits=["train"])
    files |= {"train/cat/a.jpg": sources.sideways(), "train/dog/b.png": sources.picture("L", (33, 35))}
    path = sources.tree_of(folder / "photos", files)
    return prepare("pets", path, root=folder, size=24, val_fraction=0.2, progress=False), path


def digits(folder: Path):
    return ensure("digits", folder) or prepare("digits", root=folder, progress=False), None


def job(packed, path, *words: str, workers: int = 0):
    """(the config of the packed route, that of the raw one)."""
    typed = ["cifar10", "--arch", "resnet18", "--data", str(packed.path), "--batch-size", "8", *words]
    raw = ["--input", "raw", "--workers", str(workers), *(["--raw", str(path)] if path else [])]
    return parse(typed).config, parse([*typed, *raw]).config


def equal(one: tuple, other: tuple) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("made", [mnist, cifar10, tiny_imagenet, resized, digits])
def test_batches_are_the_packed_routes_to_the_bit(tmp_path, made):
    packed, path = made(tmp_path)
    words = ["--crop", "3", "--flip", "--cutmix", "0.6", "--grad-accum-steps", "2"]
    config, raw = job(packed, path, *words)
    for rank in (0, 1):
        ours, theirs = (make_batches(c, packed, CPU, rank, 2) for c in (config, raw))
        assert isinstance(theirs, RawBatches)
        for step in range(min(2 * ours.steps_per_epoch + 1, 6)):
            for micro in (0, 1):
                assert equal(ours.batch(step, micro), theirs.batch(step, micro)), (rank, step, micro)


def test_workers_give_the_same_begin_anywhere_and_are_gone_with_it(tmp_path):
    packed, path = tiny_imagenet(tmp_path)
    config, raw = job(packed, path, workers=2)
    ours, theirs = (make_batches(c, packed, CPU) for c in (config, raw))
    for step in (5, 6, 7, 0, 0, 1):
        assert equal(ours.batch(step, 0), theirs.batch(step, 0)), step
    assert len(multiprocessing.active_children()) == 2
    theirs.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lost_file_is_one_line(tmp_path, workers):
    packed, path = tiny_imagenet(tmp_path)
    theirs = make_batches(job(packed, path, workers=workers)[1], packed, CPU)
    assert len(theirs.batch(0, 0)[0]) == 8
    for file in path.rglob("*.JPEG"):
        file.unlink()
    with pytest.raises(Failure, match="JPEG cannot be read") as failed:
        for step in range(1, 9):
            theirs.batch(step, 0)
    assert failed.value.code == 65
    theirs.close()


def test_a_lost_worker_is_one_line(tmp_path):
    packed, path = tiny_imagenet(tmp_path)
    theirs = make_batches(job(packed, path, workers=1)[1], packed, CPU)
    theirs.batch(0, 0)
    with pytest.raises(Failure, match="a worker of --input raw died") as failed:
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        for step in range(1, 9):
            theirs.batch(step, 0)
    assert failed.value.code == 1
    theirs.close()


@pytest.mark.slow
def test_a_resumed_run_may_load_otherwise(train, relaunch_env):
    _, path = mnist(relaunch_env / "d")
    common = ["mnist", "--data", "./d/mnist", "--batch-size", 8, "--epochs", 2, "--crop", 2]
    raw = ["--input", "raw", "--raw", path]
    assert train(*common, "--run", "./packed") == 0
    assert train(*common, *raw, "--workers", 1, "--run", "./raw", "--stop-after", 3) == 75
    assert train(*common, *raw, "--workers", 0, "--run", "./raw", "--resume", "auto") == 0
    assert train(*common, *raw, "--run", "./both", "--stop-after", 3) == 75
    assert train(*common, "--input", "packed", "--run", "./both", "--resume", "auto") == 0
    ends = [outcome(relaunch_env / name) for name in ("packed", "raw", "both")]
    configs = [end["state"].pop("config") for end in ends]
    assert ends[0] == ends[1] == ends[2]
    assert [(c["input"], c["workers"]) for c in configs] == [("packed", 0), ("raw", 0), ("packed", 0)]


def test_mistakes_are_one_line(tmp_path, sets):
    packed, path = tiny_imagenet(tmp_path)

    def refused(raw, packed=packed):
        with pytest.raises(Failure) as caught:
            make_batches(raw, packed, CPU)
        return caught.value.line()

    assert "64 --input raw has no place of the originals" in refused(job(packed, None)[1])
    zipped = sources.zip_of(tmp_path / "t.zip", sources.tiny_imagenet_files())
    assert "is an archive; unzip -q " in refused(job(packed, zipped)[1])
    assert "there is no " in refused(job(packed, tmp_path / "gone")[1])
    assert "is not Tiny-ImageNet: it lacks wnids.txt" in refused(job(packed, tmp_path / "tiny_imagenet")[1])
    other = sources.tree_of(tmp_path / "other", sources.tiny_imagenet_files(train=8))
    assert "18 packed, or other labels" in refused(job(packed, other)[1])
    same = sources.tree_of(tmp_path / "same", sources.tiny_imagenet_files(train=9))
    assert "is not the one that was packed into tiny_imagenet" in refused(job(packed, same)[1])
    text = parse(["wikitext2", "--input", "raw"]).config
    from relaunch.data_prep.packed import open_packed

    assert "is for images, and wikitext2 trains on text" in refused(text, open_packed("wikitext2", sets))
    with pytest.raises(Failure, match="--workers 2 goes with --input raw"):
        parse(["mnist", "--workers", "2"])
    parse(["mnist", "--workers", "0", "--raw", "somewhere"])  # of a grid that varies --input


# processes, and real data -----------------------------------------------------------------------------


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_workers_leave_with_a_training_that_all_were_told_to_stop(start, relaunch_env, number):
    _, path = tiny_imagenet(relaunch_env / "d")
    words = [
        "cifar10",
        "--arch",
        "net_bn",
        "--data",
        "./d/tiny_imagenet",
        "--batch-size",
        8,
        "--run",
        "./run",
    ]
    words = [word if word != "net_bn" else "resnet18" for word in words]
    raw = [
        "--input",
        "raw",
        "--raw",
        path,
        "--workers",
        2,
        "--epochs",
        5000,
        "--log-interval",
        1,
        "--run",
        "./run",
    ]
    training = start(*words, *raw).until("step 2/")
    workers = [pid for pid in training.children() if b"copier.py" not in cmdline(pid)]
    assert len(workers) == 2
    os.killpg(training.popen.pid, number)  # as a scheduler, or a terminal does
    code = training.end().code
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
    if number != signal.SIGKILL:
        assert code == 75 and status(relaunch_env / "run")["state"] == "preempted"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def archive(name: str) -> Path:
    path = Path(os.environ.get("RELAUNCH_DATA_ARCHIVES") or "unset", name)
    return path if path.exists() else pytest.skip(f"{path} is not there: set RELAUNCH_DATA_ARCHIVES")


def real_mnist(folder: Path):
    return prepare("mnist", archive("mnist"), root=folder, progress=False), archive("mnist")


def real_cifar10(folder: Path):
    """3,000 of its photographs, in the official form."""
    import io

    import numpy as np
    from PIL import Image

    batches = {f"data_batch_{k + 1}": ([], []) for k in range(5)} | {"test_batch": ([], [])}
    with zipfile.ZipFile(archive("cifar10-images.zip")) as photographs:
        names = [name for name in photographs.namelist() if name.endswith(".jpg") and "/train/" in name]
        labels = sorted({name.split("/")[-2] for name in names})
        for place, name in enumerate(names[::16]):
            pixels = np.asarray(Image.open(io.BytesIO(photographs.read(name))).convert("RGB"))
            of, rows = list(batches.values())[place % 6]
            of.append(labels.index(name.split("/")[-2]))
            rows.append(pixels.transpose(2, 0, 1).reshape(-1))
    files = {"batches.meta": sources.python2({b"label_names": [name.encode() for name in labels]})}
    for name, (of, rows) in batches.items():
        files[name] = sources.python2({b"labels": of, b"data": np.stack(rows)})
    path = sources.tree_of(folder / "cifar-10-batches-py", files)
    return prepare("cifar10", path, root=folder, progress=False), path


def real_tiny_imagenet(folder: Path):
    with zipfile.ZipFile(archive("tiny-imagenet-200.zip")) as photographs:
        photographs.extractall(folder)
    path = folder / "tiny-imagenet-200"
    return prepare("tiny_imagenet", path, root=folder, progress=False), path


@pytest.mark.slow
@pytest.mark.parametrize("made", [real_mnist, real_cifar10, real_tiny_imagenet])
def test_losses_on_real_data_are_the_packed_routes(tmp_path, made):
    packed, path = made(tmp_path)
    losses = []
    for config in job(packed, path, "--crop", "4", "--flip", "--batch-size", "16", workers=2):
        batches, model = make_batches(config, packed, CPU), make_model(config, packed.sizes)
        optimizer, found = make_optimizer(config, model), []
        for step in range(batches.steps_per_epoch - 2, batches.steps_per_epoch + 3):  # into the next epoch
            loss, _ = batches.loss(model, batches.batch(step, 0))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        losses.append(found)
    batches.close()
    assert losses[0] == losses[1] and len(set(losses[0])) == 5
