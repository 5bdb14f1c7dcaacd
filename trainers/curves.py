"""TensorBoard's files, written where they are drawn: a full disk costs no thread, and no point of a curve.

    writer = curves(RunDir("runs/first").tensorboard / "train", after=1200)    # torch's SummaryWriter

TensorBoard's own writer hands its events to a thread, which dies of the first error with a traceback and
loses what it had.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep.files import Appended

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_number = itertools.count()  # of this process's files


class Events:
    """An event file, as torch's FileWriter asks it to be."""

    def __init__(self, folder: Path):
        """OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        moment = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_number)}"
        self.folder, self.file = folder, Appended(folder / f"events.out.tfevents.{moment}")

    def get_logdir(self) -> str:
        return str(self.folder)

    def add_event(self, event) -> None:
        """Keep an event for the next flush of `file`."""
        from torch.utils.tensorboard import RecordWriter

        framed = io.BytesIO()
        RecordWriter(framed).write(event.SerializeToString())
        self.file.keep(framed.getvalue())


def curves(folder: Path, after: int) -> tuple[SummaryWriter, Appended]:
    """A writer that continues the curves of `folder`, and its file, which is written at each of its flushes.

    Readers drop what was drawn beyond step `after`. OSError.
    """
    from torch.utils.tensorboard import FileWriter, SummaryWriter
    from torch.utils.tensorboard.writer import Event, SessionLog

    events, version = Events(folder), "brain.Event:2"  # of the format in which readers drop
    again = Event(step=after + 1, session_log=SessionLog(status=SessionLog.START))
    for event in (Event(file_version=version), again):
        event.wall_time = time.time()
        events.add_event(event)
    events.file.flush()

    class Curves(SummaryWriter):
        def _get_file_writer(self):
            if self.file_writer is None:
                self.file_writer = FileWriter.__new__(FileWriter)
                self.file_writer.event_writer = events
                self.all_writers = {events.get_logdir(): self.file_writer}
            return self.file_writer

    return Curves(str(folder)), events.file
