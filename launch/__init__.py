"""The command line: reads a command, drafts the plan, checks, starts, stays with it. Never imports torch.

    python -m launch train mnist                   in a checkout, installed or not
    relaunch train mnist                           where it is installed, in any folder
    python PATH/launch/__main__.py train mnist     as a job on a cluster starts it

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
    _word = sys.orig_argv[-len(sys.argv)]  # "launch", or with options before it "-umlaunch"
    if f"{_word.partition('m')[2] if _word.startswith('-') else _word}.".startswith(f"{__name__}."):
        del sys.path[0]
