"""Passes on what a process writes, and keeps it in a log: of a bar that moves, its last state.

    python copier.py 5 aloud 7:1 9:2    # what comes from 7 goes to our stdout, from 9 to our stderr; all to 5
    python copier.py 5 quiet 7:1 9:2    # into 5 only, but for what finds no room there

A process of its own: it lives longer than the one that writes, whose last words are often those that matter.
A reader that has gone costs what it did not take. Started by path; needs no package.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time

BLOCK = 1 << 16  # bytes read at a time, and of a line without an end that wait for one


def kept(waiting: bytes, ended: bool = False) -> tuple[bytes, bytes]:
    """(what goes into the log, what waits for its line's end). A bar returns to its line's beginning."""
    *lines, rest = waiting.split(b"\n")
    whole = [line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n" for line in lines]
    rest = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :]
    if rest and (ended or len(rest) > BLOCK):
        whole, rest = [*whole, rest.rstrip(b"\r") + b"\n"], b""
    return b"".join(whole), rest


def write(descriptor: int, data: bytes) -> bool:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # a terminal that somebody left so
            time.sleep(0.01)
        except OSError:
            return False
    return True


def copy(log: int, aloud: bool, streams: dict[int, int]) -> None:
    """`streams`: where what comes from a descriptor goes. Ends with the last who could write."""
    waiting = dict.fromkeys(streams, b"")
    with selectors.DefaultSelector() as selector:
        for source in streams:
            selector.register(source, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                try:
                    data = os.read(key.fd, BLOCK)
                except OSError:  # how a terminal says that its other end is closed
                    data = b""
                if aloud:
                    write(streams[key.fd], data)
                told, waiting[key.fd] = kept(waiting[key.fd] + data, ended=not data)
                if not write(log, told) and not aloud:
                    write(streams[key.fd], told)
                if not data:
                    selector.unregister(key.fd)


if __name__ == "__main__":
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(
            number, signal.SIG_IGN
        )  # those that stop a group: the others have yet to say how it ended
    pairs = (pair.split(":") for pair in sys.argv[3:])
    copy(int(sys.argv[1]), sys.argv[2] == "aloud", {int(source): int(goal) for source, goal in pairs})
