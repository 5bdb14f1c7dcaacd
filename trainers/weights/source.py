"""What a RUN argument names: a run's newest valid checkpoint, RUN@best, RUN@STEP, a checkpoint folder, or a foreign file.

source = open_source("runs/first@best")
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.trainers import rundir
from relaunch.trainers.config import RunConfig
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Source:
    """Weights and what is known of them. A foreign file knows nothing: `config`, `run` and `step` are None."""

    name: str  # as typed
    path: Path  # of the checkpoint's folder, or of the file
    sha256: str  # of the file that holds the weights
    config: RunConfig | None = None
    step: int | None = None
    meta: dict = dataclasses.field(default_factory=dict)  # state.json
    run: RunDir | None = None

    def weights(self) -> dict[str, Tensor]:
        if self.meta:
            return checkpoint.load(self.path).model
        from relaunch.trainers.weights.foreign import read

        return read(self.path)


def open_source(name: str) -> Source:
    """Find and verify what `name` names. Failure 65 if it is not there or damaged. Nothing is unpickled here."""
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
        RunConfig.from_json(meta["config"]),
        manifest["step"],
        meta,
        run,
    )


def config_for(source: Source, workload_config: RunConfig | None) -> RunConfig:
    """The config to read a source with: its own, or for foreign weights the one that the command line gave."""
    if source.config is None and workload_config is None:
        raise Failure(
            USAGE,
            f"{source.path} says nothing of its model",
            "add --workload NAME, and its --arch and --data if they are not the default",
        )
    return source.config or workload_config
