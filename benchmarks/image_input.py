"""Tiny-ImageNet's training images, shifted, mirrored and normalised to float: ours against decoded files.

    python benchmarks/image_input.py [--archive tiny-imagenet-200.zip] [--rounds 9] [--threads 1]

Ours is what `relaunch train tiny_imagenet` gives to its model, batch after batch, of the packed set. Theirs
is torchvision's ImageFolder over the original JPEGs, with RandomCrop(64, padding=8), RandomHorizontalFlip,
ToTensor and Normalize on each, and a DataLoader that shuffles and has no workers. No model. The archive, or
a folder with what is in it, is --archive's; by default the one in $RELAUNCH_DATA_ARCHIVES. Its files lie in
the page cache. The figure is how many times as many images a second: before 5.4, must reach 17.

A second row says what packed files with the channels first would give: the same by a slice of each image,
copied into a batch of zeros that needs no transposing.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import ours
from relaunch.data_prep.errors import DATA, Failure
from side_by_side import Bench, Child, program

BATCH, ARCHIVE = 128, "tiny-imagenet-200.zip"


def packed_batches(turns, root, threads: int) -> None:
    def what():
        from relaunch.data_prep.packed import open_packed
        from relaunch.trainers.build import make_batches
        from relaunch.trainers.config import parse
        from relaunch.trainers.group.runtime import Runtime

        config = parse(f"tiny_imagenet --batch-size {BATCH} --threads {threads}".split()).config
        runtime = Runtime(config.threads, config.deterministic)
        batches = make_batches(config, open_packed(config.data, root), runtime.device)
        done = 0

        def steps(n: int) -> None:
            nonlocal done
            for _ in range(n):
                batches.batch(done, 0)
                done += 1

        turns(steps=steps)
        runtime.close()

    ours.in_a_rank(what)


def planar(turns, root, threads: int) -> None:
    def what():
        import numpy as np
        import torch

        from relaunch.data_prep.packed import open_packed
        from relaunch.trainers.group.runtime import Runtime

        runtime, packed = Runtime(threads), open_packed("tiny_imagenet", root)
        images = np.ascontiguousarray(packed.images("train").transpose(0, 3, 1, 2))
        mean, std = (torch.tensor(v)[:, None, None] * 255 for v in (packed.mean, packed.std))
        scale, shift = (1 / std).float(), (-mean / std).float()
        random = np.random.default_rng(1)

        def cut(by: int) -> tuple[slice, slice]:
            """Where the shifted image goes, and what of the image goes there."""
            side = images.shape[2]
            return slice(max(0, -by), side - max(0, by)), slice(max(0, by), side - max(0, -by))

        def steps(n: int) -> None:
            for _ in range(n):
                rows, flips = random.integers(0, len(images), BATCH), random.random(BATCH) < 0.5
                batch = np.zeros((BATCH, *images.shape[1:]), np.uint8)
                for to, row, (dy, dx), flip in zip(batch, rows, random.integers(-8, 9, (BATCH, 2)), flips):
                    (y, from_y), (x, from_x) = cut(dy), cut(dx)
                    picked = images[row, :, from_y, from_x]
                    to[:, y, x] = picked[..., ::-1] if flip else picked
                torch.from_numpy(batch).float().mul_(scale).add_(shift)

        turns(steps=steps)
        runtime.close()

    ours.in_a_rank(what)


def loaded(folder, threads: int):
    """Batches of decoded images, without an end."""
    import torch

    from relaunch.models import vision

    vision.ready()
    from torchvision import transforms as t
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(threads)
    normalise = t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    each = [t.RandomCrop(64, padding=8), t.RandomHorizontalFlip(), t.ToTensor(), normalise]
    data = ImageFolder(folder, t.Compose(each))
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=0, drop_last=True)
    while True:
        yield from loader


def decoded(turns, folder, threads: int) -> None:
    batches = loaded(folder, threads)

    def steps(n: int) -> None:
        for _ in range(n):
            next(batches)

    turns(steps=steps)


def training_folder(archive: Path, into: str) -> Path:
    """The folder `train` of the originals, unpacked if need be. Failure 65 where there is none."""
    if archive.is_file():
        with zipfile.ZipFile(archive) as file:
            names = [name for name in file.namelist() if "/train/" in name and name.endswith(".JPEG")]
            file.extractall(into, names)
        archive = Path(into)
    found = next((p for p in (archive / "train", *archive.glob("*/train")) if p.is_dir()), None)
    if found is None:
        raise Failure(DATA, f"no originals of Tiny-ImageNet at {archive.name or 'no path'}", "")
    return found


@contextmanager
def originals(bench: Bench):
    """The folder of the training images. Failure 65 where there is none."""
    archive = bench.args.archive or Path(os.environ.get("RELAUNCH_DATA_ARCHIVES") or "unset", ARCHIVE)
    with tempfile.TemporaryDirectory() as into:
        yield training_folder(Path(archive), into)


def measure(bench: Bench) -> None:
    bench.packed("tiny_imagenet")
    with (
        originals(bench) as folder,
        Child(packed_batches, bench.root, bench.threads) as mine,
        Child(planar, bench.root, bench.threads) as first,
        Child(decoded, folder, bench.threads) as files,
    ):
        found, how = {"packed": mine.side(), "files": files.side()}, dict(unit="batch", least=True)
        bench.compare("crop + flip + normalise", found, BATCH, bound=17, before="5.4", **how)
        found = {"planar": first.side(), "files": files.side()}
        bench.compare("the same, channels first", found, BATCH, **how)


ARGUMENT = {"--archive": dict(metavar="PATH", help="originals (default: in $RELAUNCH_DATA_ARCHIVES)")}

if __name__ == "__main__":
    program(measure, __doc__, ARGUMENT)
