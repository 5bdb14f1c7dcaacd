"""Everything that Relaunch prints goes through here: a log that cannot be written ends nothing.

tell("relaunch: falling back", sys.stderr)    # talk: a full disk, or a reader that has gone, costs the line
give(table)                                   # an answer, to stdout: if that is full, Failure 73
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable
from typing import TextIO

from relaunch.data_prep.errors import STORAGE, Failure
from relaunch.data_prep.names import shown

INSISTS = 2.0  # s after the first from which on a second SIGINT insists: launchers repeat theirs at once


def acknowledged(stop: signal.Signals, then: str) -> str:
    """The line that a stop gets at once: what it is, and what becomes of it."""
    again = f"; Ctrl-C again after {INSISTS:.0f} s to leave now" if stop == signal.SIGINT else ""
    return f"relaunch: {stop.name}: {then}{again}"


def tell_in_handler(line: str) -> None:
    """A line to stderr from a signal's handler: past Python's stream, which it may have interrupted."""
    with contextlib.suppress(OSError):
        os.write(2, ("\n" * os.isatty(2) + line + "\n").encode())


def tell(
    text: str, to: TextIO | None = None, end: str = "\n", write: Callable | None = None
) -> OSError | None:
    """Print `text` (to stdout). Never raises: returns what the stream said if it did not take it.

    `write` is tqdm's, which keeps a bar in place. What an encoding lacks, or would drive the terminal, is
    written as `\\u2026`.
    """
    stream = to or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = shown(text).encode(encoding, "backslashreplace").decode(encoding)
    try:
        if write:
            write(text, file=stream, end=end)
        else:
            stream.write(text + end)
        stream.flush()
    except OSError as error:
        return error
    except ValueError:  # closed by somebody in this process
        pass
    return None


def watched() -> bool:
    """Whether stdout is a terminal; not one that is closed, or that somebody put in its place."""
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):
        return False


def fitted(text: str) -> str:
    """Lines of fields, two spaces between them, for stdout: a terminal breaks them between two fields."""
    if not watched():
        return text
    columns, lines = shutil.get_terminal_size().columns, []
    for line in text.split("\n"):
        made, *fields = line.split("  ")
        for field in fields:
            if len(made) + 2 + len(field) > columns >= 4 + len(field):  # else it would gain nothing
                lines.append(made)
                made = "    " + field
            else:
                made += "  " + field
        lines.append(made)
    return "\n".join(lines)


def give(text: str, end: str = "\n") -> None:
    """Print what was asked for. Failure 73 on a full disk, where an empty file would pass for the answer."""
    error = tell(text, end=end)
    if error and not isinstance(error, BrokenPipeError):  # a reader that has gone has read enough
        raise Failure(STORAGE, f"cannot write to stdout ({error.strerror or error})", "free some space")


def hold() -> None:
    """At a process's beginning: if it has no stdout, the next file to be opened must not become it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def settle() -> None:
    """At a process's end: a stream that takes nothing must not become the exit code, or a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:  # the interpreter would try again
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except ValueError:
            pass
