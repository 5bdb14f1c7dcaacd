"""Every file of a run, damaged in many ways, and then read by everything that reads runs.

    python tests/storm.py damage --cases 1 --seed 1234     one case again

Each case is noticed or harmless: the code is one that is documented, what is said are lines of ours, and
what comes out (weights, predictions, exports) is what an undamaged run gives, or it is refused and nothing
is changed. In this process, through the verbs' own entry points.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import re
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from relaunch.data_prep.errors import Failure
from relaunch.launch import bundle, checkpoints, runs
from relaunch.trainers import diff, evaluate, export, report, train
from relaunch.trainers.compare import sides
from rigs.runs import sha256, tree
from rigs.sets import pack_images

TRAINING = "mnist --batch-size 8 --max-steps 16 --save-every 4 --log-interval 3 --keep 3 --threads 1".split()
CODES = {0, 64, 65, 73, 75}
LINE = re.compile(r"relaunch: |.*: evaluating again$")


class Case:
    """What one reader said and returned."""

    def __init__(self, verb, *argv: str):
        out, err = io.StringIO(), io.StringIO()
        self.trace = ""
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                found = verb([*argv])
                self.code = found[0] if isinstance(found, tuple) else found
            except Failure as failure:
                self.code = failure.code
                print(failure.line(), file=sys.stderr)
            except Exception:
                self.code, self.trace = 1, traceback.format_exc()
        self.out, self.err = out.getvalue(), err.getvalue()
        gc.collect()  # the traceback holds the lock

    def wrong(self) -> str:
        if self.trace:
            return self.trace
        if self.code not in CODES:
            return f"code {self.code}"
        odd = [line for line in self.err.splitlines() if not LINE.match(line)]
        return f"it said {odd[0]!r}" if odd else ""


class Storm:
    """A folder with the run `whole`, its stopped twin `run`, another run, and what they give undamaged."""

    def __init__(self, folder: Path):
        self.took: dict[str, float] = {}  # s, by reader
        self.wait = sides.wait
        sides.wait = lambda command, name: Case(evaluate.run, *command[3:]).code  # in this process, too
        os.chdir(folder)
        os.environ["RELAUNCH_DATA"] = str(folder / "data")
        os.path.exists(folder / "data") or pack_images(folder / "data/mnist", (28, 28, 1))
        self.run, self.calm = folder / "runs/run", folder / "calm"
        for name, flags in (("whole", []), ("run", ["--stop-after", "13"]), ("other", ["--seed", "5"])):
            said = Case(train.run, *TRAINING, "--run", name, "--profile-steps", "6:8", *flags)
            assert said.code == (75 if flags[:1] == ["--stop-after"] else 0), said.err + said.trace
        assert Case(evaluate.run, "run", "--outputs").code == 0
        (self.run / "shown.json").write_text('{"generated": {"step": 8, "text": "as texts are shown"}}')
        assert Case(evaluate.run, "other").code == 0
        shutil.copytree(self.run, self.calm)
        self.end = self.weights(folder / "runs/whole")
        for step in self.steps(self.calm):
            assert Case(export.run, f"run@{step}", "--out", "exports").code == 0
        self.exports = tree(folder / "exports")
        self.agree = self.compared()[1]
        gc.freeze()  # what is imported by now is never garbage: a collection takes no second
        self.files = sorted(p.relative_to(self.calm) for p in self.calm.rglob("*") if p.name != ".lock")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        sides.wait = self.wait
        gc.unfreeze()

    @staticmethod
    def steps(run: Path) -> list[int]:
        return sorted(int(p.name[5:]) for p in (run / "checkpoints").glob("step-?????????"))

    def weights(self, run: Path) -> list[str]:
        newest = run / "checkpoints/step-000000016"  # later ones are damage
        return [sha256(newest / f"{name}.safetensors") for name in ("model", "optimizer")]

    def compared(self) -> tuple[Case, int | None]:
        shutil.rmtree("diffs", ignore_errors=True)
        said = Case(diff.run, "run", "other")
        found = list(Path("diffs").glob("*/*.json"))
        return said, json.loads(found[0].read_text())["agree"] if said.code == 0 and found else None

    # damage ---------------------------------------------------------------------------------------------

    def damage(self, chance: random.Random) -> str:
        """Damage `run` in one way; returns which."""
        target = self.run / chance.choice(self.files)
        kinds = [self.gone, self.renamed, self.swapped, self.wrong_kind]
        if target.is_file():
            kinds += 3 * [self.flipped, self.cut, self.overwritten]
        kind = chance.choice(kinds)
        return f"{target.relative_to(self.run)} {kind.__name__} {kind(target, chance) or ''}"

    def flipped(self, target, chance):
        content = bytearray(target.read_bytes())
        for _ in range(chance.choice((1, 1, 1, 8))):
            if content:
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        target.write_bytes(content)

    def cut(self, target, chance):
        os.truncate(target, chance.randrange(target.stat().st_size + 1))

    def overwritten(self, target, chance):
        odd = (
            b"",
            b"[]",
            b"[1]",
            b"{}",
            b"null",
            b"{",
            b"\xff\xfe",
            b'"x"',
            b"[" * 100_000,
            b"1e999\n",
            b"\0" * 99,
        )
        odd += (
            b'{"step": 1e999, "split": "train"}\n',
            b'{"state": "running", "step": true, "seconds": -1e300}',
        )
        target.write_bytes(chance.choice(odd))

    def gone(self, target, chance):
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    def renamed(self, target, chance):
        target.rename(
            target.with_name(chance.choice((target.name + ".bak", "step-000000099", "step-99", ".x")))
        )

    def swapped(self, target, chance):
        """With another file or folder of the same kind, in this run or in another one."""
        others = [p for p in self.files if (self.run / p).is_dir() == target.is_dir()]
        other = self.run / chance.choice(others)
        if (
            chance.random() < 0.3
            and (theirs := self.run.with_name("other") / target.relative_to(self.run)).exists()
        ):
            self.gone(target, chance)
            shutil.copytree(theirs, target) if theirs.is_dir() else shutil.copyfile(theirs, target)
            return f"with {theirs}"
        if target != other and not other.is_relative_to(target) and not target.is_relative_to(other):
            spare = target.with_name("spare")
            target.rename(spare)
            other.rename(target)
            spare.rename(other)
        return f"with {other.relative_to(self.run)}"

    def wrong_kind(self, target, chance):
        was_folder = target.is_dir()
        self.gone(target, chance)
        kind = chance.choice(("folder", "pipe", "link", "circle", "file"))
        if kind == "folder":
            target.mkdir()
        elif kind == "pipe":
            os.mkfifo(target)
        elif kind == "link":
            target.symlink_to("nowhere")
        elif kind == "circle":
            target.symlink_to(target.name)
        else:
            target.write_bytes(b"x" if was_folder else b"")
        return kind

    # reading --------------------------------------------------------------------------------------------

    def fresh(self, damaged: Path | None = None):
        shutil.rmtree(self.run)
        copy_odd(damaged or self.calm, self.run)

    def case(self, number: int) -> list[str]:
        """Damage, read, compare; what was wrong, for people."""
        chance, wrong = random.Random(number), []
        self.fresh()
        what = self.damage(chance)
        damaged = self.run.with_name(".damaged")
        shutil.rmtree(damaged, ignore_errors=True)
        copy_odd(self.run, damaged)

        def note(verb: str, trouble: str):
            if trouble:
                wrong.append(f"case {number}: {what}: {verb}: {trouble}")

        for name, check in (
            ("runs", self.listed),
            ("stop", self.stopped),
            ("checkpoints", self.verified),
            ("bundle", self.moved),
            ("report", self.reported),
            ("export", self.exported),
            ("evaluate", self.evaluated),
            ("diff", self.differed),
            ("resume", self.resumed),
        ):
            if name == "report" and what.startswith("checkpoints/"):
                continue  # it takes as long as all others together, and opens none of them
            began = time.monotonic()
            note(name, check())
            self.took[name] = self.took.get(name, 0.0) + time.monotonic() - began
            if name != "resume":
                self.fresh(damaged)
        return wrong

    def listed(self) -> str:
        listed, shown = Case(runs.main_runs), Case(runs.main_runs, "show", "run")
        if not listed.trace and (listed.code or "whole" not in listed.out):
            return f"the other runs are not listed: {listed.out}"
        sound = self.calm / "metrics.jsonl"
        if (now := self.run / sound.name).is_file() and now.read_bytes() != sound.read_bytes():
            if self.steps(self.run) == self.steps(self.calm) and sound.name not in listed.err:
                return f"{sound.name} is another, and nobody says so"
        return listed.wrong() or shown.wrong()

    def stopped(self) -> str:
        return Case(runs.main_stop, "run").wrong()

    def verified(self) -> str:
        there, folder = tree(self.run / "checkpoints"), self.run / "checkpoints"
        said = [Case(checkpoints.main, "run", *words.split()) for words in ("ls", "verify", "restore 8")]
        calm = {n: s for n, s in tree(self.calm / "checkpoints").items() if (folder / n).parent.exists()}
        if said[1].code == 0 and any(there.get(name) != sha for name, sha in calm.items()):
            return "damage to a checkpoint goes unnoticed"
        return "".join(each.wrong() for each in said)

    def moved(self) -> str:
        said = Case(bundle.main_bundle, "run", "--out", "run.tar")
        if said.code == 0:
            said = Case(bundle.main_unbundle, "run.tar", "--run", "moved")
            there = {n: s for n, s in tree(Path("runs/moved")).items() if n.startswith("checkpoints/")}
            shutil.rmtree("runs/moved", ignore_errors=True)
            os.remove("run.tar")
            if said.code or not there.items() <= tree(self.calm).items():
                return f"code {said.code}, or other checkpoints than were saved: {sorted(there)}"
        return said.wrong()

    def reported(self) -> str:
        return Case(report.run, "run", "-o", "report.html").wrong()

    def exported(self) -> str:
        said = Case(export.run, "run", "--out", "exported")
        found = tree(Path("exported")) if Path("exported").exists() else {}
        shutil.rmtree("exported", ignore_errors=True)
        if said.code == 0 and any(self.exports.get(name) != sha for name, sha in found.items()):
            return f"other weights than were saved: {sorted(found)}"
        return said.wrong()

    def evaluated(self) -> str:
        said = Case(evaluate.run, "run", "--out", "scored")
        shutil.rmtree("scored", ignore_errors=True)
        return said.wrong()

    def differed(self) -> str:
        said, agree = self.compared()
        if said.code == 0 and "falling back" not in said.err and agree != self.agree:
            return f"{agree} predictions agree, and not {self.agree}"
        return said.wrong()

    def resumed(self) -> str:
        before = self.look()
        said = Case(train.run, *TRAINING, "--run", "run", "--resume", "auto")
        if trouble := said.wrong():
            return trouble
        if said.code == 0:
            return "" if self.weights(self.run) == self.end else "it ends with other weights"
        changed = before ^ self.look()
        return f"code {said.code}, and {sorted(changed)[:2]} changed" if changed and said.code != 73 else ""

    def look(self) -> set:
        """Names, kinds and contents of all that lies in the run."""
        return {
            (str(p.relative_to(self.run)), p.is_symlink(), p.is_dir(), p.is_file() and sha256(p))
            for p in self.run.rglob("*")
            if p.name != ".lock"
        }


def copy_odd(source: Path, target: Path):
    """Copy a folder with links and pipes as they are."""

    def copy(one, other):
        os.mkfifo(other) if Path(one).is_fifo() else shutil.copyfile(one, other, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=copy)


def storm(folder: Path, cases: int, seed: int) -> Iterator[tuple[str, int, list[str]]]:
    """(what was done, cases, what is wrong)."""
    wrong: list[str] = []
    with Storm(folder) as calm:
        for number in range(seed, seed + cases):
            found = calm.case(number)
            wrong += found
            print(*found, sep="\n", end="\n" if found else "", flush=True)
            if (number - seed) % 100 == 99:
                print(f"{number - seed + 1:,} damaged runs, {len(wrong)} wrong", flush=True)
    print({name: round(seconds, 1) for name, seconds in calm.took.items()})
    yield "damaged files of a run", cases, wrong
