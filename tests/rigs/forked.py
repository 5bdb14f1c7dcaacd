"""Trainings of several processes that meet over gloo, as forks of this one: nothing is imported again."""

import os
import socket
import sys
import threading
import traceback


def together(world: int, *argv, precision: str = "no") -> list[int]:
    """Train `WORKLOAD --flag value …` on so many processes with one thread each; their exit codes, by rank.

    What they say goes to this process's streams.
    """
    import torch._dynamo  # noqa: F401  which optimizers import: two seconds, once and not in each
    from torch.utils import tensorboard  # noqa: F401

    from relaunch.trainers import build, loop, metrics  # noqa: F401

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sys.stdout.flush()
    pids = []
    for rank in range(world):
        if pid := os.fork():
            pids.append(pid)
            continue
        os.environ |= {
            name: str(value)
            for name, value in {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": world,
                "LOCAL_WORLD_SIZE": world,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "ACCELERATE_USE_CPU": "true",
                "ACCELERATE_MIXED_PRECISION": precision,
            }.items()
        }
        code = 1
        try:
            code = trained([*map(str, argv), "--threads", "1"])
        except BaseException:  # it must not become a second pytest
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def trained(argv: list[str]) -> int:
    from accelerate.state import AcceleratorState
    from tqdm import tqdm

    from relaunch.data_prep.errors import Failure
    from relaunch.trainers import train

    AcceleratorState._reset_state(True)  # of a training in the process that was forked
    tqdm.set_lock(threading.RLock())  # its own is shared with that process
    try:
        return train.run(argv)[0]
    except Failure as failure:
        print(failure.line(), file=sys.stderr)
        return failure.code
