"""What runs inside each process: the verbs on top, and below them the rooms that they share.

    python -m trainers.train mnist                 in a checkout, installed or not; accelerate does the same
    python -m relaunch.trainers.train mnist        where Relaunch is installed, in any folder
    python PATH/trainers/__main__.py train mnist   as our own launcher starts it

In all three `relaunch` is the tree that this file lies in, and nothing is imported from the current folder.
"""

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

_here = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(_here, "__main__.py")  # how our own processes are started

# By whatever name this is imported, and wherever else Relaunch is installed: all of `relaunch` is this tree.
_tree = sys.modules.setdefault("relaunch", module_from_spec(ModuleSpec("relaunch", None, is_package=True)))
_tree.__path__ = [os.path.dirname(_here)]

# `-m` puts the current folder first, whose random.py is not Python's. While it looks for us, argv[0] is "-m".
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    _word = sys.orig_argv[-len(sys.argv)]  # "trainers.train", or with options before it "-umtrainers.train"
    if f"{_word.partition('m')[2] if _word.startswith('-') else _word}.".startswith(f"{__name__}."):
        del sys.path[0]
