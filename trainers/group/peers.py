"""Who is missing, when ranks wait for each other in vain.

    peers = Peers(rank, world, seconds=600)
    with peers.watched():    # a collective that fails in here becomes a Failure that names the missing ranks
        ...

A collective that fails tells a rank which socket failed, not whose, and in a ring only a dead rank's
neighbours are told. So every rank has a thread beside its training. Twice a second it looks into accelerate's
store, through which the ranks met: if somebody raised the alarm there, it answers. Who does not answer is
dead, stopped or cut off. If all answer, the others wait for the one that is not itself waiting. A rank that
fails alone raises the alarm itself, and says there why.

A second thread keeps the time, which the store may not let the first one do, by a clock that stands still
while this process is suspended: a collective takes an hour of sleep for an hour of waiting, and so has no
limit of its own. When the time is up, or somebody is known to be missing, this thread cuts the connections,
which a collective notices. Where a rank waits for its device no error reaches it: it ends the process.

Before that, each rank writes its stacks, and those of ranks of its machine that do not answer: see stacks.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from relaunch.data_prep.errors import DIED, Failure
from relaunch.trainers.group import stacks
from relaunch.trainers.group.missing import AGAIN, Group, Place
from relaunch.trainers.group.process import Lost, crashed, leave, orphaned

SLEPT = 2.0  # s between two looks, from which on nobody was waiting: the process was suspended
NEVER = timedelta(days=365)  # a limit that no suspended job reaches
STORE = timedelta(seconds=60)  # for an answer of the store, which was there before the processes were started
LOOK = 0.5  # s between looks for an alarm: what a dead rank costs the others, next to nothing for the store
ANSWER = 5.0  # s that a living rank may take to answer: ten looks, for machines with more ranks than cores
UNWIND = 5.0  # s for a process that knows of the loss to end by itself: a file to write, no more
TIMED_OUT, CLOSED = "timed out", "closed"
NO_BATCH = "no batch"  # it waited for its data, not for other ranks


def how(error: BaseException) -> str | None:
    """How a collective failed: TIMED_OUT or CLOSED; None: the error is another's."""
    text = str(error).lower()
    if not (
        isinstance(error, dist.DistError) or "gloo" in text or "pair closure" in text
    ):  # gloo's have no type of their own
        return None
    return TIMED_OUT if "timed out" in text or "timeout" in text else CLOSED


class Waiting:
    """Within it a rank waits. A class, as a step enters six: a generator takes three times as long."""

    __slots__ = ("before", "peers", "what")

    def __init__(self, peers: Peers, what: str):
        self.peers, self.what = peers, what

    def __enter__(self) -> None:
        peers = self.peers
        self.before, peers._wait = peers._wait, (peers._awake(), self.what)

    def __exit__(self, *_) -> None:
        self.peers._wait = self.before and (self.peers._awake(), self.before[1])


class Peers:
    """The other ranks, as far as this one hears of them."""

    def __init__(self, rank: int, world: int, seconds: float):
        self.rank, self.world = rank, world
        self.grace = min(30.0, seconds / 2)  # of `seconds`, for finding out who is missing, and for leaving
        self.patience = timedelta(seconds=seconds - self.grace)  # of a collective
        first = rank - int(os.environ.get("LOCAL_RANK", 0))
        here = range(first, first + int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        self.hosts = [""] * world  # names of the ranks' machines, once they have met
        self.group = Group(rank, world, here, self.patience.total_seconds(), self.hosts)
        self._processes: list[stacks.Someone] = []  # of the ranks, once they have met
        self._failed, self._lost = "", None
        self._wait: tuple[float, str] | None = None  # since when on the clock `_awake`, and for what
        self._looked, self._slept = time.monotonic(), 0.0
        self._wake, self._closing, self._concluded = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._timer = threading.Thread(target=self._keep_time, daemon=True)
        if (
            world > 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        ):  # else a rank keeps it, and may be the one
            self._timer.start()
            self._store = self._connect()
            self._thread.start()

    @property
    def watching(self) -> bool:
        """Whether a thread keeps the time: else only a collective's own timeout ends a wait."""
        return self._timer.is_alive()

    @property
    def limit(self) -> timedelta:
        """Of a collective."""
        return NEVER if self.watching else self.patience

    def _awake(self) -> float:
        """Seconds on a clock that stands still while this process is suspended."""
        return time.monotonic() - self._slept

    def waiting(self, what: str = "a collective") -> Waiting:
        """Around what waits for other ranks, as a device may: there the thread keeps the time."""
        return Waiting(self, what)

    def reading(self):
        """Around what waits for this rank's data: should it never end, others may not be there to notice."""
        if self.world == 1 and self._timer.ident is None:
            self._timer.start()
        return self.waiting("")

    @contextmanager
    def watched(self):
        """A collective that fails becomes Failure 76 (ranks were waited for) or 1 (they died).

        What else ends this rank is told to the others, which would wait for it; a Failure becomes a Lost.
        """
        try:
            yield
        except Exception as error:
            self._failed = (isinstance(error, RuntimeError) and how(error)) or ""
            if self.world == 1 or isinstance(error, Lost) and error is self._lost:
                raise
            if not self._failed:
                speaks = self._tell(error)
                if isinstance(error, Failure) and speaks is not None:
                    raise Lost(error.code, error.what, error.fix, speaks) from error
                raise
            raise self._conclusion() from error

    def close(self) -> None:
        self._closing.set()
        self._wake.set()
        for thread in (self._thread, self._timer):
            if thread.is_alive():
                thread.join(2 * LOOK)
        stacks.keep(None)

    def _tell(self, error: Exception) -> bool | None:
        """Raise the alarm with why this rank ends; whether it is the first of its machine, None: not told."""
        if self._lost:  # by another's alarm, which came first
            self._closing.set()
            return self._lost.speaks
        if not self._thread.is_alive() or self._closing.is_set():
            return None
        self._closing.set()  # the thread has nothing to add
        if isinstance(error, Failure):
            cause = (self.rank, error.code, error.what, error.fix)
        else:
            cause = (self.rank, DIED, crashed(error), AGAIN)
        with suppress(RuntimeError):
            self._store.compare_set("cause", "", json.dumps(cause))
            self._store.set("alarm", "")
            return self._store.add(f"told/{self.group.here[0]}", 1) == 1
        return None

    # the thread -----------------------------------------------------------------------------------

    def _connect(self):
        """Not in the thread: an address look-up reads the environment while accelerate writes it: a crash."""
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            store = dist.TCPStore(*place, wait_for_workers=False, timeout=min(self.patience, STORE))
        except RuntimeError as error:
            what = f"accelerate's store at {':'.join(map(str, place))}, where the processes meet, is gone"
            raise Lost(DIED, what, AGAIN, speaks=self.group.here[0] == self.rank) from error
        return dist.PrefixStore(f"relaunch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)

    def _listen(self) -> None:
        try:
            while not self._closing.is_set():
                if self._failed:
                    self._store.set("alarm", "")
                if self._store.check(["alarm"]):
                    self._lost = self._conclude(self._store)
                    break
                self._wake.wait(LOOK)
        except (
            RuntimeError
        ):  # the store's machine is gone: it is the collectives that tell whether that matters
            pass
        self._concluded.set()

    def _keep_time(self) -> None:
        while not self._closing.wait(LOOK):
            if self.world > 1 and not self._processes and orphaned():  # whom they would meet at
                leave(Lost(DIED, "accelerate was gone before its processes had met", AGAIN, speaks=True))
            if failed := self._overdue():
                self._failed = failed
                self._conclusion()
            if self._lost:
                if self.world > 1:
                    cut_connections()
                    self._closing.wait(UNWIND)
                if not self._closing.is_set():
                    leave(self._lost)

    def _conclusion(self) -> Lost:
        """Who is missing, once this rank's wait has failed."""
        self._wake.set()
        if self._thread.is_alive():  # without the store's machine it never concludes
            self._concluded.wait(self.grace / 2 + stacks.WRITING + 1)
        if not self._lost and self._failed != CLOSED:
            place, writing = self._place()
            writing.join(stacks.WRITING)
            if self.world == 1:
                self._lost = self.group.hung({0}, {0}, {0: place})
        self._lost = self._lost or self.group.cut_off(self._failed != CLOSED)
        return self._lost

    def _overdue(self) -> str:
        """How this rank's wait fails, if it took too long, awake. Each look is one tick of that clock."""
        now = time.monotonic()
        self._slept += max(0, now - self._looked - SLEPT)
        self._looked = now
        wait = self._wait  # which the training may end meanwhile
        if wait is None or self._awake() - wait[0] <= self.patience.total_seconds():
            return ""
        if wait[1]:
            return TIMED_OUT if self.world > 1 else ""  # alone it computes, for however long
        return NO_BATCH

    def _conclude(self, store) -> Lost:
        """Answer the alarm, hear the others' answers, and say who is missing."""
        store.set(f"here/{self.rank}", "")
        began, everyone, limit = time.monotonic(), set(range(self.world)), min(ANSWER, self.grace / 2)
        writing, asked = [], set()  # threads, and silent ranks of this machine
        while True:
            if self._failed:
                store.set(f"failed/{self.rank}", self._failed)
            if store.check(["cause"]):
                return self.group.caused(*json.loads(store.get("cause")))
            here = {r for r in everyone if store.check([f"here/{r}"])}
            failed = {r: store.get(f"failed/{r}").decode() for r in everyone if store.check([f"failed/{r}"])}
            waited, hung = time.monotonic() - began, not {TIMED_OUT, NO_BATCH}.isdisjoint(failed.values())
            silent = everyone - here
            if hung and not writing:
                place, thread = self._place()
                store.set(f"at/{self.rank}", json.dumps([place.waits, place.at]))
                writing.append(thread)
            if hung and not asked and waited > limit / 2 and self._processes and self.group.speaks(here):
                asked = silent & set(self.group.here)
                for rank in asked:
                    stacks.ask(self._processes[rank])
                    store.set(f"at/{rank}", json.dumps(["", stacks.state(self._processes[rank])]))
            if waited > limit:
                if not hung:
                    return self.group.gone(silent, here)
                if silent or len(failed) == self.world or waited > self.grace / 2:
                    break
            time.sleep(LOOK / 5)
        for rank in asked & silent:
            answer = stacks.answer(self._processes[rank])
            writing.append(stacks.write(rank, self._who(rank), "did not answer", answer))
        places = {r: Place(*json.loads(store.get(f"at/{r}"))) for r in everyone if store.check([f"at/{r}"])}
        for thread in writing:
            thread.join(stacks.WRITING)
        waiting = {r for r in failed if r not in places or places[r].waits}  # and did when the alarm came
        return self.group.hung(silent or everyone - waiting, here, places)

    # the stacks -----------------------------------------------------------------------------------

    def _place(self) -> tuple[Place, threading.Thread]:
        """Where this rank is, and the thread that writes its stacks."""
        wait = self._wait
        waits = wait[1] if wait else ""
        place = Place(waits, stacks.where() if waits else f"in {stacks.where()}")
        does = f"{'waits' if waits else 'is'} {place}"
        return place, stacks.write(self.rank, self._who(self.rank), does)

    def _who(self, rank: int) -> str:
        found = self._processes[rank] if self._processes else stacks.myself()
        return f"rank {rank} of {self.world}, process {found.pid} on {found.host}"

    def meet(self, processes: list[stacks.Someone]) -> None:
        """The ranks have met: the process of each."""
        self._processes, self.hosts[:] = processes, [each.host for each in processes]


def cut_connections() -> None:
    """End this process's connections, so that a collective which waits for one of them fails."""
    with suppress(OSError):  # /proc is Linux's
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername():
                    connection.shutdown(socket.SHUT_RDWR)  # not of one that listens: gloo would abort
