"""Ranks of a training as forks of this process, which has imported torch: they begin within a second.

ranks = Ranks(2, ["mnist", "--run", "./run"], folder)
os.kill(ranks.pids[1], signal.SIGKILL)
ranks.end()    # the exit codes; less the signal's number
"""

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from accelerate.state import AcceleratorState, GradientState, PartialState
from tqdm import tqdm

from relaunch.trainers import train
from relaunch.trainers.group import process


class Ranks:
    """`count` workers of one training, each with its output in `folder`; `first`: called in each child."""

    def __init__(self, count: int, argv: list[str], folder: Path, first=lambda: None):
        import torch._dynamo  # noqa: F401  which optimizers import: two seconds, once and not in each

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.logs = [folder / f"rank-{rank}.log" for rank in range(count)]
        self.codes: dict[int, int] = {}
        self.pids = []
        for rank in range(count):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.environ["ACCELERATE_USE_CPU"] = "true"
                    if count > 1:
                        local = {"RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
                        local |= {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
                        os.environ.update({name: str(value) for name, value in local.items()})
                    code = self.work([*argv, "--threads", "1"], self.logs[rank], first)
                finally:
                    os._exit(code)
            self.pids.append(child)

    @staticmethod
    def work(argv: list[str], log: Path, first) -> int:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        tqdm.set_lock(threading.RLock())  # its own is shared with the parent, and a kill would leave it taken
        for state in (AcceleratorState, GradientState, PartialState):
            state._shared_state.clear()  # what this process had is of one rank
        first()
        sys.argv = ["trainers.train", *argv]
        return process.main(train.run)

    def ended(self, rank: int) -> bool:
        if rank not in self.codes:
            pid, status = os.waitpid(self.pids[rank], os.WNOHANG)
            if pid:
                self.codes[rank] = os.waitstatus_to_exitcode(status)
        return rank in self.codes

    def all_ended(self) -> bool:
        return all([self.ended(rank) for rank in range(len(self.pids))])

    def end(self, timeout: float = 120) -> list[int]:
        """Wait for all."""
        deadline = time.monotonic() + timeout
        while not self.all_ended():
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"they never ended: {self.said()}")
            time.sleep(0.01)
        return [self.codes[rank] for rank in range(len(self.pids))]

    def kill(self) -> None:
        for rank, pid in enumerate(self.pids):
            if not self.ended(rank):
                os.kill(pid, signal.SIGKILL)

    def said(self) -> str:
        return "\n".join(log.read_text(errors="replace")[-2000:] for log in self.logs if log.exists())


def together(world: int, *argv, precision: str = "no") -> list[int]:
    """Train `WORKLOAD --flag value …` on so many processes; their exit codes, by rank.

    What they say goes to this process's streams.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = list(map(str, argv))
        ranks = Ranks(
            world, words, Path(folder), lambda: os.environ.update(ACCELERATE_MIXED_PRECISION=precision)
        )
        codes = ranks.end()
        print(ranks.said())
    return codes
