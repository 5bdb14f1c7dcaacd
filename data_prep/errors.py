"""How Relaunch gives up: one line that says what, why and what to type next, and a code that means something.

`Failure` is raised anywhere below the entry points, which print `relaunch: CODE what; fix` once and exit so.
"""

import errno
import re
from contextlib import contextmanager

from relaunch.data_prep.names import printable, shortened

LINE_BREAK = r"\s*[\r\n]\s*"  # other spaces stay: they may be those of a name

DIED = 1  # another process of the group died; its own lines say why
USAGE = 64  # the command or the config is wrong
DATA = 65  # data or a checkpoint is missing or bad
HARDWARE = 69  # the hardware asked for is not there
DIVERGED = 70  # a loss or gradient is not finite
STORAGE = 73  # a file could not be written
PREEMPTED = 75  # stopped by a signal and saved: run me again
HUNG = 76  # a collective did not finish in time, or a machine computes wrong
LOCKED = 77  # another process owns this run
STOPPED = 78  # stopped on request and saved: do not requeue


@contextmanager
def nameable():
    """A name that is longer than a disk takes becomes Failure 64: for entry points, whatever looks for it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = shortened(max(str(error.filename).split("/"), key=len), 40)
        raise Failure(USAGE, f"{name} is too long for a name", "choose a shorter one") from error


class Failure(Exception):
    """An expected end other than success. `what` names the mistake and its cause, `fix` what to do next."""

    def __init__(self, code: int, what: str, fix: str = ""):
        # one line, whatever a library said
        what, fix = (re.sub(LINE_BREAK, " ", str(text).strip()) for text in (what, fix))
        super().__init__(what)
        self.code, self.what, self.fix = code, what, fix

    def __reduce__(self):
        return Failure, (self.code, self.what, self.fix)  # travels between ranks

    def line(self) -> str:
        """The one line that users see, e.g. `relaunch: 64 unknown workload 'minst'; did you mean mnist?`."""
        text = f"{self.what}; {self.fix}" if self.fix else self.what
        return f"relaunch: {self.code} {printable(text)}"
