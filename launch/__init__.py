"""The command line: read a command, draft the plan, check it, start it, stay with it. Never imports torch.

    python -m launch train mnist             from a checkout, installed or not
    relaunch train mnist                     where it is installed, in any folder
    python PATH/launch/__main__.py train mnist   as a job on a cluster starts it

In all three `relaunch` is the tree that this file lies in, and nothing is imported from the current folder.
"""

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

if __name__ == "launch":  # the short name: all of `relaunch` is this checkout, even if another is installed
    _tree = ModuleSpec("relaunch", None, is_package=True)
    _tree.submodule_search_locations = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["relaunch"] = module_from_spec(_tree)

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    if sys.orig_argv[sys.orig_argv.index("-m") + 1].startswith(__name__):
        del sys.path[0]  # where `-m` puts the current folder, whose random.py is not Python's

# how our own processes start it
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
