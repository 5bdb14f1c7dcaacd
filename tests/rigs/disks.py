"""Disks that can be full."""

import resource
import subprocess


class TinyDisk:
    """A disk of its own that can be filled."""

    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=True, capture_output=True
        )

    def fill(self):
        with open(self.filler, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass

    def free(self):
        self.filler.unlink()

    def end(self):
        subprocess.run(["umount", "-l", self.folder], check=True)


class Limit:
    """No file may grow beyond a limit: a disk that is too small, for those who may not mount one."""

    def __init__(self, folder):
        self.folder, self.before = folder, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, size: int = 60_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self.before[1]))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    end = free
