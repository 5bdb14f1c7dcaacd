"""A power cut behind each call of saves and of what a run writes beside them, and what a reader then finds.

Of a run that saves at steps 4, 8 and 12, each beside the two steps that follow it, and keeps one; of one that
was stopped and goes on; of the same step saved again. The disk is as a cut may leave it: see rigs/crashes.py.

What must hold: once there was a checkpoint, one is found by its name, no older than the last one that was
committed; it is one that was saved, byte for byte, and the rows that it seals are there; before, the run
begins again. Small files are whole or not there. Resumed, it ends as it would have.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import torch

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.trainers import logged, records, rundir, train
from relaunch.trainers.loop import Training
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.saving import Saver
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.checkpoint import State
from rigs.crashes import Disk, Op, Recorder
from rigs.runs import outcome
from storms.damage import Case

NET = "cifar10 --arch net --batch-size 8 --max-steps 12 --save-every 4 --log-interval 1 --keep 1 --threads 1"
SMALL = ("config.json", "plan.json", "status.json", "time.json")


def recorded(folder: Path, what) -> Recorder:
    """Do `what`; the checkpoints are told as they are committed, before anything older goes."""
    log, prune = Recorder(folder), checkpoint.prune

    def told(run, newest, *rest):
        log.note((newest, contents(run.checkpoint(newest))))
        prune(run, newest, *rest)

    with patch.object(checkpoint, "prune", told), log:
        what()
    return log


def contents(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in (*checkpoint.FILES, "MANIFEST.json")}


def training(*flags: str, written=((4, 6), (8, 10)), patience: float = 60.0) -> None:
    """Saves are written in the same order each time: `written` (saved, at which step), as the training waits.

    After `patience` s one is written that the training does not come to.
    """
    gates = {step: (later, threading.Event(), threading.Event()) for step, later in written}
    work, advance = Saver.work, Training.advance

    def waits(saver, training, open_sums):
        commit, at = work(saver, training, open_sums), gates.get(training.step)
        if at is None:
            return commit
        _, gate, done = at

        def later():
            gate.wait(patience)
            try:
                commit()
            finally:
                done.set()

        return later

    def advanced(training):
        advance(training)
        for later, gate, done in gates.values():
            if training.step == later:
                gate.set()
                done.wait()

    with patch.object(Saver, "work", waits), patch.object(Training, "advance", advanced):
        said = Case(train.run, *NET.split(), *flags)
    assert said.code == (75 if "--stop-after" in flags else 0), said.err + said.trace


def whole() -> None:
    training("--run", "./run")


def stopped() -> None:
    training("--run", "./run", "--stop-after", "6")
    training("--run", "./run", "--resume", "auto")


def saves() -> None:
    """Three of a few numbers, the last two of one step, as after an evaluation that a stop had cut short."""
    rundir.make(Path("run"), exist_ok=True)
    for step, best in ((10, None), (20, None), (20, 10)):
        facts = {name: step for name in checkpoint.FACTS}
        meta = {**facts, "best": best and {"step": best}}
        weights = torch.full((30,), float(step))
        checkpoint.save(RunDir("run"), State({"weight": weights}, {"momentum": weights / 2}, meta), keep=1)


def cannot_swap(one, other) -> bool:
    """A disk that cannot give two names to each other in one step."""
    return False


class Replay:
    """Disks of a recording, laid one after the other and read."""

    def __init__(self, log: Recorder, run: str, folder: Path, lies: bool = False):
        """`run`: its folder in the recorded one; `lies`: the disk had synced nothing, whatever it said."""
        self.log, self.name, self.folder, self.lies = log, run, folder / "replayed", lies
        folder.mkdir(exist_ok=True)
        self.store: dict[bytes, Path] = {}
        self.saved: dict[int, list[dict]] = {}
        if lies:
            log.ops = [op for op in log.ops if not isinstance(op, Op) or op.change is not None]
        for step, content in (op for op in log.ops if isinstance(op, tuple)):
            self.saved.setdefault(step, []).append(content)

    def disks(self, most: int, seed: int = 0) -> Iterator[tuple[Disk, RunDir]]:
        for disk in self.log.disks(most, seed):
            disk.lay(self.folder, self.store)
            yield disk, RunDir(self.folder / self.name)

    def wrong(self, most: int = 32, seed: int = 0, swaps: bool = True) -> tuple[int, list[str]]:
        """How many disks there were, and what is wrong with some; `swaps`: the disk can swap two names."""
        count, wrong = 0, []
        for disk, run in self.disks(most, seed):
            count += 1
            found = self.read(run, disk) if swaps else ""
            found = found or self.taken_up(run, disk)
            wrong += [f"{disk.said}: {found}"] if found else []
        return count, wrong

    def taken_up(self, run: RunDir, disk: Disk) -> str:
        """As who owns the run takes it up."""
        if not checkpoint.leftovers(run):
            return ""
        checkpoint.recover(run)
        found = self.read(run, disk)
        checkpoint.sweep(run)
        if found or checkpoint.leftovers(run):
            return f"taken up: {found or 'something is left over'}"
        return self.read(run, disk)

    def read(self, run: RunDir, disk: Disk) -> str:
        committed = max((step for step, _ in disk.notes), default=None)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                found = checkpoint.newest_valid(run)
        except Failure as failure:
            return "" if self.lies else f"refused: {failure.line()}"
        if self.lies:
            return "" if not found or self.was_saved(found) else f"{found} is not what was saved"
        if found is None:
            return "" if committed is None else f"it begins again, and step {committed} was committed"
        step = checkpoint.step_of(found)
        if committed is not None and step < committed:
            return f"step {step} is found, and {committed} was committed"
        if not self.was_saved(found):
            return f"{found} is not what was saved"
        odd = [name for name in SMALL if name in records.damaged(run)]
        return logged.changed(run, step) or (f"{odd} are no whole files" if odd else "")

    def was_saved(self, found: Path) -> bool:
        return contents(found) in self.saved.get(checkpoint.step_of(found), [])


def resumed(replay: Replay, folder: Path, most: int, every: int) -> tuple[int, list[str]]:
    """Every so many of the disks is gone on with, and ends as the run `whole` has."""
    count, wrong, run = 0, [], RunDir(folder / "again")
    for n, (disk, laid) in enumerate(replay.disks(most)):
        if n % every == every // 2:
            count += 1
            shutil.rmtree(run.path, ignore_errors=True)
            if laid.path.exists():
                shutil.copytree(laid.path, run.path)
            said = Case(train.run, *NET.split(), "--run", str(run.path), "--resume", "auto")
            if said.code or outcome(run.path) != outcome(folder / "whole"):
                wrong.append(f"{disk.said}: resumed, it ends otherwise: {said.code} {said.err}{said.trace}")
    return count, wrong


def cuts(folder: Path, name: str, what, swap=None) -> Replay:
    """The disks of `what`, which is done in a folder of this name."""
    (folder / name).mkdir()
    with contextlib.chdir(folder / name), patch.object(files, "exchange", swap or files.exchange):
        return Replay(recorded(folder / name, what), "run", folder / f"{name}-disks")


def storm(
    folder: Path, most: int = 64, every: int = 25, seed: int = 0
) -> Iterator[tuple[str, int, list[str]]]:
    """(what was done, cases, what is wrong)."""
    training("--run", str(folder / "whole"))
    for name, what in (("run", whole), ("run gone on with", stopped)):
        replay = cuts(folder, name, what)
        yield f"power cuts of a {name}", *replay.wrong(most, seed)
        yield f"power cuts of a {name}, resumed", *resumed(replay, folder, most, every)
    for name, swap in (("a disk", None), ("a disk that cannot swap names", cannot_swap)):
        found = cuts(folder, name, saves, swap).wrong(most, seed, swap is not cannot_swap)
        yield f"power cuts of a step saved again, on {name}", *found
