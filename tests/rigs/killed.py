"""kill -9 in the middle of something, at each of the calls that change the disk."""

import os
import signal
import threading

from tqdm import tqdm


def killed(moments: int, calls, what) -> bool:
    """Do `what` in a child process that gets SIGKILL before the call after so many of `calls`.

    `calls`: (owner, name) of each function that counts. False if the child ended before.
    """
    child = os.fork()
    if child == 0:
        left = moments
        tqdm.set_lock(threading.RLock())  # its own is shared with the parent, and a kill would leave it taken

        def counted(call):
            def wrapped(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapped

        try:
            for owner, name in calls:
                setattr(owner, name, counted(getattr(owner, name)))
            what()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])
