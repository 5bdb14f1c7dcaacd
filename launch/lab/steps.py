"""A lab as a list of steps: each a command line, what it leaves, and what it needs.

    lab = Lab("mnist", Path("labs/mnist"), data="mnist")
    lab.train("batch64", "--epochs", "14", seconds=900)    # Step(words=("train", "mnist", "--epochs", …))

Paths are as typed, so that each command can be typed again in the same folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep.names import command
from relaunch.data_prep.packed import data_root, locate
from relaunch.trainers.rundir import RunDir

VERB = {"attention": "python -m relaunch.trainers.attention"}  # programs of ours that are no verbs


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a lab. `leaves` is the run's folder, or the file, that says what came of it."""

    name: str  # its log's, too
    words: tuple[str, ...]  # what is typed after `relaunch`; RUN@first is its first checkpoint that is there
    leaves: Path
    seconds: float  # on two cores, as once measured: for the time left
    after: tuple[str, ...] = ()  # names of the steps whose results it reads
    gpus: int = 0  # that it needs
    answers: bool = False  # what it prints is what it leaves

    @property
    def typed(self) -> str:
        """The command line."""
        verb, *rest = self.words
        line = f"{VERB.get(verb, f'relaunch {verb}')} {command(rest)}"
        return f"{line} > {command([str(self.leaves)])}" if self.answers else line


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A lab of this machine: where it lies, and what all of its commands are given."""

    name: str  # and the workload's
    folder: Path
    data: str
    quick: bool = False
    data_root: str | None = None
    threads: int | None = None
    typed: tuple[str, ...] = ()  # after `relaunch lab`, less what changes no step
    source: str | None = None  # the data's archive or folder, where it is not to be downloaded

    def run(self, name: str) -> RunDir:
        return RunDir(self.folder / "runs" / name)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def set(self) -> Path:
        """The folder of the packed set."""
        return locate(self.data, data_root(self.data_root))

    def root(self) -> tuple[str, ...]:
        return ("--data-root", self.data_root) if self.data_root else ()

    def common(self) -> tuple[str, ...]:
        """What every training is told: its data, where it lies, and its threads."""
        threads = () if self.threads is None else ("--threads", str(self.threads))
        return ("--data", self.data, *self.root(), *threads)

    # steps --------------------------------------------------------------------------------------------

    def prep(self, seconds: float) -> Step:
        out = ("--out", self.data_root) if self.data_root else ()
        given = ("--source", self.source) if self.source else ()
        return Step(name="prep", words=("prep", self.data, *given, *out), leaves=self.set(), seconds=seconds)

    def train(self, name: str, *flags: str, seconds: float, gpus: int = 0, config: str = "cpu") -> Step:
        run = self.run(name)
        words = ("train", self.name, "--config", config, *flags, *self.common())
        words += ("--run", run.argument, "--resume", "auto")
        return Step(name=name, words=words, leaves=run.path, seconds=seconds, after=("prep",), gpus=gpus)

    def evaluate(self, name: str, run: str, *flags: str, at: str = "", seconds: float = 20) -> Step:
        out = self.path("evaluated", name)
        words = ("evaluate", f"{self.run(run).argument}{at}", *flags, *self.root(), "--out", str(out))
        return Step(name=name, words=words, leaves=out, seconds=seconds, after=(run,))

    def summary(self, name: str, *flags: str, seconds: float = 5) -> Step:
        words = ("summary", self.name, *flags, "--data", self.data, *self.root(), "--json")
        leaves = self.path(f"{name}.json")
        return Step(name=name, words=words, leaves=leaves, seconds=seconds, after=("prep",), answers=True)

    def profile(self, name: str, sizes: str, config: str, seconds: float, gpus: int = 0) -> Step:
        out = self.path(name)
        words = ("profile", self.name, "--batch-size", sizes, "--config", config, *self.common())
        words += ("--out", str(out))
        return Step(
            name=name, words=words, leaves=out / "profile.json", seconds=seconds, after=("prep",), gpus=gpus
        )

    def compare(self, name: str, *flags: str, seconds: float) -> Step:
        out = self.path(name)
        words = ("compare", self.name, *flags, *self.common(), "--out", str(out))
        return Step(name=name, words=words, leaves=out / "compare.json", seconds=seconds, after=("prep",))

    def diff(self, name: str, run: str, one: str, other: str, seconds: float = 30) -> Step:
        out, path = self.path(name), self.run(run).argument
        words = ("diff", f"{path}{one}", f"{path}{other}", *self.root(), "--out", str(out))
        return Step(name=name, words=words, leaves=out / "diff.json", seconds=seconds, after=(run,))

    def export(self, run: str, at: str = "", seconds: float = 5) -> Step:
        out = self.path("export")
        words = ("export", f"{self.run(run).argument}{at}", "--out", str(out))
        return Step(name="export", words=words, leaves=out, seconds=seconds, after=(run,))
