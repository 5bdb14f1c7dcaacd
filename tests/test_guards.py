"""Each guard of a run's work taken away, one after the other: then one of our checks fails."""

import os
import re
import shutil
import stat
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from storms import crashes

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.trainers import records, snapshot
from relaunch.trainers.group import faults
from relaunch.trainers.group.runtime import Runtime
from relaunch.trainers.metrics import Metrics
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.saving import Saver
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.checkpoint import State
from relaunch.trainers.weights.kept import Kept
from rigs.forked import Ranks
from rigs.runs import outcome, sha256, steps

# checks: what is wrong, of a folder of their own ------------------------------------------------------------


def power_cuts(folder) -> list:
    return crashes.cuts(folder, "saves", crashes.saves).wrong(16)[1]


def power_cuts_without_swaps(folder) -> list:
    replay = crashes.cuts(folder, "saves", crashes.saves, crashes.cannot_swap)
    return replay.wrong(16, swaps=False)[1]


def a_disk_that_lies(folder) -> list:
    """What was synced is lost, too: then nothing is taken that was not saved."""
    recorded = crashes.cuts(folder, "saves", crashes.saves).log
    return crashes.Replay(recorded, "run", folder / "lies", lies=True).wrong(16)[1]


def power_cuts_of_a_run(folder) -> list:
    return crashes.cuts(folder, "whole", crashes.whole).wrong(4)[1]


def two_names(folder) -> RunDir:
    """A run with two whole checkpoints."""
    run = RunDir(folder / "run")
    for step in (10, 20):
        facts = {name: step for name in checkpoint.FACTS}
        weights = {"weight": torch.full((9,), float(step))}
        checkpoint.save(run, State(weights, {}, {**facts, "best": None}), keep=2)
    return run


def swapped_names(folder) -> list:
    run = two_names(folder)
    assert files.exchange(run.checkpoint(10), run.checkpoint(20))
    try:
        return [f"{checkpoint.newest_valid(run)} was taken, under another's name"]
    except Failure:
        return []


def all_gone(folder) -> list:
    run = two_names(folder)
    run.write_status("running", step=20)
    shutil.rmtree(run.checkpoints)
    try:
        return [f"a new beginning: {checkpoint.newest_valid(run)}"]
    except Failure:
        return []


def two_owners(folder) -> list:
    one, other = RunDir(folder), RunDir(folder)
    one.lock()
    try:
        other.lock(wait=0, says=False)
        return ["two own it"]
    except Failure:
        return []
    finally:
        for run in (one, other):
            run._lock.close()


def not_finite(folder) -> list:
    facts = {name: 1 for name in checkpoint.FACTS}
    state = State({"weight": torch.tensor([1.0, float("nan")])}, {}, {**facts, "best": None})
    try:
        return [checkpoint.save(RunDir(folder), state, keep=1)]
    except Failure:
        return []


def bytes_of_other_steps(folder, **late) -> list:
    """Two saves, each written when the training is further; the same, each at its step."""
    keep, names = ("--keep", "9", "--run"), ("model.safetensors", "optimizer.safetensors")
    crashes.training(*keep, str(folder / "late"), **late)
    end_of_saves()
    crashes.training(*keep, str(folder / "soon"), written=())
    end_of_saves()
    places = [f"checkpoints/step-{step:09d}/{name}" for step in (4, 8) for name in names]
    late, soon = ([folder / run / place for place in places] for run in ("late", "soon"))
    return [str(a) for a, b in zip(late, soon) if not (a.exists() and b.exists() and sha256(a) == sha256(b))]


def bytes_of_the_next_save(folder) -> list:
    """The first is written after the second, at step 8: with its guard the training waits for it there."""
    patience = 2 if folder.name == "with" else 60
    return bytes_of_other_steps(folder, written=((4, 9), (8, 10)), patience=patience)


def left_before_it_was_saved(folder) -> list:
    """The last save takes a while, and one that was in flight as a training crashes."""
    crashes.training("--run", str(folder / "run"), "--stop-after", "6", written=((6, 99),), patience=2)
    found = steps(folder / "run")
    end_of_saves()
    return [] if found == [6] else [f"stopped at step 6, saved {found}"]


def crashed_before_it_was_saved(folder) -> list:
    faults.arm("step=6,do=raise")
    with pytest.raises(AssertionError, match="RELAUNCH_FAULT at step 6"):
        crashes.training("--run", str(folder / "run"), written=((4, 99),), patience=2)
    faults.arm("")
    found = steps(folder / "run")
    end_of_saves()
    return [] if found == [4] else [f"crashed at step 6, saved {found}"]


def end_of_saves():
    for thread in threading.enumerate():
        if thread.name.startswith("save step"):
            thread.join()


def rows_twice(folder) -> list:
    """What was logged after the checkpoint that a run goes on from."""
    crashes.training("--run", str(folder / "whole"))
    faults.arm("step=7,do=raise")
    with pytest.raises(AssertionError, match="RELAUNCH_FAULT at step 7"):
        crashes.training("--run", str(folder / "run"), written=())
    faults.arm("")
    crashes.training("--run", str(folder / "run"), "--resume", "auto", written=())
    rows = [[(r["step"], r["split"]) for r in records.metrics(RunDir(folder / n))] for n in ("run", "whole")]
    return [] if rows[0] == rows[1] else rows


def other_weights_of_three_ranks(folder) -> list:
    command = [*crashes.NET.split(), "--batch-size", "12", "--run"]
    codes = Ranks(3, [*command, str(folder / "whole")], folder).end()
    codes += Ranks(3, [*command, str(folder / "run"), "--stop-after", "5"], folder).end()
    codes += Ranks(3, [*command, str(folder / "run"), "--resume", "auto"], folder).end()
    assert codes == [0, 0, 0, 75, 75, 75, 0, 0, 0]
    return [] if outcome(folder / "run") == outcome(folder / "whole") else ["it ends with other weights"]


def left_alone(folder) -> list:
    """One of two ranks is told to stop: both save, and leave with the same code."""
    command = [*crashes.NET.split(), "--timeout", "20", "--run", str(folder / "run")]
    with patch.dict(os.environ, {"RELAUNCH_FAULT": "step=5,rank=1,do=term"}):
        ranks = Ranks(2, command, folder)
    codes = ranks.end()
    return [] if codes == [75, 75] else [codes, ranks.said()]


# guards -----------------------------------------------------------------------------------------------------


def unsynced(which):
    """`files.through` without those descriptors for which `which(path, is a folder)`."""

    def remove(monkeypatch):
        through = files.through

        def some(descriptor):
            folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            if not which(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, folder):
                through(descriptor)

        monkeypatch.setattr(files, "through", some)

    return remove


def without(owner, name: str, instead):
    return lambda monkeypatch: monkeypatch.setattr(owner, name, instead)


def older_first(monkeypatch):
    """What is older goes before the new one is committed."""
    commit = checkpoint.commit

    def early(run, *rest):
        for path in checkpoint.checkpoints(run):
            files.remove(path)
        return commit(run, *rest)

    monkeypatch.setattr(checkpoint, "commit", early)


class InParts:
    """`os`, whose rename brings a checkpoint to its place file by file."""

    def __getattr__(self, name):
        return getattr(os, name)

    @staticmethod
    def rename(one, other):
        if not str(one).endswith(".part"):
            return os.rename(one, other)
        os.mkdir(other)
        for name in sorted(os.listdir(one)):
            files.write_synced(Path(other, name), Path(one, name).read_bytes())
        files.sync(other)


def believed(monkeypatch):
    """Each file has the hash that the manifest says."""
    sha256 = files.sha256

    def said(path):
        try:
            return files.read_json(path.parent / "MANIFEST.json")["files"][path.name]["sha256"]
        except (Failure, LookupError):
            return sha256(path)

    monkeypatch.setattr(files, "sha256", said)


def copied_late(monkeypatch):
    """The state is copied when it is written."""
    copy = Kept.copy

    def later(kept, tensors):
        kept.later = tensors

    monkeypatch.setattr(Kept, "copy", later)
    monkeypatch.setattr(Kept, "wait", lambda kept: copy(kept, kept.later))


GUARDS = {
    "fsync of files": (unsynced(lambda name, folder: not folder), power_cuts),
    "fsync of folders": (unsynced(lambda name, folder: folder), power_cuts),
    "fsync of the part": (unsynced(lambda name, folder: name.endswith(".part") and folder), power_cuts),
    "fsync of checkpoints/": (unsynced(lambda name, folder: name == "checkpoints"), power_cuts),
    "fsync of the run's folder": (unsynced(lambda name, folder: name == "run"), power_cuts),
    "rename into its place": (without(checkpoint, "os", InParts()), power_cuts),
    "swap of two names": (without(files, "exchange", crashes.cannot_swap), power_cuts),
    "older ones go last": (older_first, power_cuts),
    "recovery": (without(checkpoint, "recover", lambda run: None), power_cuts_without_swaps),
    "hash": (believed, a_disk_that_lies),
    "name": (without(checkpoint, "NAME", re.compile("(?!)")), swapped_names),
    "signs of a checkpoint": (without(records, "signs", lambda run: []), all_gone),
    "lock": (without(RunDir, "_owned", lambda run: True), two_owners),
    "finite numbers": (without(Kept, "not_finite", lambda kept: None), not_finite),
}
TRAINED = {
    "metrics before their checkpoint": (
        without(Metrics, "to_disk", lambda metrics: None),
        power_cuts_of_a_run,
    ),
    "copy at the step's boundary": (copied_late, bytes_of_other_steps),
    "one in flight": (without(Saver, "end", lambda saver, last=False: None), bytes_of_the_next_save),
    "wait at the end": (without(Saver, "end", lambda saver, last=False: None), left_before_it_was_saved),
    "drain": (without(Saver, "drain", lambda saver: None), crashed_before_it_was_saved),
    "cut of metrics": (without(RunDir, "cut_metrics", lambda run, *at: None), rows_twice),
    "agreement": (without(Runtime, "agree", lambda runtime, flag: flag), left_alone),
    "warm-up of DDP": (without(snapshot, "warm_up", lambda training: None), other_weights_of_three_ranks),
}


HELD = set()  # checks that found nothing with all guards in their places: once is enough


def shown(folder, guard, check, monkeypatch):
    for name in ("with", "without"):
        (folder / name).mkdir()
    assert check in HELD or not check(folder / "with")
    HELD.add(check)
    with monkeypatch.context() as removed:
        guard(removed)
        found = check(folder / "without")
    assert found


@pytest.mark.parametrize("guard, check", GUARDS.values(), ids=GUARDS)
def test_without_it_a_check_fails(tmp_path, monkeypatch, guard, check):
    shown(tmp_path, guard, check, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("guard, check", TRAINED.values(), ids=TRAINED)
def test_without_it_a_training_loses_work(relaunch_env, signals, monkeypatch, guard, check):
    shown(relaunch_env, guard, check, monkeypatch)
