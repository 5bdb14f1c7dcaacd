"""What a run left in its folder."""

import hashlib
import json
from pathlib import Path

VOLATILE = ("samples_per_s", "data_wait_share", "peak_memory_mb")  # what two equal trainings may differ in


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def steps(run: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outcome(run: Path) -> dict:
    """What two equal trainings share: the newest checkpoint's bytes and state, metrics but for time."""
    newest = run / "checkpoints" / f"step-{steps(run)[-1]:09d}"
    return {
        "model": sha256(newest / "model.safetensors"),
        "optimizer": sha256(newest / "optimizer.safetensors"),
        "state": json.loads((newest / "state.json").read_text()),
        "metrics": [{k: v for k, v in r.items() if k not in VOLATILE} for r in records(run)],
    }


def tree(folder: Path) -> dict:
    """Every file below a folder and its content's hash."""
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
