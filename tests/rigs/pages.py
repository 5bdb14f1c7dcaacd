"""Runs that nobody trained, with all that a report reads; and a browser that looks at pages."""

import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from relaunch.data_prep.packed import Packed, open_packed
from relaunch.trainers.config import parse
from rigs.predicted import CLASSES, write
from rigs.sets import pack_labelled

EVIL = "<script>alert(1)</script>"
NAMES = [EVIL, "猫", *(f"class {i}" for i in range(2, CLASSES))]
CHROME, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def packed(root: Path, count: int, side: int = 8) -> Packed:
    """`count` small images of CLASSES classes, one of them with a name that is HTML, one Chinese."""
    random = np.random.default_rng(0)
    labels = np.random.default_rng(1).integers(0, CLASSES, count)
    images = (random.integers(0, 60, (count, side, side, 3)) + 19 * labels[:, None, None, None]).astype(
        np.uint8
    )
    return open_packed(pack_labelled(root / "small", images, [NAMES[i] for i in labels], NAMES), root)


def run(
    folder: Path, data: Packed | None = None, rows: dict | None = None, seed: int = 0, steps: int = 200
) -> Path:
    """A run's folder: settings, plan, status, metrics every 10 steps, evaluations every 50, predictions."""
    folder.mkdir(parents=True)
    config = parse(["mnist", "--data", "small", "--seed", str(seed)]).config.to_json()
    plan = {
        "command": ["trainers.train", "mnist", "--data", "small"],
        "config": "cpu", "world": 1, "device": "cpu", "device_name": "x86_64", "host": "here",
        "precision": "no", "eval_split": "test",
        "steps_per_epoch": 50, "total_steps": steps, "versions": {"torch": "2.10"},
        "starts": [{"step": 0}, {"step": 100}],
    }  # fmt: skip
    status = {"state": "done", "code": 0, "step": steps, "saved": steps, "seconds": 12.5}
    for name, content in (("config", config), ("plan", plan), ("status", status)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    random, lines = np.random.default_rng(seed), []
    for step in range(10, steps + 1, 10):
        position = {"step": step, "samples": 64 * step, "epoch": step / 50}
        loss = float(2 * np.exp(-step / 80) + random.random() / 10)
        rest = {"loss": loss, "top1": 100 - 30 * loss, "lr": 1.0, "samples_per_s": 900.0}
        lines.append(position | {"split": "train"} | rest)
        if step % 50 == 0:
            lines.append(position | {"split": "val", "loss": loss + 0.1, "top1": 95 - 30 * loss})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    layers = {
        "layers": [{"name": EVIL, "type": "Linear", "output": [1, 10], "parameters": 1290, "flops": 2560}],
        "parameters": 1290, "flops": 2560,
        "nodes": [{"name": "input", "label": "input"}, {"name": "fc", "label": f"{EVIL}\nLinear 10"}],
        "edges": [["input", "fc"]],
    }  # fmt: skip
    (folder / "layers.json").write_text(json.dumps(layers))
    if data and rows:
        where = {"data": data.name, "data_hash": data.hash, "data_path": data.path, "step": steps}
        write(folder / "predictions", rows, sha=f"{seed:064}", **where)
    return folder


def records(folder: Path, split: str, name: str) -> list[list[float]]:
    """[step, value] of metrics.jsonl."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[line["step"], line[name]] for line in lines if line["split"] == split and name in line]


def points(page: str) -> dict[str, dict]:
    """What the charts of a page say that they show, by their captions."""
    found = re.findall(
        r'<script type="application/json" class="points" data-caption="([^"]*)">(.*?)</script>',
        page,
        re.DOTALL,
    )
    return {caption: json.loads(data) for caption, data in found}


@contextmanager
def browser(folder: Path):
    """Chromium without a window, all of whose requests and complaints are kept. Skips where there is none."""
    if not (shutil.which(CHROME) and shutil.which(DRIVER)):
        pytest.skip(f"there is no {CHROME} with {DRIVER} (Debian: chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={folder}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get_log("performance")  # of its own first page
        yield driver
    finally:
        driver.quit()


def requests(driver) -> list[str]:
    """Every address that was asked for since the last call, but for what lies in the page itself."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("data:", "chrome:"))]
