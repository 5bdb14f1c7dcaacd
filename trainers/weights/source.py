"""What RUN (its newest valid checkpoint), RUN@best, RUN@STEP, a checkpoint's folder or a weights file names.

source = open_source("runs/first@best")
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relaunch.data_prep import files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers import rundir, workloads
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.flags import Parser, add_fields, words
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.tasks.images import FOUR_WAYS, written
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.workloads import own

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Source:
    """Weights and what is known of them.

    Of a foreign file `config`, `run` and `step` are None, and `beside` is what an export's JSON says.
    """

    name: str  # as typed
    path: Path  # of the checkpoint's folder, or of the file
    sha256: str  # of the file that holds the weights
    config: RunConfig | None = None
    step: int | None = None
    meta: dict = dataclasses.field(default_factory=dict)  # state.json
    run: RunDir | None = None
    beside: dict = dataclasses.field(default_factory=dict)
    remark: str = ""  # on what was found beside it

    @cached_property
    def about(self) -> dict[str, Any]:
        """How it was trained, for JSON; what is not known is not there.

        workload, arch, step, data, data_hash, `classes` (their names), `vocabulary` (of text: its SHA-256),
        and what task.inputs says: of images `shape`, `mean` and `std`.
        """
        if self.config is None:
            return self.beside
        config, about = self.config, {"data_hash": self.meta.get("data_hash"), "step": self.step}
        about |= {"workload": config.workload, "arch": config.arch}
        if "sizes" not in self.meta:
            return about
        sizes = self.sizes
        about |= {"data": sizes.data, **self.meta.get("inputs", {})}
        told = {"classes": list(sizes.names), "vocabulary": sizes.vocabulary}
        return about | {name: value for name, value in told.items() if value}

    @property
    def normalise(self) -> str | None:
        """The --normalise that says how its images were normalised, to the bit; None if that is unknown."""
        return written(self.about["mean"], self.about["std"]) if "mean" in self.about else None

    @property
    def sizes(self) -> Sizes:
        """Of the data it was trained on. A checkpoint of 0.1 does not say them: any will do for its layers'
        names, which is all that they are asked for.
        """
        if "sizes" in self.meta:
            return Sizes.from_json(self.meta["sizes"])
        return Sizes(data="", kind="", counts={}, shape=(3, 32, 32), outputs=2)

    def weights(self) -> dict[str, Tensor]:
        """By name, on the CPU. Failure 65 if a foreign file holds none."""
        if self.meta:
            return checkpoint.load(self.path).model
        from relaunch.trainers.weights.foreign import read

        return read(self.path)


def open_source(name: str, execute: bool = False) -> Source:
    """Find and verify what `name` names; reads no weights yet. Failure 65 if it is not there or damaged.

    `execute`: whether its workload is needed, which may be somebody's own code, and not only what it says.
    """
    path, selector = rundir.find(name)
    if path.is_file():
        sha256 = files.sha256(path)
        return Source(name, path, sha256, None, None, {}, None, *read_beside(path, sha256))
    folder = path if rundir.folder(path) == "checkpoint" else checkpoint.select(RunDir(path), selector)
    manifest = checkpoint.verify(folder)
    meta = files.read_json(folder / "state.json")
    run = RunDir(folder.parents[1]) if folder.parent.name == "checkpoints" else None
    return Source(
        name,
        folder,
        manifest["files"]["model.safetensors"]["sha256"],
        own.config_of(meta["config"], run.path if run else None, execute),
        manifest["step"],
        meta,
        run,
    )


def read_beside(path: Path, sha256: str) -> tuple[dict, str]:
    """What the JSON of an export says of its file, and a remark where it is of another one."""
    place = path.with_suffix(".json")
    try:
        about = files.parse_json(files.read_small(place))
        ours = about["relaunch"], about["files"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, ""
    if sha256 not in ours[1]:
        return {}, f"{place} is about another file than {path}: not used"
    return about, ""


def config_for(source: Source, described: RunConfig | None, given: Set[str] = frozenset()) -> RunConfig:
    """A source's own config, or for a file the one that the command line describes; `given` is what it names.

    Images are normalised as in its training. Failure 64 where neither it nor the command line says how.
    """
    config = source.config or described
    if config is None:
        raise Failure(
            USAGE,
            f"{source.path} says nothing of its model",
            "add --workload NAME, and its --arch and --data if they are not the default",
        )
    # somebody's own, not executed: its options are values alone, and say what data it was trained on
    if isinstance(config.options, types.SimpleNamespace) or not hasattr(config.options, "normalise"):
        return config
    if source.normalise:
        options = dataclasses.replace(config.options, normalise=source.normalise)
        return dataclasses.replace(config, options=options)
    if source.config is None and "normalise" not in given:
        because = f" ({source.remark})" if source.remark else ""
        raise Failure(
            USAGE,
            f"{source.path} does not say how its images were normalised{because}",
            f"add --normalise {FOUR_WAYS}, and --eval-resize 256 --eval-crop 224 where it was scored so",
        )
    return config


def parse_described(
    parser: Parser, argv: list[str]
) -> tuple[argparse.Namespace, RunConfig | None, list[str]]:
    """Parse a command that may describe foreign weights by `--workload NAME` and that workload's flags.

    Returns what was typed (`given`: the names of those settings that were, by themselves or by a preset), the
    config that describes them (None without --workload), and the words that say so again: `--workload NAME
    --arch=net …`. Failure 64 for what neither `parser` nor the workload knows.
    """
    finder = Parser(prog=parser.prog, add_help=False)
    finder.add_argument("--workload")
    name = finder.parse_known_args(argv)[0].workload
    parser.add_argument(
        "--workload", help="for a foreign file: its workload, whose flags (--arch …) go with it"
    )
    parser.set_defaults(given=frozenset())
    if name is None:
        return parser.parse_args(argv), None, []
    work = workloads.load(name)
    parser.conflict_handler = "resolve"  # a flag of both, as --data, is the workload's
    parser.add_argument("--preset", default=argparse.SUPPRESS, help="a named group of its settings")
    for cls, title in ((work.options, f"settings of {name}"), (RunConfig, "training")):
        add_fields(parser, cls, {**work.defaults, "data": work.data, "arch": work.archs[0]}, title)
    args = parser.parse_args(argv)
    theirs = {f.name for cls in (work.options, RunConfig) for f in dataclasses.fields(cls)} | {"preset"}
    said = [name]
    for key, value in vars(args).items():
        if key in theirs and key != "workload":
            said += words(key, value)
    job = parse(said, f"{parser.prog} … --workload")
    args.given = job.given
    return args, job.config, ["--workload", *said]
