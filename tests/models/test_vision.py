"""torchvision without its compiled operators, as PyPI's is beside a PyTorch without CUDA."""

import subprocess
import sys

PROGRAM = """
import torch
def load(path):
    raise OSError("libcudart.so: cannot open shared object file")
torch.ops.load_library = load
from relaunch.models import resnet, zoo
assert resnet.resnet18(classes=3)(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
assert "resnet50" in zoo.names("torchvision")
import torchvision
assert not torchvision.extension._has_ops(), "the operators are there: this tests nothing"
print("trains")
"""


def test_our_models_need_none_of_its_operators():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100)
    assert done.stdout == "trains\n", done.stderr
