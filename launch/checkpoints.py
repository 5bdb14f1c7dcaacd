"""A run's checkpoints: list them, verify them, drop old ones, go back to an earlier one. Needs no torch.

relaunch checkpoints RUN
relaunch checkpoints RUN verify
relaunch checkpoints RUN prune --keep 2
relaunch checkpoints RUN restore 1200
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, STOPPED, STORAGE, USAGE, Failure
from relaunch.data_prep.names import listed, offered, quoted, table
from relaunch.data_prep.talk import give, tell
from relaunch.launch.runs import best_metric, duration, found
from relaunch.trainers import aside, logged, origin, records, rundir
from relaunch.trainers.flags import Parser
from relaunch.trainers.records import step_of
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.shapes import shaped
from relaunch.trainers.weights import checkpoint

ACTIONS = ("ls", "verify", "prune", "restore")
ABOUT = """\
List a run's checkpoints, verify them, drop old ones, or go back to an earlier one.

  relaunch checkpoints first                     what is there; the same as `ls`
  relaunch checkpoints first verify              every byte against the hashes it was written with
  relaunch checkpoints first verify 44 best
  relaunch checkpoints first prune --keep 1      all but the newest, the best and the one resumed from
  relaunch checkpoints first restore 44          the next --resume auto goes on from step 44
  relaunch checkpoints first restore best

What comes after a restored checkpoint is kept aside, and `restore aside-1` brings it back."""


def mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def numbers(steps) -> str:
    """`step 44`, `steps 44, 66`."""
    steps = [f"{step:,}" for step in steps]
    return f"step{'s' * (len(steps) > 1)} {listed(steps)}"


def best_step(newest: Path | None) -> int | None:
    """As the newest checkpoint tells."""
    best = records.read(newest / "state.json", {}).get("best") if newest else None
    return shaped(best, {"step": int}).get("step")


def resumed_from(run: RunDir) -> int | None:
    """The step of the checkpoint that the run's last start went on from."""
    return starts[-1]["step"] if (starts := records.starts(run)) else None


def remarks(run: RunDir, newest: Path | None) -> dict[int, list[str]]:
    """By step, what sets a checkpoint apart."""
    found: dict[int, list[str]] = {}
    for step, what in (
        (step_of(newest) if newest else None, "newest"),
        (best_step(newest), "best"),
        (resumed_from(run), "resumed from"),
        *((step, "restored") for step in aside.bases(run)),
    ):
        if step is not None:
            found.setdefault(step, []).append(what)
    return found


# ls ---------------------------------------------------------------------------------------------------------


def show(run: RunDir) -> str:
    scored = {r["step"]: best_metric(r) for r in records.metrics(run) if r["split"] == "val"}
    newest = records.committed(run)[-1:]
    epoch_steps, apart = records.plan(run).get("steps_per_epoch"), remarks(run, newest[0] if newest else None)
    rows = [("step", "epoch", "age", "size", "metric", "schema", "")]
    for path in records.checkpoints(run):
        step, manifest = step_of(path), path / "MANIFEST.json"
        written = records.written(manifest)
        rows.append(
            (
                f"{step:,}",
                f"{step / epoch_steps:.4g}" if epoch_steps else "",
                duration(max(0.0, time.time() - written)) if written else "",
                mb(records.size(path)),
                scored.get(step, ""),
                str(records.read(manifest, {}).get("schema", "")),
                ", ".join(apart.get(step, [])) if written else "not whole: it has no MANIFEST.json",
            )
        )
    lines = table(rows, left=len(rows[0])) if len(rows) > 1 else [f"{run.path} has no checkpoint"]
    for folder in aside.folders(run):
        kept = f"{numbers(aside.steps(folder))}, {mb(records.size(folder))}"
        since = aside.facts(folder).get("step")
        why = f"by the restore of step {since:,}" if since is not None else "by a restore that was cut short"
        lines.append(f"{folder.name}: {kept}, kept aside {why}; to bring it back: {undo(run, folder)}")
    being = "a save that is being made, or was killed" if run.held() else "what a killed save left"
    lines += [
        f"{path.name}: {mb(records.size(path))}, {being}; the next start removes it"
        for path in checkpoint.leftovers(run)
    ]
    return "\n".join(lines)


def undo(run: RunDir, folder: Path) -> str:
    name = run.path.name if run.path.parent == rundir.ROOT else run.argument
    return f"relaunch checkpoints {quoted(name)} restore {folder.name}"


# verify -----------------------------------------------------------------------------------------------------


def named(run: RunDir, word: str) -> Path:
    """The checkpoint that `44`, `@44` or `best` names. Failure 65 if it is not there."""
    word = word.removeprefix("@")
    steps = [str(step_of(path)) for path in records.checkpoints(run)]
    if word == "best":
        if (best := best_step(checkpoint.newest_valid(run))) is None:
            raise Failure(DATA, f"{run.path} has not been evaluated yet, so it has no best checkpoint")
        word = str(best)
    elif not word.isdecimal():
        raise Failure(USAGE, f"{word!r} is not a step", offered(word, ["best", *steps]))
    if (path := run.checkpoint(int(word))).exists():
        return path
    for folder in reversed(aside.folders(run)):
        if int(word) in aside.steps(folder):
            raise Failure(DATA, f"step {word} of {run.path} is kept aside", undo(run, folder))
    steps.sort(key=lambda step: abs(int(step) - int(word)))
    fix = f"it has {listed(steps)}" if steps else ""
    raise Failure(DATA, f"{run.path} has no checkpoint of step {word}", fix)


def verify(run: RunDir, words: list[str]) -> int:
    """Hash the checkpoints that are named, or all. Failure 65 if one is damaged."""
    kept = [path for folder in aside.folders(run) for path in records.within(folder)]
    paths = [named(run, word) for word in words] or [*records.checkpoints(run), *kept]
    if not paths:
        checkpoint.newest_valid(run)  # which refuses where there were some
        raise rundir.without_checkpoint(run)
    bad = []
    for path in paths:
        name = str(path.relative_to(run.checkpoints))
        try:
            checkpoint.verify(path)
            checkpoint.refuse_anothers(run, path)
            give(f"{name}: whole, {mb(records.size(path))}")
        except Failure as failure:
            if path.exists():  # else its training has dropped it while we looked
                bad.append(name)
                give(f"{name}: {failure.what}")
    whole = [path for path in records.checkpoints(run) if path in paths and path.name not in bad]
    newest = checkpoint.newest_valid(run) if words else whole[-1] if whole else None
    takes = f"a resume takes step {step_of(newest):,}" if newest else "no checkpoint is left to resume from"
    if bad:
        what = f"{listed(bad)} of {run.path} {'is' if len(bad) == 1 else 'are'} damaged"
        raise Failure(DATA, what, takes)
    if not words and (changed := logged.changed(run)):
        raise Failure(DATA, f"{run.path}: {changed}", f"its checkpoints are whole, and {takes}")
    give(takes)
    return 0


# prune ------------------------------------------------------------------------------------------------------


@contextmanager
def owned(run: RunDir):
    """Nobody trains the run meanwhile, and nothing of a killed save is in between. Failure 77, or 73."""
    try:
        run.lock(wait=0, says=False)
        checkpoint.recover(run)
        yield
    except OSError as error:
        fix = "free some space, or ask its owner"
        raise Failure(STORAGE, f"cannot write {run.path} ({error.strerror or error})", fix) from error


def prune(run: RunDir, keep: int, only_say: bool) -> int:
    with owned(run):
        if (newest := checkpoint.newest_valid(run)) is None:
            raise rundir.without_checkpoint(run)
        step = step_of(newest)
        protect = {each for each in (best_step(newest), resumed_from(run)) if each is not None}
        gone = [*checkpoint.surplus(run, step, keep, protect), *checkpoint.leftovers(run)]
        apart = remarks(run, newest)
        for path in records.checkpoints(run):
            if path not in gone:
                said = ", ".join(apart.get(step_of(path), []))
                tell(f"keeps step {step_of(path):,}" + (f" ({said})" if said else ""))
        what = (
            f"{listed(path.name for path in gone)}: {mb(sum(map(records.size, gone)))}" if gone else "nothing"
        )
        tell(f"{'would drop' if only_say else 'drops'} {what}")
        if not only_say:
            checkpoint.prune(run, step, keep, protect)
            checkpoint.sweep(run)
            if left := [path.name for path in gone if path.exists()]:
                raise Failure(STORAGE, f"{listed(left)} of {run.path} cannot be dropped", "ask its owner")
    return 0


# restore ----------------------------------------------------------------------------------------------------


def restore(run: RunDir, word: str) -> int:
    """Make a checkpoint the one that a resume takes, or bring back what that kept aside."""
    with owned(run):
        if aside.NAME.fullmatch(word):
            return bring_back(run, word)
        path = named(run, word)
        checkpoint.verify(path)
        step, meta = step_of(path), files.read_json(path / "state.json")
        if step < (fork := origin.of(run).get("fork", {})).get("step", 0):
            what = f"step {step:,} of {run.path} is its parent's: it was {origin.said({'fork': fork})}"
            raise Failure(USAGE, what, f"begin there again: --fork {quoted(fork['run'])}@{step}")
        checkpoint.refuse_anothers(run, path)
        if (kept := aside.put(run, step)) is None:
            tell(f"nothing to restore: step {step:,} is the newest of {run.path}, and a resume takes it")
            return 0
        run.cut_metrics(step, meta.get("evaluated", step))
        run.write_status("stopped", STOPPED, step, f"restored to step {step:,}")
        tell(f"{run.path}: restored to step {step:,}; {go_on(run)}")
        tell(f"kept aside in {kept}: {numbers(aside.steps(kept))}, and the metrics beyond step {step:,}")
        tell(f"to undo: {undo(run, kept)}")
        if (best := best_step(path)) and not run.checkpoint(best).exists():
            was = f"its best checkpoint up to then, of step {best:,}, was dropped by a better one"
            tell(f"relaunch: {was}: {run.path}@best is there again once one is better", sys.stderr)
    return 0


def bring_back(run: RunDir, name: str) -> int:
    folder = run.checkpoints / name
    if folder not in (there := aside.folders(run)):
        fix = offered(name, [path.name for path in there]) or "nothing of it is kept aside"
        raise Failure(DATA, f"{run.path} has no {name}", fix)
    steps = aside.steps(folder)
    told, other = aside.back(run, folder)
    newest = max([records.newest(run) or 0, *steps])
    state = told.get("state", "stopped")
    run.write_status(
        state if state != "running" else "stopped",
        told.get("code", STOPPED),
        told.get("step", newest),
        told.get("reason", f"restored to step {newest:,}"),
    )
    tell(f"{run.path}: {numbers(steps)} brought back, with the metrics and the status of then")
    if other:
        tell(f"kept aside in {other}: {numbers(aside.steps(other))}, which came after the restore")
        tell(f"to undo: {undo(run, other)}")
    valid = checkpoint.newest_valid(run)
    tell(f"a resume takes step {step_of(valid):,}" if valid else f"{run.path} has no checkpoint")
    return 0


def go_on(run: RunDir) -> str:
    workload = quoted(str(records.config(run).get("workload", "WORKLOAD")))
    return f"to go on from there: relaunch train {workload} --run {run.argument} --resume auto"


def main(argv: list[str]) -> int:
    parser = Parser(prog="relaunch checkpoints", description=ABOUT)
    parser.add_argument("run", metavar="RUN", help="a name under runs/, or a path")
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="ls", help="what to do [ls]")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="44, or best; for restore also aside-1")
    parser.add_argument("--keep", type=int, metavar="N", help="prune: how many of the newest stay")
    parser.add_argument("--dry-run", action="store_true", help="prune: say what would go, and drop nothing")
    if len(argv) > 1 and argv[0] in ACTIONS and argv[1] not in ACTIONS:
        words = " ".join(map(quoted, [argv[1], argv[0], *argv[2:]]))
        raise Failure(USAGE, f"the run comes before {argv[0]}", f"type relaunch checkpoints {words}")
    args = parser.parse_args(argv)
    if args.action in ("ls", "prune") and args.steps:
        raise Failure(USAGE, f"{args.action} takes no step", "verify and restore do")
    if args.action != "prune" and (args.keep is not None or args.dry_run):
        raise Failure(USAGE, "--keep and --dry-run go with prune")
    run = found(args.run)
    if args.action == "ls":
        give(show(run))
        return 0
    if args.action == "verify":
        return verify(run, args.steps)
    if args.action == "prune":
        if args.keep is None or args.keep < 1:
            raise Failure(USAGE, "prune needs --keep N, which is at least 1", "add --keep 1, for example")
        return prune(run, args.keep, args.dry_run)
    if len(args.steps) != 1:
        raise Failure(USAGE, "restore needs one step", f"relaunch checkpoints {quoted(args.run)} lists them")
    return restore(run, args.steps[0])
