"""`open` on a descriptor of one's own, which sees each write; what is buffered above it is Python's."""

import io


def opening(raw: type[io.FileIO]):
    """builtins.open, on `raw`."""

    def opened(
        file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
    ):
        f = raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return f
        kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
        return kind(f) if "b" in mode else io.TextIOWrapper(kind(f), encoding, errors, newline)

    return opened
