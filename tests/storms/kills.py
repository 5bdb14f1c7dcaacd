"""kill -9 of a training's processes at random moments: it ends with the weights and rows of one left alone.

Of a single process; of one rank of two, or both; of the launcher, its ranks, or all of them. Each is gone on
with until it has been killed often enough. Who and when is drawn from the seed; where that is in the
training, the machine decides.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from relaunch.data_prep.errors import Failure
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs import REPOSITORY
from rigs.forked import Ranks
from rigs.processes import Process
from rigs.ranks import living
from rigs.runs import outcome

NET = "cifar10 --arch net --batch-size 8 --max-steps 40 --save-every 6 --log-interval 3 --threads 1".split()
SLOW = "step=*,do=sleep:0.02"  # so that most of its time is in steps


class Forks:
    """One process, or two ranks, of a training as forks of this one."""

    def __init__(self, count: int, run: Path):
        self.count = count
        self.ranks = Ranks(count, [*NET, "--run", str(run), "--resume", "auto"], run.parent)
        self.victims = ["rank 0", "the last rank", "all"] if count > 1 else ["the process"]

    def kill(self, victim: str) -> None:
        pids = {"all": self.ranks.pids, "the last rank": self.ranks.pids[-1:]}
        for pid in pids.get(victim, self.ranks.pids[:1]):
            os.kill(pid, signal.SIGKILL)  # not waited for yet: nobody else has its number

    def alive(self) -> bool:
        return not any([self.ranks.ended(rank) for rank in range(len(self.ranks.pids))])

    def end(self) -> list[int]:
        """Whoever has not found its rank yet would wait for long: what accelerate does to it, too."""
        deadline = time.monotonic() + 5
        while not self.alive() and time.monotonic() < deadline and len(self.ranks.codes) < self.count:
            time.sleep(0.02)
        if not self.alive():
            self.ranks.kill()
        return self.ranks.end()

    def said(self) -> str:
        return self.ranks.said()


class Launched:
    """Our launcher, accelerate and two ranks."""

    victims = ["the launcher", "accelerate", "rank 0", "the last rank", "all"]

    def __init__(self, run: Path):
        self.word = str(run)
        words = ["--run", self.word, "--resume", "auto", "--config", "cpu2", "--max-restarts", "0"]
        program = [sys.executable, str(REPOSITORY / "launch/__main__.py"), "train"]
        self.process = Process([*program, *NET, *words])

    def kill(self, victim: str) -> None:
        launcher = self.process.popen.pid
        engines = below(launcher)
        ranks = [pid for engine in engines for pid in below(engine)]
        if victim == "all":
            os.killpg(launcher, signal.SIGKILL)
            for pid in ranks:  # accelerate starts each in a session of its own
                send(pid)
            return
        found = {"the launcher": [launcher], "accelerate": engines, "rank 0": ranks[:1]}
        for pid in found.get(victim, ranks[-1:]):
            send(pid)

    def alive(self) -> bool:
        return self.process.popen.poll() is None

    def end(self) -> list[int]:
        code = self.process.end().code
        deadline = time.monotonic() + 120
        while left := living(self.word):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.05)
        return [code]

    def said(self) -> str:
        return (self.process.out + self.process.err)[-3000:]


def below(pid: int) -> list[int]:
    """The children of a process."""
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


def send(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def killed(start, run: Path, whole: Path, kills: int, chance: random.Random, lasts: float) -> list[str]:
    """Kill what `start` starts so often, at moments of the `lasts` s that it takes; what is wrong."""
    done, wrong, came = 0, [], []
    while True:
        training, began = start(run), time.monotonic()
        victim, moment = chance.choice(training.victims), chance.uniform(0, lasts)
        while done < kills and training.alive() and time.monotonic() - began < moment:
            time.sleep(0.005)
        if signalled := done < kills and training.alive():
            training.kill(victim)
            done += 1
            came.append(f"{victim} after {moment:.2f} s")
        codes = training.end()
        try:
            newest = checkpoint.newest_valid(RunDir(run)) if run.exists() else None
            broken = [path for path in checkpoint.checkpoints(RunDir(run)) if not checkpoint.verify(path)]
        except Failure as failure:
            return [*wrong, f"{came}: {failure.line()}"]
        assert not broken
        if not any(codes) and newest:  # it came to its end
            if outcome(run) != outcome(whole):
                wrong.append(f"{came}: it ends with other weights or rows")
            if done == kills:
                return wrong
            shutil.rmtree(run)
            came = []
        elif not signalled:
            return [*wrong, f"{came}: it does not go on: {codes} {training.said()}"]


def storm(folder: Path, kills: int = 200, seed: int = 0) -> Iterator[tuple[str, int, list[str]]]:
    """(who was killed, how often, what is wrong)."""
    shares = {"one process": kills * 2 // 5, "one of two ranks, or both": kills * 2 // 5}
    shares["the launcher, accelerate, a rank, or all"] = kills - sum(shares.values())
    with patch.dict(os.environ, {"RELAUNCH_FAULT": SLOW}):
        for n, (name, share) in enumerate(shares.items()):
            place = folder / f"killed-{n}"
            place.mkdir()
            count = 1 + (n > 0)
            whole, began = place / "whole", time.monotonic()
            codes = Forks(count, whole).end()
            assert not any(codes), codes
            lasts = time.monotonic() - began + (8 if n == 2 else 0)  # accelerate's start
            start = Launched if n == 2 else lambda run: Forks(count, run)
            chance = random.Random(f"kills {seed} {name}")
            yield f"kill -9 of {name}", share, killed(start, place / "run", whole, share, chance, lasts)
