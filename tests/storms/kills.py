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

from relaunch.data_prep import files
from relaunch.data_prep.errors import Failure
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from rigs import REPOSITORY
from rigs.forked import Ranks
from rigs.processes import Process
from rigs.ranks import living
from rigs.runs import outcome

NET = "cifar10 --arch net --batch-size 8 --max-steps 40 --save-every 6 --log-interval 3 --threads 1".split()
CALLS = [
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "unlink"),
    (files, "exchange"),
    (files, "remove"),
]
FIRST, LAST = 25, 200  # of these calls: at a run's first save, and before its end
SLOW = "step=*,do=sleep:0.02"  # so that most of its time is in steps


class Forks:
    """One process, or two ranks, of a training as forks of this one."""

    def __init__(self, count: int, run: Path):
        self.killed = False
        self.ranks = Ranks(count, [*NET, "--run", str(run), "--resume", "auto"], run.parent)
        self.victims = ["rank 0", "the last rank", "all"] if count > 1 else ["the process"]

    def kill(self, victim: str) -> None:
        self.killed = True
        pids = {"all": self.ranks.pids, "the last rank": self.ranks.pids[-1:]}
        for pid in pids.get(victim, self.ranks.pids[:1]):
            os.kill(pid, signal.SIGKILL)  # not waited for yet: nobody else has its number

    def alive(self) -> bool:
        return not any([self.ranks.ended(rank) for rank in range(len(self.ranks.pids))])

    def end(self) -> list[int]:
        """Whoever has not met the one that was killed would wait for it: accelerate kills it, too."""
        while self.alive():
            time.sleep(0.01)
        deadline = time.monotonic() + 5
        while self.killed and time.monotonic() < deadline and not self.ranks.all_ended():
            time.sleep(0.01)
        if self.killed:
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


def found(run: Path) -> str:
    """What is wrong with the checkpoints that a kill left."""
    try:
        checkpoint.newest_valid(RunDir(run))
        for path in checkpoint.checkpoints(RunDir(run)):
            checkpoint.verify(path)
    except Failure as failure:
        return failure.line()
    return ""


def killed(start, run: Path, whole: Path, kills: int, chance: random.Random, lasts: float) -> list[str]:
    """Kill what `start` starts so often, at moments of the `lasts` s that it takes; what is wrong."""
    done, wrong, came = 0, [], []
    while True:
        training, began = start(run), time.monotonic()
        victim, moment = chance.choice(training.victims), chance.uniform(0, lasts)
        while done < kills and training.alive() and time.monotonic() - began < moment:
            time.sleep(0.005)
        if struck := done < kills and training.alive():
            training.kill(victim)
            done += 1
            came.append(f"{victim} after {moment:.2f} s")
        codes = training.end()
        if trouble := found(run):
            return [*wrong, f"{came}: {trouble}"]
        if not any(codes):  # it came to its end
            if outcome(run) != outcome(whole):
                wrong.append(f"{came}: it ends with other weights or rows")
            if done == kills:
                return wrong
            shutil.rmtree(run)
            came = []
        elif not struck:
            return [*wrong, f"{came}: it does not go on: {codes} {training.said()}"]


@contextlib.contextmanager
def at_call(number: int):
    """Rank 0 of what is started in here is killed before so many calls that change its disk."""
    left = [number]

    def counted(call):
        def wrapped(*args, **kwargs):
            left[0] -= os.environ.get("RANK") == "0"
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    with contextlib.ExitStack() as patches:
        for owner, name in CALLS:
            patches.enter_context(patch.object(owner, name, counted(getattr(owner, name))))
        yield


def killed_at_calls(run: Path, whole: Path, count: int) -> list[str]:
    """Rank 0 of two, at calls from the first save to the end; each is gone on with. What is wrong."""
    wrong = []
    for number in range(FIRST, LAST, (LAST - FIRST) // count)[:count]:
        with at_call(number):
            training = Forks(2, run)
        training.killed = True
        codes, trouble = [training.end(), Forks(2, run).end()], found(run)
        if codes[0][0] != -signal.SIGKILL or any(codes[1]) or trouble or outcome(run) != outcome(whole):
            wrong.append(f"rank 0 killed at call {number}: {codes} {trouble}, or it ends otherwise")
        shutil.rmtree(run)
    return wrong


def storm(folder: Path, kills: int = 200, seed: int = 0) -> Iterator[tuple[str, int, list[str]]]:
    """(who was killed, how often, what is wrong)."""
    names = ("one process", "one of two ranks, or both", "the launcher, accelerate, a rank, or all")
    with patch.dict(os.environ, {"RELAUNCH_FAULT": SLOW}):
        for n, (name, share) in enumerate(zip(names, (kills * 2 // 5, kills * 2 // 5, kills // 5))):
            place, count = folder / f"killed-{n}", 1 + (n > 0)
            place.mkdir()
            whole, run, began = place / "whole", place / "run", time.monotonic()
            codes = Forks(count, whole).end()
            assert not any(codes), codes
            lasts = time.monotonic() - began + (8 if n == 2 else 0)  # accelerate's start
            start = Launched if n == 2 else lambda run: Forks(count, run)
            chance = random.Random(f"kills {seed} {name}")
            yield f"kill -9 of {name}", share, killed(start, run, whole, share, chance, lasts)
            if n == 1:
                shutil.rmtree(run)
                calls = max(1, kills // 10)
                yield (
                    "kill -9 of rank 0 of two, at calls of its saves",
                    calls,
                    killed_at_calls(run, whole, calls),
                )
