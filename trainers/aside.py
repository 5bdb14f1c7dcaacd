"""What a restore kept aside: the checkpoints after the one it went back to, and the metrics of then.

    folder = put(run, 1200)       # RUN/checkpoints/aside-1
    said = back(run, folder)      # the run's checkpoints, metrics and status as they were before

No checkpoint has such a name, so versions that know nothing of it pass it by. Its aside.json is written last
and removed first: a folder without one is on its way, to the side or back, and both go on with it. Both are
for the process that holds the run's lock. Never imports torch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from relaunch.data_prep import files
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

NAME = re.compile(r"aside-[0-9]{1,9}")
FACTS = "aside.json"


def number(folder: Path) -> int:
    return int(folder.name.removeprefix("aside-"))


def folders(run: RunDir) -> list[Path]:
    """What is kept aside, oldest first."""
    found = (run.checkpoints / name for name in records.names(run.checkpoints) if NAME.fullmatch(name))
    return sorted(found, key=number)


def steps(folder: Path) -> list[int]:
    return [records.step_of(path) for path in records.within(folder)]


def facts(folder: Path) -> dict:
    """`step`: what the restore went back to; `status`: the run's, before it. Empty for one on its way."""
    return records.read(folder / FACTS, {"step": int, "status": dict})


def bases(run: RunDir) -> set[int]:
    """The steps that restores went back to: there the runs of what is kept aside and of what is not part."""
    return {step for folder in folders(run) if (step := facts(folder).get("step")) is not None}


def put(run: RunDir, step: int, but: Path | None = None) -> Path | None:
    """Keep aside what came after `step`, in the folder that it returns; None if there is nothing. OSError.

    Into one that is on its way, as a kill leaves it, unless that is `but` or holds the same steps.
    """
    later = [path for path in records.checkpoints(run) if records.step_of(path) > step]
    there = folders(run)
    steps_of = {records.step_of(path) for path in later}
    begun = [f for f in there if f != but and not facts(f) and not steps_of & set(steps(f))]
    if not later and not begun:
        return None
    folder = begun[-1] if begun else run.checkpoints / f"aside-{max(map(number, there), default=0) + 1}"
    folder.mkdir(exist_ok=True)
    kept = folder / run.metrics.name
    if os.path.lexists(run.metrics) and not kept.exists():
        with files.open_plain(run.metrics) as f:
            files.write_atomic(kept, f.read())
    for path in reversed(later):  # at each moment the run is one that was killed a few checkpoints earlier
        os.rename(path, folder / path.name)
    told = {"schema": 1, "step": step, "status": records.status(run)}
    files.write_atomic(folder / FACTS, files.dump_json(told))
    files.sync(run.checkpoints)
    return folder


def back(run: RunDir, folder: Path) -> tuple[dict, Path | None]:
    """Bring back what is kept aside in `folder`; what came after the same step since then is kept aside.

    Returns the run's status of then, empty if it is not known, and where that is kept. OSError.
    """
    told, theirs = facts(folder), records.within(folder)
    other = None
    if theirs:
        other = put(run, told.get("step", records.step_of(theirs[0]) - 1), but=folder)
        if (kept := folder / run.metrics.name).exists():
            files.write_atomic(run.metrics, kept.read_bytes())
    (folder / FACTS).unlink(missing_ok=True)
    for path in theirs:
        os.rename(path, run.checkpoints / path.name)
    files.sync(run.checkpoints)
    files.remove(folder)
    return told.get("status", {}), other
