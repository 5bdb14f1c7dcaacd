"""What RUN (its newest valid checkpoint), RUN@best, RUN@STEP, a checkpoint's folder or a weights file names.

source = open_source("runs/first@best")
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers import rundir, workloads
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.flags import Parser, add_fields, flag
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.workloads import own

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Source:
    """Weights and what is known of them.

    Of a foreign file nothing is: `config`, `run` and `step` are None.
    """

    name: str  # as typed
    path: Path  # of the checkpoint's folder, or of the file
    sha256: str  # of the file that holds the weights
    config: RunConfig | None = None
    step: int | None = None
    meta: dict = dataclasses.field(default_factory=dict)  # state.json
    run: RunDir | None = None

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
        return Source(name, path, files.sha256(path))
    if (path / "MANIFEST.json").exists() or path.name.startswith("step-"):
        folder = path
    elif (path / "config.json").exists() or (path / "checkpoints").is_dir():
        folder = checkpoint.select(RunDir(path), selector)
    else:
        raise Failure(
            DATA,
            f"{path} is neither a run nor a checkpoint",
            "name a run's folder, a step-… folder or a weights file",
        )
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


def config_for(source: Source, workload_config: RunConfig | None) -> RunConfig:
    """A source's own config, or for foreign weights the one that the command line gave; else Failure 64."""
    config = source.config or workload_config
    if config is None:
        raise Failure(
            USAGE,
            f"{source.path} says nothing of its model",
            "add --workload NAME, and its --arch and --data if they are not the default",
        )
    return config


def parse_described(
    parser: Parser, argv: list[str]
) -> tuple[argparse.Namespace, RunConfig | None, list[str]]:
    """Parse a command that may describe foreign weights by `--workload NAME` and that workload's flags.

    Returns what was typed, the config that describes them (None without --workload), and the words that say
    so again: `--workload NAME --arch=net …`. Failure 64 for what neither `parser` nor the workload knows.
    """
    finder = Parser(prog=parser.prog, add_help=False)
    finder.add_argument("--workload")
    name = finder.parse_known_args(argv)[0].workload
    parser.add_argument(
        "--workload", help="for a foreign file: its workload, whose flags (--arch …) go with it"
    )
    if name is None:
        return parser.parse_args(argv), None, []
    work = workloads.load(name)
    parser.conflict_handler = "resolve"  # a flag of both, as --data, is the workload's
    parser.add_argument("--preset", default=argparse.SUPPRESS, help="a named group of its settings")
    for cls, title in ((work.options, f"settings of {name}"), (RunConfig, "training")):
        add_fields(parser, cls, {**work.defaults, "data": work.data, "arch": work.archs[0]}, title)
    args = parser.parse_args(argv)
    theirs = {f.name for cls in (work.options, RunConfig) for f in dataclasses.fields(cls)} | {"preset"}
    words = [name]
    for key, value in vars(args).items():
        if key in theirs and key != "workload":
            words.append(
                flag(key if value else f"no_{key}") if type(value) is bool else f"{flag(key)}={value}"
            )
    return args, parse(words, f"{parser.prog} … --workload").config, ["--workload", *words]
