"""What to say of ranks that the others miss: one line and its code, by one rank of each machine.

Group(rank=0, world=2, here=range(2), patience=570, hosts=["n0", "n0"]).gone({1}, {0})    # a Lost, code 1
"""

from __future__ import annotations

from dataclasses import dataclass

from relaunch.data_prep.errors import DIED, HUNG
from relaunch.trainers.group import stacks
from relaunch.trainers.group.process import Lost

AGAIN = "--resume auto goes on"


@dataclass(frozen=True)
class Place:
    """Where a rank is: the collective that it waits in, "" for none, and the line of code, or its state."""

    waits: str
    at: str

    def __str__(self):
        return f"in {self.waits} ({self.at})" if self.waits else self.at


@dataclass
class Group:
    """The ranks as one of them sees them."""

    rank: int
    world: int
    here: range  # those of this machine
    patience: float  # s that it waits
    hosts: list[str]  # of each rank, "" until they have met

    def caused(self, rank: int, code: int, what: str, fix: str) -> Lost:
        """What to say of a rank that told why it ends. A Failure it has said itself, on its machine."""
        what = f"{named({rank}, self.hosts)} gone: {what}"
        first = self.rank == min(set(self.here) - {rank}, default=rank)
        return Lost(code, what, fix, first and (code == DIED or rank not in self.here))

    def gone(self, missing: set[int], here: set[int]) -> Lost:
        """Connections were lost; `here` are those who answer, `missing` who does not."""
        if not missing:
            what = f"all {self.world} ranks live, and a collective lost its connection"
            return Lost(DIED, what, f"look at the network between the machines; {AGAIN}", self.speaks(here))
        how = "killed, or crashed with the lines above or in the log there"
        what = f"{named(missing, self.hosts)} gone: {how}"
        return Lost(DIED, what, AGAIN, self.speaks(here - missing))

    def hung(self, missing: set[int], here: set[int], places: dict[int, Place]) -> Lost:
        """Time is up. `missing`: who does not wait for the others; `places`: where ranks are, if known."""
        waited, speaks = f"{self.patience:.0f} s in vain", self.speaks(here - missing or here)
        fix = f"see what became of it there; {AGAIN} from the last checkpoint"
        waiting: dict[str, list[int]] = {}
        for rank in sorted(set(places) - missing):
            waiting.setdefault(places[rank].waits, []).append(rank)
        groups = sorted(waiting.values(), key=len)
        if missing:
            known = min(missing & set(places), default=None)
            if missing == set(range(self.world)):
                what = f"{named(missing, self.hosts)} without a batch: waited {waited} for the data"
                what += "" if known is None else f", {places[known]}"
            else:
                what = f"{named(missing, self.hosts)} missing: the others waited {waited}"
                what += f" {places[groups[-1][0]]}" if groups else ""
                what += "" if known is None else f", while rank {known} is {places[known]}"
        elif len(groups) > 1:  # the fewest first: it is them who left something out, or did too much
            said = [f"{named(set(ranks), self.hosts)} {places[ranks[0]]}" for ranks in groups]
            what = f"{', '.join(said)}: each waited {waited}"
        else:
            place = f" {places[groups[0][0]]}" if groups else ""
            what = f"all {self.world} ranks live, and wait for each other{place}"
            fix = f"look at the network between the machines; {AGAIN}"
        kept = f" (stacks: {stacks.kept()})" if stacks.kept() else ""
        return Lost(HUNG, what + kept, fix, speaks)

    def speaks(self, able: set[int]) -> bool:
        return self.rank == min(able & set(self.here), default=self.rank)

    def cut_off(self, timed_out: bool) -> Lost:
        """What to say without the store, which is kept by accelerate on rank 0's machine."""
        there = {r for r in range(self.world) if self.hosts[r] == self.hosts[0]} - set(self.here)
        what = f"{named(there or {0}, self.hosts)} {'cut off' if timed_out else 'gone'}"
        what = (
            "the accelerate launcher that started this process is gone"
            if 0 in self.here
            else f"{what} with {'its' if len(there) < 2 else 'their'} machine"
        )
        waited = f": waited {self.patience:.0f} s in vain" if timed_out else ""
        fix = f"look at that machine and at the network; {AGAIN}"
        return Lost(HUNG if waited else DIED, what + waited, fix, self.rank == self.here[0])


def named(ranks: set[int], hosts: list[str]) -> str:
    """`rank 1 (on n0) is`, `ranks 2, 3 (on n1) are`."""
    found = sorted({hosts[r] for r in ranks if hosts[r]})
    where = f" (on {', '.join(found)})" if found else ""
    listed, many = ", ".join(map(str, sorted(ranks))), len(ranks) > 1
    return f"rank{'s' * many} {listed}{where} {'are' if many else 'is'}"
