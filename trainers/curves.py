"""TensorBoard's files, written where they are drawn: a full disk costs no thread, and no point of a curve.

    writer = curves(RunDir("runs/first").tensorboard / "train", after=1200)    # torch's SummaryWriter

TensorBoard's own writer hands its events to a thread, which dies of the first error with a traceback and
loses what it had.
"""

from __future__ import annotations

import io
import itertools
import mmap
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep.files import Appended, open_plain
from relaunch.trainers import records

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.")
HEAD, FOOT = 12, 4  # bytes before an event, its length first, and after it
WALL_TIME, FAR = 0x09, 1e11  # an event's first field, in seconds since 1970; beyond FAR it is damage
_number = itertools.count()  # of this process's files


class Events:
    """An event file, as torch's FileWriter asks it to be. It is made at its first flush.

    Readers take the files of a folder by the moment in their names, and what comes later in them for what
    happened later. So both go on from what is there, whatever the clock says since.
    """

    def __init__(self, folder: Path):
        """OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        moment, path = newest(folder)
        self.last = last_moment(path) if path else 0.0
        self.ahead = max(0.0, self.last - time.time())  # seconds, of the clock that wrote what is there
        moment = max(int(time.time()), moment + 1)
        name = f"events.out.tfevents.{moment:010d}.{socket.gethostname()}.{os.getpid()}.{next(_number)}"
        self.folder, self.file = folder, Appended(folder / name, now=False)

    def get_logdir(self) -> str:
        return str(self.folder)

    def add_event(self, event) -> None:
        """Keep an event for the next flush of `file`."""
        from torch.utils.tensorboard import RecordWriter

        event.wall_time = self.moment()
        framed = io.BytesIO()
        RecordWriter(framed).write(event.SerializeToString())
        self.file.keep(framed.getvalue())

    def moment(self) -> float:
        """Seconds since 1970, never fewer than before."""
        now = time.time() + self.ahead
        self.ahead += max(0.0, self.last - now)  # the clock was set back meanwhile
        self.last = max(self.last, now)
        return self.last


def newest(folder: Path) -> tuple[int, Path | None]:
    """The event file of a folder that readers take last, and the moment in its name."""
    found = [(int(m[1]), name) for name in records.names(folder) if (m := NAME.match(name))]
    moment, name = max(found, default=(0, None))
    return moment, name and folder / name


def last_moment(path: Path) -> float:
    """That of the last event in a file; 0 if it has none that can be read."""
    try:
        with open_plain(path) as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as framed:
            last = end = 0
            while end + HEAD <= len(framed):
                after = end + HEAD + struct.unpack_from("<Q", framed, end)[0] + FOOT
                if after > len(framed):  # a kill has cut it
                    break
                last, end = end, after
            field, moment = struct.unpack_from("<Bd", framed, last + HEAD)
    except (OSError, ValueError, struct.error):
        return 0.0
    return moment if field == WALL_TIME and 0 < moment < FAR else 0.0


def curves(folder: Path, after: int) -> tuple[SummaryWriter, Appended]:
    """A writer that continues the curves of `folder`, and its file, which is written at each of its flushes.

    Readers drop what was drawn beyond step `after`; of a run that begins anew, all. OSError.
    """
    from torch.utils.tensorboard import FileWriter, SummaryWriter
    from torch.utils.tensorboard.writer import Event, SessionLog

    events, version = Events(folder), "brain.Event:2"  # of the format in which readers drop
    again = Event(step=after and after + 1, session_log=SessionLog(status=SessionLog.START))
    for event in (Event(file_version=version), again):
        events.add_event(event)

    class Curves(SummaryWriter):
        def _get_file_writer(self):
            if self.file_writer is None:
                self.file_writer = FileWriter.__new__(FileWriter)
                self.file_writer.event_writer = events
                self.all_writers = {events.get_logdir(): self.file_writer}
            return self.file_writer

    return Curves(str(folder)), events.file
