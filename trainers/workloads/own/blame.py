"""Whose mistake an error is: what comes out of a workload's own files is one line with file and line number.

with blame.blamed():
    model(example)
"""

from __future__ import annotations

import builtins
import contextlib
import traceback

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers import workloads
from relaunch.trainers.workloads.own.code import Code


@contextlib.contextmanager
def blamed(loading: Code | None = None):
    """An error that comes out of a workload's own files becomes Failure 64 that names file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if failure := blame(error, loading):
            raise failure from error
        raise


def blame(error: BaseException, loading: Code | None = None) -> Failure | None:
    """What is wrong in which line of somebody's own files; None where none of them had a part in it."""
    codes = [loading] if loading else [work.code for work in workloads.registered() if work.code]
    return next(filter(None, (blame_one(code, error, bool(loading)) for code in codes)), None)


def blame_later(error: BaseException) -> tuple[Failure, str] | None:
    """As `blame`, in the middle of a training, and where in those files it came up, as a traceback says it.

    What a machine does, a disk or a device, may come out of any line: that is nobody's mistake.
    """
    of_machine = not hasattr(builtins, type(error).__name__) or "CUDA" in str(error) or "NCCL" in str(error)
    if of_machine or isinstance(error, (OSError, MemoryError)) or not (failure := blame(error)):
        return None
    files = {
        str(work.code.folder.resolve() / name)
        for work in workloads.registered()
        if work.code
        for name in work.code.contents
    }
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    return failure, "".join(traceback.format_list(frames)).rstrip("\n")


def blame_one(code: Code, error: BaseException, at_import: bool) -> Failure | None:
    if isinstance(error, Failure) or isinstance(error, SystemExit) and not at_import:
        return None
    names = {str(code.folder.resolve() / name): code.folder / name for name in code.contents}
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    ours = [(names[file], line) for file, line in frames if file in names]
    if not ours:
        return None
    kind = type(error).__name__
    if isinstance(error, SystemExit):
        what, fix = "it ends the program while it is imported", "put that under if __name__ == '__main__':"
    elif isinstance(error, ModuleNotFoundError):
        what, fix = str(error), "install it, put it beside the file, or correct its name"
    else:
        what = f"{kind}: {error}" if str(error) else kind
        fix = "correct it" if hasattr(builtins, kind) else ""
    return Failure(USAGE, f"{ours[-1][0]}, line {ours[-1][1]}: {what}", fix)
