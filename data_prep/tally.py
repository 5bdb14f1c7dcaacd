"""What preparing left out or changed, counted: prep drops and converts nothing without a line that says so.

tally = Tally()
tally.add("hidden files", ".DS_Store")
lines("left out", tally.facts())    # ["left out: 1 hidden files, e.g. .DS_Store"]
"""

from typing import Any

from relaunch.data_prep.names import printable


class Tally:
    """Reason (what the things are, in the plural) -> how many, and the first of them."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count `count` more things; `example` names the first of them."""
        before, first = self.found.get(reason, (0, printable(example)))
        self.found[reason] = before + count, first

    def facts(self) -> list[dict[str, Any]]:
        """For meta.json: [{"what", "count", "example"}], in the order in which they were found."""
        return [
            {"what": reason, "count": count, "example": example}
            for reason, (count, example) in self.found.items()
        ]


def lines(word: str, facts: list[dict[str, Any]]) -> list[str]:
    """Of `Tally.facts`, one line each: `left out: 3 hidden files, e.g. .DS_Store`."""
    return [f"{word}: {fact['count']:,} {fact['what']}, e.g. {fact['example']}" for fact in facts]
