"""Runs one verb of this package, started by path so that the current folder plays no part.

python PATH/trainers/__main__.py train mnist --epochs 1
"""

import os
import runpy
import sys

if not __package__:  # by path: Python put this folder first, whose text.py would hide another
    here = os.path.dirname(os.path.abspath(__file__))
    others = [entry for entry in sys.path if os.path.realpath(entry) != os.path.realpath(here)]
    sys.path[:] = [os.path.dirname(here), *others]
    import trainers  # noqa: F401, TID251  binds `relaunch` to this tree

    del sys.path[0]

if __name__ == "__main__":
    verb = sys.argv.pop(1)
    try:
        runpy.run_module(f"relaunch.trainers.{verb}", run_name="__main__")
    except KeyboardInterrupt:  # before the verb could deal with it itself
        from relaunch.trainers.group import process

        sys.exit(process.interrupted())
