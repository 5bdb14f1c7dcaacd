"""A TrainJob's status shows how far its training is, and its last metrics.

kubectl get trainjob NAME -o jsonpath='{.status.trainerStatus}'

Kubeflow Trainer, from 2.2 up and where its feature TrainJobStatus is on, gives each pod an address for that.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from relaunch.data_prep.talk import tell
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

GIVEN = [f"KUBEFLOW_TRAINER_SERVER_{name}" for name in ("URL", "CA_CERT", "TOKEN")]
EVERY = 5.0  # s between two messages, at least: their controller writes each into the cluster's data base
PATIENCE = 5.0  # s for an answer
LONGEST = 64  # characters of a metric's name or value, in their API
LARGEST = 2**31 - 1  # of a number there


def offered(run: RunDir) -> TrainJob | None:
    """Whom to tell of this run; None where nobody asks."""
    given = [os.environ.get(name, "") for name in GIVEN]
    plan = records.plan(run)
    return TrainJob(*given, plan) if all(given) and plan.get("total_steps") else None


class TrainJob:
    """Tells the newest of what it was told, from a thread of its own.

    The training neither waits for it, nor does anything that goes wrong there end it: one line, once.
    """

    def __init__(self, url: str, certificate: str, token: str, plan: dict):
        self.url, self.certificate, self.token = url, certificate, token
        self.total, self.scored = plan["total_steps"], plan.get("eval_split", "val")
        self.metrics: dict[str, str] = {}
        self.news: dict | None = None  # not yet told
        self.failed = self.complained = False
        self.changed = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self.send_all, name="trainjob", daemon=True)
        self.thread.start()

    def log(self, record: dict, left: float | None) -> None:
        """A record of metrics.jsonl, and the seconds that are left, as Metrics has them."""
        split = "" if record["split"] == "train" else f"{self.scored}_"
        for name, value in record.items():
            if name not in records.COORDINATES and isinstance(value, (int, float)):
                self.metrics[f"{split}{name}"[:LONGEST]] = f"{value:.6g}"
        step = record["step"]
        self.metrics |= {"step": f"{step}", "total_steps": f"{self.total}", "epoch": f"{record['epoch']:.4g}"}
        told: dict = {"progressPercentage": min(100, 100 * step // self.total)}
        if left is not None:
            told["estimatedRemainingSeconds"] = min(round(left), LARGEST)
        self.announce(told)

    def announce(self, told: dict) -> None:
        told["metrics"] = [{"name": name, "value": value} for name, value in self.metrics.items()]
        with self.changed:
            self.news = told
            self.changed.notify()

    def finish(self, done: bool) -> None:
        """Tell the last, within seconds, unless nobody listens. `done`: --patience may end it early."""
        if done:
            self.announce({"progressPercentage": 100, "estimatedRemainingSeconds": 0})
        self.close(drop=self.failed)
        self.thread.join(EVERY + 2 * PATIENCE)

    def close(self, drop: bool = True) -> None:
        """Wait for nothing."""
        with self.changed:
            self.closing = True
            self.news = None if drop else self.news
            self.changed.notify()

    def send_all(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.news or self.closing)
                told, self.news = self.news, None
            if not told:
                return
            self.send(told)
            sent = time.monotonic()
            with self.changed:
                self.changed.wait_for(lambda: self.closing and not self.news, sent + EVERY - time.monotonic())

    def send(self, told: dict) -> None:
        import ssl
        from http.client import HTTPException
        from urllib.request import Request, urlopen

        told = told | {"lastUpdatedTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        try:  # both files are exchanged while a training runs
            token = Path(self.token).read_text().strip()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            message = Request(self.url, json.dumps({"trainerStatus": told}).encode(), headers)
            trusted = ssl.create_default_context(cafile=self.certificate)
            with urlopen(message, timeout=PATIENCE, context=trusted):
                self.failed = False
        except (OSError, ValueError, HTTPException) as error:
            if not self.complained:
                tell(f"relaunch: the TrainJob's status is not told ({error}); training goes on", sys.stderr)
            self.failed = self.complained = True
