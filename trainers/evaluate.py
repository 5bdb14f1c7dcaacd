"""Score every sample of a split exactly once, on any number of processes, and write the predictions.

python -m trainers.evaluate runs/first --split test
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Set
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.data_prep.talk import tell
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.group.faults import fault
from relaunch.trainers.job import Launch
from relaunch.trainers.weights.source import Source, config_for, open_source, parse_described
from relaunch.trainers.workloads import own

if TYPE_CHECKING:
    from torch import Tensor

    from relaunch.data_prep.packed import Packed
    from relaunch.trainers.tasks.task import Scorer


def score_split(
    runtime, scorer: Scorer, module, outputs: bool = False, stop: Callable[[], int] = lambda: 0
) -> dict | None:
    """The split's rows, ordered by id: columns [N] on rank 0, {} on others; None if `stop` ended it early.

    Batch k goes to rank k mod world and nothing is padded, so that the rows are the same on any world size.
    `module` is the bare model; all ranks take rank 0's buffers. `stop` is asked between batches, and must
    answer alike on all ranks.
    """
    import torch

    from relaunch.trainers.columns import Columns, by_id

    runtime.share_buffers(module)
    module.eval()
    kept = Columns(scorer.rows)
    with torch.no_grad(), runtime.accelerator.autocast(), process.fits("lower --eval-batch-size"):
        for first in range(0, scorer.batches, runtime.world):
            if stop():
                module.train()
                return None
            if first + runtime.rank < scorer.batches:
                fault("evaluate", first + runtime.rank)
                with runtime.waiting():
                    rows = scorer.score(module, first + runtime.rank)
                kept.add({n: column for n, column in rows.items() if outputs or not is_output(n)})
    module.train()
    gathered = runtime.gather(kept.filled())
    if gathered is None:
        return {}
    return by_id(gathered, scorer.rows)


def is_output(name: str) -> bool:
    """Whether a scored column is what the model itself said: `outputs`, or `outputs.NAME` of several."""
    return name.partition(".")[0] == "outputs"


def parser() -> Parser:
    p = Parser(
        prog="relaunch evaluate",
        description=(
            "Score every sample of a split once and write the predictions.\n\n"
            "  relaunch evaluate first                     the run runs/first, its newest checkpoint\n"
            "  relaunch evaluate first@best --split test\n"
            "  relaunch evaluate model.pth.tar --workload tiny_imagenet --normalise imagenet --out theirs"
        ),
    )
    p.add_argument(
        "source",
        metavar="RUN|CHECKPOINT|FILE",
        help="RUN, RUN@best, RUN@STEP, a checkpoint's folder or a weights file",
    )
    p.add_argument("--split", help="the split to score (default: val, else test)")
    p.add_argument("--out", help="folder for the predictions (default: the run's own)")
    p.add_argument("--outputs", action="store_true", help="also write the raw outputs [N, classes] (images)")
    p.add_argument("--data-root", help="where packed data is kept (default: $RELAUNCH_DATA, else data)")
    p.add_argument(
        "--timeout",
        type=int,
        default=Launch.timeout,
        help=f"seconds after which a process that is missing ends the others [{Launch.timeout}]",
    )
    for name, kind, help in (
        ("data", str, "packed data set (default: the one it was trained on)"),
        ("eval-batch-size", int, "samples (text: windows) scored at a time by each process"),
        ("threads", int, "CPU threads per process (default: as it was trained)"),
        ("eval-views", int, "score each image by the mean of so many views of it: 1, 2 or 6 [1]"),
    ):
        p.add_argument(f"--{name}", type=kind, default=argparse.SUPPRESS, help=help)
    return p


# settings of a source that an evaluation may override; of normalise it is told what it does not say
CHANGEABLE = "data eval_batch_size threads eval_resize eval_crop eval_views normalise input raw".split()


def changes_of(config: RunConfig, given: Set[str]) -> dict:
    """What was given of CHANGEABLE on a command line that names a workload."""
    every = {**vars(config), **vars(config.options)}
    return {name: every[name] for name in CHANGEABLE if name in given and name in every}


def run(argv: list[str]) -> tuple[int, str | None]:
    args, config, _ = parse_described(parser(), argv)
    launch = Launch(
        resume=args.source,
        split=args.split,
        out=args.out,
        outputs=args.outputs,
        data_root=args.data_root,
        timeout=args.timeout,
    )
    typed = {k: v for k, v in vars(args).items() if k in CHANGEABLE}
    return evaluate(launch, config, typed if config is None else changes_of(config, args.given))


def evaluate(launch: Launch, config: RunConfig | None, changes: dict) -> tuple[int, str | None]:
    """Score launch.resume and write its predictions. Rank 0 finds, verifies and reads what it names, for all.

    `config` describes foreign weights; `changes` override it, or the run's own. Failure 64, 65, 73 or 75.
    """
    from relaunch.data_prep.packed import data_root, open_packed
    from relaunch.data_prep.recipes import ensure
    from relaunch.trainers.group.runtime import Runtime
    from relaunch.trainers.tasks.task import check_data
    from relaunch.trainers.weights.match import match

    runtime = Runtime(deterministic=False, timeout=launch.timeout)
    with runtime.watched(), own.blamed():
        source, config, weights = runtime.on_rank_0(lambda: read(launch.resume, config, changes))
        runtime.settle(config.threads or source.meta.get("threads"), config.deterministic, config.tf32)
        root = data_root(launch.data_root)
        runtime.on_every_rank(lambda: runtime.first_here and ensure(config.data, root))
        packed = runtime.on_every_rank(lambda: open_packed(config.data, root))
        split, out = runtime.on_rank_0(lambda: check(launch, source, config, packed, "data" in changes))
        if "sizes" in source.meta:
            packed = packed.as_trained(source.sizes)
        task = workloads.load(config.workload).task
        runtime.on_every_rank(lambda: check_data(config.workload, task, packed.sizes))
        matched = runtime.on_every_rank(
            lambda: match(source, config, packed, weights, changes.get("normalise"))
        )
        scorer = runtime.on_every_rank(lambda: task.scorer(config, packed, split, runtime.device))
        if runtime.main:
            for note in matched.notes:
                tell(f"relaunch: {source.name}: {note}", sys.stderr)
        if runtime.on_rank_0(lambda: written(launch, source, packed, split, out, runtime, matched.inputs)):
            runtime.close()
            return 0, None
        rows = score_split(
            runtime,
            scorer,
            matched.model.to(runtime.device),
            launch.outputs,
            stop=lambda: runtime.agree(int(process.asked_to_stop() is not None)),
        )
        if rows is None:
            raise Failure(
                PREEMPTED, "stopped before the evaluation ended; nothing was written", "run it again"
            )
        runtime.on_rank_0(
            lambda: report(
                source, config, task, packed, split, rows, out, runtime, matched.inputs, launch.outputs
            )
        )
    runtime.close()
    return 0, None


def read(name: str, config: RunConfig | None, changes: dict) -> tuple[Source, RunConfig, dict[str, Tensor]]:
    """What `name` names, the config to score it with, and its weights on the CPU."""
    source = open_source(name, execute=True)
    if config and source.config and config.workload != source.config.workload:
        raise Failure(
            USAGE,
            f"{source.name} was trained as {source.config.workload}, not {config.workload}",
            "name its own workload",
        )
    config = config_for(source, config, set(changes))
    here = {name: value for name, value in changes.items() if name != "normalise"}
    inner = {name: here.pop(name) for name in list(here) if hasattr(config.options, name)}
    if "eval_views" in here:
        raise Failure(USAGE, "--eval-views is for images", "leave it out")
    options = dataclasses.replace(config.options, **inner)
    if "raw" in here or here.get("input") == "raw":
        if not getattr(options, "eval_crop", 0):
            what = "--raw scores original images, which differ in size"
            raise Failure(USAGE, what, "add --eval-crop 224, and --eval-resize 256 where they were scored so")
    elif inner:  # however it was trained
        here |= {"input": "packed", "raw": None, "workers": 0}
    return source, dataclasses.replace(config, options=options, **here), source.weights()


def check(launch: Launch, source: Source, config: RunConfig, packed: Packed, moved: bool) -> tuple[str, Path]:
    """The split to score and the folder for its predictions.

    Failure 64 or 65 where something does not fit.
    """
    if source.meta and not moved and packed.hash != source.meta["data_hash"]:
        raise Failure(
            DATA,
            f"{packed.path} is not the data that {source.name} was trained on",
            "name the data to score with --data",
        )
    split = launch.split or packed.eval_split
    packed.check_split(split)
    if launch.outputs and (why := workloads.load(config.workload).task.no_outputs):
        raise Failure(USAGE, f"--outputs is not for {config.workload}: {why}", "leave it out")
    out = Path(launch.out) if launch.out else source.run and source.run.predictions
    if out is None:
        what = f"{source.path} lies in no run, so there is no place for its predictions"
        raise Failure(USAGE, what, "add --out FOLDER")
    return split, out


def written(launch: Launch, source: Source, packed: Packed, split: str, out: Path, runtime, inputs) -> bool:
    """Whether these very predictions lie there already, which a line says, as it does what they score.

    The same checkpoint, data, split, inputs and precision; with --outputs, those too. Foreign weights are
    scored again: what their predictions are depends on the flags given with them.
    """
    from relaunch.trainers.compare import predictions

    path = predictions.place(out, split, source, packed)
    try:
        found = predictions.found(path, source, packed.hash, split) if source.config else None
    except Failure as failure:
        tell(f"{failure.what}: evaluating again", sys.stderr)
        return False
    same = found and found.facts.get("inputs", {}) == inputs and "metrics" in found.facts
    if not same or found.about().get("precision") != runtime.precision:
        return False
    if launch.outputs and not list(path.parent.glob(f"{path.stem}.outputs*.npy")):
        return False
    metrics = {name: math.nan if value is None else value for name, value in found.facts["metrics"].items()}
    tell(f"{told(source, packed, split, len(found), metrics)}\nalready written: {path}")
    return True


def told(source: Source, packed: Packed, split: str, n: int, metrics: dict[str, float]) -> str:
    def shown(name: str, value: float) -> str:
        if name.startswith("top"):
            return f"{value:.2f} %"
        return f"{value:.4f}" if name in ("loss", "nll") else f"{value:.5g}"

    numbers = "  ".join(f"{name} {shown(name, value)}" for name, value in metrics.items())
    return f"{source.name} on {packed.name}/{split}, {n:,} predictions: {numbers}"


def report(source, config, task, packed, split, rows, out: Path, runtime, inputs: dict, wanted: bool) -> None:
    from relaunch.trainers.compare import predictions

    outputs = {name: rows.pop(name) for name in list(rows) if is_output(name)}
    metrics = task.summarise(rows)
    path = predictions.write(
        out,
        rows,
        outputs,
        source=source,
        config=config,
        roles=task.facts,
        packed=packed,
        split=split,
        metrics=metrics,
        inputs=inputs,
        launch={
            "world": runtime.world,
            "device": str(runtime.device),
            "threads": runtime.threads,
            "precision": runtime.precision,
        },
    )
    how = f"{predictions.told(inputs)}\n" if "mean" in inputs else ""
    tell(f"{told(source, packed, split, len(rows['id']), metrics)}\n{how}written: {path}")
    if wanted and not outputs:
        tell("relaunch: no outputs.npy: its model gives no tensor with a row for each sample", sys.stderr)
    elif wanted and "outputs" not in outputs:
        tell(f"written beside it, a file for each of its tensors: {', '.join(outputs)}")


if __name__ == "__main__":
    sys.exit(process.main(run))
