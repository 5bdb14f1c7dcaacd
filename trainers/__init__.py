"""What runs inside each process: the verbs on top, and below them the rooms that they share.

    python -m trainers.train mnist               from a checkout, installed or not; the same after `accelerate launch`
    python -m relaunch.trainers.train mnist      where Relaunch is installed, in any folder
    python PATH/trainers/__main__.py train mnist as our own launcher starts it

In all three `relaunch` is the tree that this file lies in, and nothing is imported from the current folder.
"""

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

if (
    __name__ == "trainers"
):  # by the short name: all of `relaunch` is this checkout, even if another one is installed
    _tree = ModuleSpec("relaunch", None, is_package=True)
    _tree.submodule_search_locations = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["relaunch"] = module_from_spec(_tree)

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] == os.getcwd():
    if sys.orig_argv[sys.orig_argv.index("-m") + 1].startswith(__name__):
        del sys.path[0]  # where `-m` puts the current folder, whose random.py is not Python's

PROGRAM = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "__main__.py"
)  # how our own processes start it
