"""Real processes, read while they run."""

import os
import signal
import subprocess
import threading
from pathlib import Path


class Process:
    """A started program whose output is collected; `end` waits for it."""

    def __init__(self, command: list[str]):
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out, self.err, self.changed = "", "", threading.Condition()
        self.readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("out", "err")
        ]
        for reader in self.readers:
            reader.start()

    def _read(self, name: str):
        with getattr(self.popen, "std" + name) as stream:
            for line in stream:
                with self.changed:
                    setattr(self, name, getattr(self, name) + line)
                    self.changed.notify_all()

    def until(self, text: str) -> "Process":
        """Wait until the program has written `text`."""
        with self.changed:
            assert self.changed.wait_for(lambda: text in self.out + self.err, timeout=120), (
                self.out + self.err
            )
        return self

    def listening(self) -> "Process":
        """Wait until SIGTERM has a handler: a program that has just begun would simply die of it."""
        asks, pause = 1 << (signal.SIGTERM - 1), threading.Event()
        for _ in range(3000):
            caught = next(
                line
                for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
                if line.startswith("SigCgt")
            )
            if int(caught.split()[1], 16) & asks:
                return self
            pause.wait(0.01)
        raise AssertionError("it never listened")

    def children(self) -> list[int]:
        return [*map(int, Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split())]

    def signal(self, number: int) -> "Process":
        self.popen.send_signal(number)
        return self

    def end(self, timeout: float = 120) -> "Process":
        self.code = self.popen.wait(timeout)
        for reader in self.readers:  # ends when the last process that holds the pipe has ended: workers too
            reader.join(timeout)
            assert not reader.is_alive(), "a process was left behind"
        return self

    def kill(self):
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()
