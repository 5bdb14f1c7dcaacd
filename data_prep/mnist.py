"""MNIST: four IDX files, gzipped or not, in a folder, zip or tar.

    relaunch prep mnist --source FOLDER

Format: http://yann.lecun.com/exdb/mnist/ (magic, big-endian sizes, then bytes).
MD5 sums: torchvision.datasets.MNIST.
"""

import re

import numpy as np

from relaunch.data_prep.archive import Source, gunzip
from relaunch.data_prep.errors import DATA, Failure

TITLE = "MNIST"
NEEDS = "{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
PUBLISHED = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
URLS = {name: [MIRROR + name] for name in PUBLISHED}


def find(source: Source) -> dict | None:
    """File name -> (split, kind), if all four files are there. Failure 65 if two folders differ in one."""
    roles: dict[tuple[str, str], list[str]] = {}
    for name in source.sizes:
        if match := re.search(r"(?:^|/)(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?$", name):
            roles.setdefault(("train" if match[1] == "train" else "test", match[2]), []).append(name)
    if len(roles) < 4:
        return None
    for names in roles.values():
        if len(folders := {name.rpartition("/")[0] for name in names}) > 1:  # FashionMNIST has the same names
            files = source.stream(names)
            if len({gunzip(name, text) if name.endswith(".gz") else text for name, text in files}) > 1:
                source.only_one(folders)
    return {names[0]: role for role, names in roles.items()}


def pack(source: Source, roles: dict, writer) -> None:
    """60,000 train and 10,000 test images, uint8 [N,28,28,1]. Failure 65."""
    writer.classes = [str(digit) for digit in range(10)]
    for split in ("train", "test"):
        images, labels = read(source, roles, split)
        writer.images(split, labels, images.shape[1:], [(range(len(images)), images)])


def read(source: Source, roles: dict, split: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N,28,28,1] and labels uint8 [N] of train or test. Failure 65."""
    wanted = [name for name, (of, _) in roles.items() if of == split]
    arrays = {roles[name][1]: read_idx(name, content) for name, content in source.stream(wanted)}
    return arrays["images"][..., None], arrays["labels"]


def read_idx(name: str, content: bytes) -> np.ndarray:
    """uint8 [N,H,W] or [N]. Failure 65 if the header and the number of bytes disagree."""
    data = gunzip(name, content) if name.endswith(".gz") else content
    dimensions = 3 if "images" in name.rpartition("/")[2] else 1
    header = data[4 : 4 + 4 * dimensions]
    sizes = np.frombuffer(header[: len(header) // 4 * 4], ">u4").astype(int)
    if len(sizes) != dimensions or data[:4] != bytes([0, 0, 8, dimensions]):
        raise Failure(
            DATA, f"{name} is not an IDX file of {dimensions}-dimensional bytes", "download it again"
        )
    found, expected = len(data) - 4 - 4 * dimensions, int(np.prod(sizes))
    if found != expected:
        raise Failure(
            DATA,
            f"{name} is damaged: its header announces {expected:,} bytes, {found:,} are there",
            "download it again",
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(sizes)
