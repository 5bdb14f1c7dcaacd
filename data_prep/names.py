"""Names as people see them: what a file or a class is called must not drive the terminal that prints it.

printable("red\\x1b[31m")    # the escape as four visible characters
"""


def printable(name: str) -> str:
    """`name` with what is no visible character (control, direction, half a surrogate) as an escape, \\x1b."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in name
    )


def some(names, limit: int = 5) -> str:
    """The first few of several names, in order, for a message: `cat, dog and 3 more`."""
    ordered = sorted(names)
    more = f" and {len(ordered) - limit:,} more" if len(ordered) > limit else ""
    return ", ".join(map(printable, ordered[:limit])) + more
