"""What one run measured, as its folder tells: time, speed, quality, memory. Never imports torch.

    measure.of(RunDir("runs/first")).samples_per_s                      # 1234.5
    measure.of(RunDir("runs/first"), Target("top1", 62.0)).seconds      # until its evaluation reached that

The time of a training is that of its steps. Start-up, evaluations and checkpoints are apart, and so is the
first log window of a run, in which a process warms up: the seconds are those of all samples at the speed of
the rest.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.shapes import NUMBER, fits

TIMES = ("samples_per_s", "data_wait_share", "peak_memory_mb")
SHOWN_FIRST = ("top1", "ppl", "accuracy")  # of what an evaluation finds, what people compare


@dataclass(frozen=True)
class Target:
    """A quality at which a training has come far enough: top1=62 from there up, ppl=200 from there down."""

    metric: str
    value: float
    up: bool = True

    def reached(self, value) -> bool:
        return isinstance(value, NUMBER) and (value >= self.value if self.up else value <= self.value)

    def __str__(self) -> str:
        return f"{self.metric}={self.value:g}"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One run. Numbers are None where its records do not tell them."""

    run: str
    step: int
    samples: int  # trained on; words, of text
    epochs: float
    seconds: float | None  # of the steps, without start-up, evaluations and checkpoints
    samples_per_s: float | None
    metric: str = ""
    quality: float | None = None  # on the evaluation split, at the end, or where the target was reached
    peak_memory_mb: float | None = None  # of the host, rank 0's
    device_memory_mb: float | None = None
    data_wait_share: float | None = None
    start_seconds: float | None = None
    causes: dict[str, float] = dataclasses.field(default_factory=dict)  # seconds of the whole run, by cause
    reached: bool = False  # the target, if there was one
    seed: int | None = None
    facts: dict = dataclasses.field(default_factory=dict)  # host, device, threads: where it was measured


def target_step(run: RunDir, target: Target) -> int | None:
    """The step whose evaluation reached the target first."""
    for record in records.metrics(run):
        if record["split"] == "val" and target.reached(record.get(target.metric)):
            return record["step"]
    return None


def of(run: RunDir, target: Target | None = None) -> Measure | None:
    """What a run has measured up to its end, or to the target; None before it has been trained that far."""
    status, found = records.status(run), records.metrics(run)
    reached = target_step(run, target) if target else None
    if reached is None and status.get("state") != "done":
        return None
    if reached is not None:
        found = [record for record in found if record["step"] <= reached]
    last = found[-1] if found else {}
    config, plan = records.config(run), records.plan(run)
    metric, quality = quality_of(found)
    timed = windows(found)
    total = sum(size for size, _, _ in timed)
    seconds = sum(took for _, took, _ in timed)
    speed = total / seconds if total and seconds else None
    samples = last.get("samples", 0)
    peak = max((r["peak_memory_mb"] for r in found if numbered(r, "peak_memory_mb")), default=None)
    gpu = plan.get("device") == "cuda"
    causes = records.time_spent(run).get("causes", {})  # runs of before have no such record
    waits = [(took, wait) for _, took, wait in timed if wait is not None]
    return Measure(
        run=str(run.path),
        step=last.get("step", 0),
        samples=samples,
        epochs=round(last.get("epoch", 0.0), 4),
        seconds=samples / speed if speed else None,
        samples_per_s=speed,
        metric=metric,
        quality=quality,
        peak_memory_mb=None if gpu else peak,
        device_memory_mb=peak if gpu else None,
        data_wait_share=sum(t * w for t, w in waits) / sum(t for t, _ in waits) if waits else None,
        start_seconds=causes.get("start"),
        causes=causes,
        reached=reached is not None,
        seed=config.get("seed"),
        facts={name: plan.get(name) for name in ("host", "device", "device_name", "threads", "world")},
    )


def numbered(record: dict, name: str) -> bool:
    return fits(record.get(name), NUMBER)


def windows(found: list[dict]) -> list[tuple[int, float, float | None]]:
    """(samples, seconds, share of them spent waiting for data) of each log window but the first.

    A window reaches from the record before, where the loop's clock began anew, to its own. Of a run with one
    window that one counts.
    """
    timed, since = [], 0
    for record in found:
        times = numbered(record, "samples_per_s") and record["samples_per_s"] > 0
        if record["split"] == "train" and times:
            size = record.get("samples", 0) - since
            if size > 0:
                wait = record["data_wait_share"] if numbered(record, "data_wait_share") else None
                timed.append((size, size / record["samples_per_s"], wait))
        if record["split"] == "val" or times:
            since = record.get("samples", 0)
    return timed[1:] or timed


def quality_of(found: list[dict]) -> tuple[str, float | None]:
    """What the last evaluation found: (metric, value)."""
    scored = [record for record in found if record["split"] == "val"]
    if not scored:
        return "", None
    names = [name for name in SHOWN_FIRST if numbered(scored[-1], name)]
    rest = [n for n in scored[-1] if n not in ("step", "samples", "epoch", "split", "loss")]
    for name in itertools.chain(names, rest, ["loss"]):
        if numbered(scored[-1], name) and name not in TIMES:
            return name, float(scored[-1][name])
    return "", None
