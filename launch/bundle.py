"""A run as one verified file, to move it between machines. Never imports torch, and runs nothing of a run.

relaunch bundle first
relaunch unbundle first.tar
"""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.data_prep.names import beside, listed, offered, quoted
from relaunch.data_prep.talk import tell
from relaunch.launch import bundled
from relaunch.launch.checkpoints import best_step, go_on, mb, numbers
from relaunch.launch.runs import found
from relaunch.trainers import aside, records, rundir
from relaunch.trainers.flags import Parser
from relaunch.trainers.records import step_of
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint

BUNDLE = """\
Write a run into one file, which moves it to another machine: records, curves, predictions, logs, and its
newest and best checkpoints. Each byte is checked where it is unpacked. Packed data sets are not in it.

  relaunch bundle first                          first.tar
  relaunch bundle first --all-checkpoints --out /scratch/first.tar

Of a run that is being trained it takes what is saved by now."""
UNBUNDLE = """\
Make a run of a file that `relaunch bundle` wrote. It is there whole, each byte checked, or not at all.

  relaunch unbundle first.tar                    runs/first
  relaunch unbundle first.tar --run again"""


# bundle -----------------------------------------------------------------------------------------------------


def chosen(run: RunDir, every: bool) -> list[Path]:
    """The checkpoints to take: the newest valid one and the best, or all that are whole. Failure 65."""
    newest = checkpoint.newest_valid(run)
    if newest is None:
        return []
    checkpoint.refuse_anothers(run, newest)
    best = best_step(newest)
    wanted = [p for p in records.committed(run) if every or p == newest or step_of(p) == best]
    found = []
    for path in wanted:
        try:
            if path != newest:
                checkpoint.verify(path)
                checkpoint.refuse_anothers(run, path)
            found.append(path)
        except Failure as failure:
            if path.exists():  # else its training has dropped it since
                tell(f"relaunch: {failure.what}; left out", sys.stderr)
    return found


def members(run: RunDir, checkpoints: list[Path]) -> tuple[dict[str, Path | bytes], list[str]]:
    """A run's files by their names in the bundle, and the names of what is left out, as links are."""
    taken: dict[str, Path | bytes] = {}
    odd = []
    for folder, below, names in os.walk(run.path):
        here = Path(folder)
        links = [name for name in below if (here / name).is_symlink() and here / name != run.checkpoints]
        odd += [str((here / name).relative_to(run.path)) for name in links if not name.startswith(".")]
        below[:] = sorted(n for n in below if not n.startswith(".") and here / n != run.checkpoints)
        for path in (here / name for name in sorted(names) if not name.startswith(".")):
            with suppress(FileNotFoundError):  # removed while we looked
                name = str(path.relative_to(run.path))
                if stat.S_ISREG(path.lstat().st_mode):
                    taken[name] = path
                else:
                    odd.append(name)
    taken.pop(run.stop.name, None)
    for path in checkpoints:
        taken |= {f"checkpoints/{path.name}/{n}": path / n for n in (*checkpoint.FILES, "MANIFEST.json")}
    return taken, odd


def as_saved(run: RunDir, newest: Path | None) -> bytes:
    """A status.json that says what the copy of a running run is: stopped at its newest checkpoint."""
    step = step_of(newest) if newest else 0
    reason = (
        f"bundled at step {step:,} while it was trained on {records.plan(run).get('host', 'its machine')}"
    )
    told = {"state": "preempted", "code": PREEMPTED, "step": step, "saved": step, "reason": reason}
    return files.dump_json(records.status(run) | told).encode()


def check(checkpoints: list[Path], entries: dict[str, dict]) -> None:
    """Failure 65 unless what was read is what was verified: a disk may fail in between."""
    for path in checkpoints:
        for name, facts in files.read_json(path / "MANIFEST.json")["files"].items():
            if entries[f"checkpoints/{path.name}/{name}"]["sha256"] != facts["sha256"]:
                raise Failure(DATA, f"{path / name} changed while it was read", "run it again")


def main_bundle(argv: list[str]) -> int:
    parser = Parser(prog="relaunch bundle", description=BUNDLE)
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("--out", metavar="FILE", help="a new file [RUN.tar, here]")
    parser.add_argument("--all-checkpoints", action="store_true", help="not only the newest and the best")
    args = parser.parse_args(argv)
    run = found(args.run)
    name = run.path.resolve().name.lstrip(".") or "run"
    out = Path(args.out or f"{name}.tar")
    if os.path.lexists(out):
        raise Failure(USAGE, f"{out} exists", "remove it, or name another file with --out")
    if run.held():
        tell(f"{run.path} is being trained: what it has saved by now is bundled", sys.stderr)
    checkpoints = chosen(run, args.all_checkpoints)
    taken, odd = members(run, checkpoints)
    if records.status(run).get("state") == "running":
        taken[run.status.name] = as_saved(run, checkpoints[-1] if checkpoints else None)
    with files.storage(out, "--out FILE"), files.replacing(out) as f:
        entries = bundled.write(f, name, taken)
        check(checkpoints, entries)
    size = sum(entry["bytes"] for entry in entries.values())
    steps = [*map(step_of, checkpoints)]
    saved = f"the checkpoint{'s' * (len(steps) > 1)} of {numbers(steps)}" if steps else "no checkpoint yet"
    tell(f"{out}: {len(entries):,} files of {run.path}, {mb(size)}, with {saved}")
    others = [step for path in records.committed(run) if (step := step_of(path)) not in steps]
    if others and not args.all_checkpoints:
        tell(f"left out: {numbers(others)}; --all-checkpoints takes them")
    left = [*odd, *(folder.name for folder in aside.folders(run))]
    if left:
        tell(f"left out: {listed(left)}")
    tell(f"where it goes: relaunch unbundle {quoted(out.name)}")
    return 0


# unbundle ---------------------------------------------------------------------------------------------------


def main_unbundle(argv: list[str]) -> int:
    parser = Parser(prog="relaunch unbundle", description=UNBUNDLE)
    parser.add_argument("file", metavar="FILE", help="what relaunch bundle wrote")
    parser.add_argument("--run", metavar="NAME|PATH", help="a name under runs/, or a path [its name before]")
    args = parser.parse_args(argv)
    path = Path(args.file)
    if not os.path.lexists(path):
        raise Failure(
            DATA, f"no file {args.file!r}", offered(args.file, [b for b in beside(args.file) if ".tar" in b])
        )
    with bundled.opened(path) as bundle:
        run = RunDir(rundir.locate(args.run or bundle.run))
        if os.path.lexists(run.path):
            raise Failure(USAGE, f"{run.path} exists", "choose another name with --run")
        with files.storage(run.path, "--run PATH"):
            place(bundle, run.path)
    size = sum(entry["bytes"] for entry in bundle.files.values())
    steps = [*map(step_of, records.committed(run))]
    saved = f"with the checkpoint{'s' * (len(steps) > 1)} of {numbers(steps)}" if steps else "no checkpoint"
    tell(f"{run.path}: {len(bundle.files):,} files, {mb(size)}, each as it was bundled; {saved}")
    if records.status(run).get("state") != "done":
        tell(go_on(run))
    return 0


def place(bundle: bundled.Bundle, target: Path) -> None:
    """Unpack beside `target`, and give it that name once all is there. OSError; Failure 64 or 65."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for name in records.names(target.parent):
        found = re.fullmatch(rf"\.{re.escape(target.name)}\.(\d+)\.part", name)
        if found and not os.path.exists(f"/proc/{found[1]}"):  # of one that was killed
            files.remove(target.parent / name)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    whole = part / target.name  # one level down: what is half there is listed as no run
    try:
        whole.mkdir(parents=True)
        bundle.unpack(whole)
        files.sync_tree(whole)
        try:
            target.mkdir()
        except FileExistsError:
            what = f"{target} has come into being meanwhile"
            raise Failure(USAGE, what, "choose another name with --run") from None
        os.rename(whole, target)  # in the place of an empty folder, which is ours
        files.sync(target.parent)
    finally:
        files.remove(part)
