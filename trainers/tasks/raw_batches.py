"""Images as people load them who do not pack: the original files, transforms of each sample, a DataLoader.

    batches = RawBatches(task, config, packed, device, rank=0, world=1)     # --input raw --workers 4

Samples, order and augmentation are ImageBatches', and so are the bits that the model gets: the workers draw
nothing, they compute what belongs to (seed, epoch, id). A worker reads, decodes, mirrors, shifts and
normalises one sample after another; whole batches come back, ahead of the training by two for each worker.
"""

from __future__ import annotations

import atexit
import ctypes
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.popen_fork import Popen
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from relaunch.data_prep.errors import DIED, Failure
from relaunch.data_prep.originals import originals
from relaunch.data_prep.packed import Packed
from relaunch.models import vision
from relaunch.trainers.group.process import PR_SET_PDEATHSIG, SIGNALS
from relaunch.trainers.tasks import order
from relaunch.trainers.tasks.image_batches import ImageBatches, Images
from relaunch.trainers.tasks.sample_batches import SampleBatches, moved


class Transformed(Dataset):
    """Sample (epoch, id): its picture float32 [C,H,W] as the model gets it, and its label."""

    def __init__(self, found, seed: int, crop: int, flip: bool, scale: Tensor, shift: Tensor):
        """`found`: originals; `scale` and `shift` [C,1,1] make of 0..255 what is normalised."""
        self.found, self.seed, self.crop, self.flip = found, seed, crop, flip
        self.scale, self.shift = scale, shift

    def __getitem__(self, which: tuple[int, int]) -> tuple[Tensor, int] | Failure:
        from PIL import Image

        vision.ready()
        from torchvision.transforms import functional as F

        epoch, row = which
        try:
            pixels = self.found.pixels(row)
        except Failure as failure:  # an exception would come back with this process's traceback in its text
            return failure
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        if self.crop or self.flip:
            key = order.key("augment", self.seed, epoch)
            u = order.uniforms(key, np.array([row]), 3)[0]
            if self.flip and u[2] < 0.5:
                picture = F.hflip(picture)
            if self.crop:
                top, left = (int(n) for n in np.floor(u[:2] * (2 * self.crop + 1)))
                padded = F.pad(picture, [self.crop])
                picture = F.crop(padded, top, left, picture.height, picture.width)
        x = F.pil_to_tensor(picture).to(torch.float32).mul_(self.scale).add_(self.shift)
        return x, int(self.found.labels[row])


class RawImages(Images):
    """The packed split, of which nothing is read: what comes to `normalise` has been."""

    def __init__(self, packed: Packed, device: torch.device):
        super().__init__(packed, "train", torch.device("cpu"))
        self.device, self.mapped = device, None

    def normalise(self, x: Tensor) -> Tensor:
        return x

    def pixels(self, x: Tensor) -> Tensor:
        return super().pixels(x.cpu())


class RawBatches(ImageBatches):
    """The training split (see task.Batches), by a DataLoader that begins where the training does."""

    data: RawImages

    def __init__(self, task, config, packed, device, rank, world):
        super().__init__(task, config, packed, device, rank, world)
        found = originals(packed, Path(config.raw) if config.raw else None)
        scale, shift = self.data.scale[0], self.data.shift[0]
        self.dataset = Transformed(found, config.seed, self.crop, bool(self.flip), scale, shift)
        self.next: tuple[int, int] | None = None  # step and micro-batch that the loader gives next
        self.last: tuple[Any, Any] = (None, None)  # and what it gave last: a first batch is looked at, too
        self.loading: Iterator | None = None
        atexit.register(leave, weakref.ref(self))

    def opened(self, packed: Packed) -> RawImages:
        return RawImages(packed, self.device)

    def start_epoch(self, epoch: int) -> None:
        SampleBatches.start_epoch(self, epoch)  # the workers augment

    def picked(self, step: int, rows: slice, part: slice) -> tuple[Tensor, ...]:
        """float32 [B,C,H,W] and labels [B] on the device; with CutMix as ImageBatches.picked."""
        micro = part.start // (part.stop - part.start) - self.rank * self.config.grad_accum_steps
        x, labels = (moved(t, self.device) for t in self.loaded(step, micro))
        if not self.cutmix:
            return x, labels
        own = part.stop - part.start
        mask = torch.from_numpy(self.patches(step, np.arange(part.start, part.stop), x.shape[2:])[1])
        _, place = self.wanted(step, micro)
        place, mask = moved(place, self.device), moved(mask, self.device)
        mixed = torch.where(mask[:, None], x[place], x[:own])
        return mixed, labels[:own], labels[place], 1 - mask.flatten(1).float().mean(1)

    # loading ------------------------------------------------------------------------------------------------

    def wanted(self, step: int, micro: int) -> tuple[np.ndarray, Tensor]:
        """Places in the global batch of what is loaded for a micro-batch, its own samples first; and with
        CutMix where among them each one's partner is, int64 [B].
        """
        c = self.config
        part = order.share(c.batch_size, self.world, c.grad_accum_steps, self.rank, micro)
        own = np.arange(part.start, part.stop)
        if not self.cutmix:
            return own, torch.arange(len(own))
        partners, _ = self.patches(step, own, (1, 1))
        others = np.setdiff1d(partners, own)
        all_ = np.concatenate([own, others])
        sorting = np.argsort(all_)
        return all_, torch.from_numpy(sorting[np.searchsorted(all_[sorting], partners)])

    def samples(self, step: int, micro: int) -> Iterator[list[tuple[int, int]]]:
        """(epoch, id) of each sample to load, of this micro-batch and all that follow."""
        c, drawn, ids = self.config, -1, np.zeros(0)
        while True:
            epoch, i = divmod(step, self.steps_per_epoch)
            if epoch != drawn:
                drawn, ids = epoch, order.permutation(c.seed, epoch, len(self.data))
            places, _ = self.wanted(step, micro)
            yield [(epoch, int(row)) for row in ids[i * c.batch_size + places]]
            step, micro = (step, micro + 1) if micro + 1 < c.grad_accum_steps else (step + 1, 0)

    def loaded(self, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """float32 [n,C,H,W] and labels int64 [n] of `wanted`."""
        if self.last[0] != (step, micro):
            if self.next != (step, micro):
                self.begin(step, micro)
            assert self.loading is not None  # which has a length that is none
            try:
                batch = next(self.loading)
            except (RuntimeError, OSError, EOFError) as error:  # or its line to us breaks first
                ours = isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)
                if ours or not self.config.workers:
                    raise
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                what = f"a worker of --input raw died ({reason})"
                raise Failure(DIED, what, "see whether memory ran out: fewer --workers need less") from error
            self.next = (step, micro + 1) if micro + 1 < self.config.grad_accum_steps else (step + 1, 0)
            if isinstance(batch, Failure):
                raise batch
            self.last = (step, micro), batch
        return self.last[1]

    def begin(self, step: int, micro: int) -> None:
        """Start the loader, and its workers, at this micro-batch."""
        self.close()
        loader = DataLoader(
            self.dataset,
            batch_sampler=self.samples(step, micro),  # one pass over all epochs
            num_workers=self.config.workers,
            collate_fn=together,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=alone if self.config.workers else None,
            multiprocessing_context=Context() if self.config.workers else None,
            generator=torch.Generator(),  # or it would draw from the one that dropout has
        )
        before = signal.getsignal(signal.SIGCHLD)
        self.loading = iter(loader)
        if threading.current_thread() is threading.main_thread():
            # torch's handler raises a worker's death wherever this process is just then; `next` finds it, too
            signal.signal(signal.SIGCHLD, before)

    def close(self) -> None:
        """End the workers."""
        self.loading, self.next = None, None


class Ended(Popen):
    def terminate(self):
        self.kill()  # SIGTERM says nothing to a worker, see `alone`


class Worker(ForkProcess):
    @staticmethod
    def _Popen(process):
        return Ended(process)


class Context(ForkContext):
    Process = Worker


def leave(batches: weakref.ref[RawBatches]) -> None:
    if found := batches():
        found.close()


def together(samples: list) -> Any:
    """A batch of samples; a Failure, if one of them is."""
    return next((s for s in samples if isinstance(s, Failure)), None) or default_collate(samples)


def alone(worker: int) -> None:
    """A worker of the loader leaves with the process that trains, however that ends, and not before it: a
    signal to all of them is that one's to answer.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
