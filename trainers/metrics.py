"""What a run leaves to look at: metrics.jsonl, and the same numbers, its model and its data in TensorBoard.

relaunch tensorboard first
"""

from __future__ import annotations

import copy
import json
import math
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.talk import tell
from relaunch.trainers import records, trainjob
from relaunch.trainers.config import RunConfig
from relaunch.trainers.rundir import RunDir

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.tensorboard import SummaryWriter

    from relaunch.trainers.tasks.task import Batches, Task


class Metrics:
    """The one writer of a run's metrics (rank 0). A resumed run continues the curves after `resumed_step`."""

    def __init__(self, run: RunDir, resumed_step: int):
        """OSError on a full disk."""
        self.run, self.shown = run, records.read(run.shown, {})
        self.open(resumed_step)
        self.begun = False  # whether there was a record or a checkpoint
        self.failing: set[str] = set()  # names of files that take nothing at present
        self.trainjob = trainjob.offered(run)

    def open(self, after: int) -> None:
        """Begin to write after step `after`. OSError."""
        from relaunch.trainers.curves import curves

        # two writers with the same tags share a chart; readers drop what a killed run logged after;
        # their files are made with the first record or checkpoint: a start that fails before leaves none
        drawn = {split: curves(self.run.tensorboard / split, after) for split in ("train", "val")}
        self.writers = {split: writer for split, (writer, _) in drawn.items()}
        self.files = {"metrics.jsonl": files.Appended(self.run.metrics)}
        self.files |= {f"tensorboard/{split}": file for split, (_, file) in drawn.items()}

    def log(self, record: dict, left: float | None = None) -> None:
        """Append a record as one line, and draw all of it that is no coordinate; `split` is train or val.

        `left`: seconds until the training's end, for whom that is told.
        """
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self.files["metrics.jsonl"].keep(json.dumps(finite, allow_nan=False).encode() + b"\n")
        for tag, value in record.items():
            if tag not in records.COORDINATES and value is not None:
                # an evaluation stands beside the windows of training, and beside the mean of the epoch
                for name in (tag, f"epoch_{tag}") if record["split"] == "val" else (tag,):
                    self.writers[record["split"]].add_scalar(name, value, record["step"])
        self.flush()
        if self.trainjob:
            self.trainjob.log(finite, left)

    def sealed(self) -> dict:
        """Size in bytes and SHA-256 of what was logged, for a manifest. OSError on a full disk."""
        self.flush()
        self.files["metrics.jsonl"].flush(look=True)
        return self.files["metrics.jsonl"].sealed()

    def to_disk(self) -> None:
        """Make it outlive a power cut, as the next checkpoint does. From any thread. OSError."""
        self.files["metrics.jsonl"].to_disk()

    def flush(self) -> None:
        """Write what waits. A full disk must not end a training: one alarm; rows are kept until they fit."""
        self.begun = True
        for name, file in self.files.items():
            try:
                file.flush()
            except OSError as error:
                if name not in self.failing:
                    self.failing.add(name)
                    told = f"cannot write {name} ({error}); its rows are kept until they fit"
                    tell(f"relaunch: {told}, and training goes on", sys.stderr)
                continue
            if name in self.failing:
                self.failing.remove(name)
                rows = f"but for {file.dropped:,} rows" if file.dropped else "with every row"
                tell(f"relaunch: {name} is written again, {rows}", sys.stderr)

    def describe(
        self, config: RunConfig, task: Task, batches: Batches, model: nn.Module, packed: Packed
    ) -> None:
        """Once, when a run begins: its settings as text and hyper-parameters, layers, graph, first batch.

        Model and generators stay as they are.
        """
        import torch

        from relaunch.trainers import summary

        settings = config.to_json()
        settings |= settings.pop("options")
        self.session(settings)
        self.text("config", 0, "\n".join(f"{name} {value}" for name, value in settings.items()))
        twin = copy.deepcopy(model).cpu().eval()
        twin.__dict__.pop("forward", None)  # accelerate's, which casts
        example = task.example(config, packed.sizes)

        def layers(writer: SummaryWriter):
            found = summary.layers(twin, example)
            self.text("layers", 0, summary.table(found, example.shape))
            self.beside(self.run.layers, found)

        parts = {
            "layers": layers,
            "graph": lambda writer: writer.add_graph(twin, example),
            "first batch": lambda writer: self.show(0, batches.look()),
        }
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # tracing does not follow it
        # what tracing warns of is not for users
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
            for name, part in parts.items():
                try:
                    part(self.writers["train"])
                except Exception as error:  # a model that cannot be drawn still trains
                    tell(
                        f"relaunch: no {name} in TensorBoard ({' '.join(str(error).split())[:200]})",
                        sys.stderr,
                    )
        torch.backends.mha.set_fastpath_enabled(fast)

    def session(self, settings: dict | None = None) -> None:
        """Begin a row of TensorBoard's table of hyper-parameters, beside what was scored last; or end it."""
        from torch.utils.tensorboard.summary import hparams

        values = {k: " ".join(v) if isinstance(v, (list, tuple)) else v for k, v in (settings or {}).items()}
        plain = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
        _, start, end = hparams(plain, {})
        self.writers["val"]._get_file_writer().add_summary(end if settings is None else start, 0)

    def text(self, tag: str, step: int, text: str) -> None:
        """Show `text` as it is, in fixed width."""
        block = "".join(f"    {line}\n" for line in text.splitlines())  # Markdown's code block
        self.writers["train"].add_text(tag, block, step)

    def beside(self, path: Path, found: dict) -> None:
        """Write a small file for reports; a full disk costs it, and no more."""
        try:
            files.write_atomic(path, files.dump_json(found))
        except OSError as error:
            tell(f"relaunch: cannot write {path} ({error}); training goes on", sys.stderr)

    def show(self, step: int, found: dict) -> None:
        """What a task shows: tag -> text, or images float32 [N,C,H,W] in 0..1."""
        for tag, what in found.items():
            if isinstance(what, str):
                self.text(tag, step, what)
                self.shown[tag] = {"step": step, "text": what}
                self.beside(self.run.shown, self.shown)
            else:
                self.writers["train"].add_images(tag, what, step)

    def go_back(self, step: int, evaluated: int) -> None:
        """Cut what was logged beyond `step`, evaluations beyond `evaluated`, and go on there. OSError."""
        for file in self.files.values():
            file.flush()
        self.run.cut_metrics(step, evaluated)
        self.open(step)

    def done(self, code: int) -> None:
        """The training has left its loop, with this exit code."""
        if code == 0:
            self.session()
        if self.trainjob:
            self.trainjob.finish(done=code == 0)

    def close(self) -> None:
        """Write what waits, as far as there is room; of a start that came to nothing, nothing is drawn."""
        if self.begun:
            self.flush()
        if self.trainjob:
            self.trainjob.close()
