"""Runs with checkpoints that nobody trained, for tests of what reads them without torch."""

import hashlib
import json
from pathlib import Path

from relaunch.trainers.config import parse
from relaunch.trainers.rundir import RunDir

CONFIG = parse(["mnist", "--data", "digits"]).config.to_json()


def save(run: RunDir, step: int, best: int | None = None, tag: str = "") -> Path:
    """A checkpoint of that step, with the run's metrics and status; `tag` makes its weights others."""
    path = run.checkpoint(step)
    path.mkdir(parents=True)
    facts = dict(step=step, samples=8 * step, world=1, global_batch=8, config_hash="c", data_hash="d")
    state = {**facts, "best": {"step": best} if best else None, "evaluated": step, "config": CONFIG}
    contents = {
        "model.safetensors": f"weights {step}{tag}".encode() * 40,
        "optimizer.safetensors": f"momentum {step}{tag}".encode() * 80,
        "state.json": json.dumps(state).encode(),
    }
    for name, content in contents.items():
        (path / name).write_bytes(content)
    with open(run.metrics, "a") as f:
        f.write(json.dumps({"step": step, "split": "train", "loss": 1 / step, "by": tag}) + "\n")
        f.write(json.dumps({"step": step, "split": "val", "top1": 90 + step / 100}) + "\n")
    seal = {"bytes": run.metrics.stat().st_size, "sha256": hashed(run.metrics.read_bytes())}
    listed = {name: {"bytes": len(c), "sha256": hashed(c)} for name, c in contents.items()}
    manifest = {"schema": 1, **facts, "files": listed, "metrics": seal}
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    status = {"state": "done", "code": 0, "step": step, "saved": step, "reason": "trained to the end"}
    run.status.write_text(json.dumps(status))
    return path


def hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def saved_run(path: Path, steps=(20, 40, 60, 80), best: int = 40) -> RunDir:
    run = RunDir(path)
    run.path.mkdir(parents=True)
    run.config.write_text(json.dumps(CONFIG))
    run.plan.write_text('{"steps_per_epoch": 20, "host": "elsewhere", "starts": [{"step": 20, "time": ""}]}')
    for step in steps:
        save(run, step, best if step >= best else None)
    return run
