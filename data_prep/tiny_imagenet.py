"""Tiny-ImageNet-200: the official zip or its folder; 64x64 RGB, splits train and val (test has no labels).

    relaunch prep tiny_imagenet --source tiny-imagenet-200.zip [--as-folders]

Classes are the sorted ids of wnids.txt, named by words.txt; val labels come from val_annotations.txt.
"""

from pathlib import Path

from relaunch.data_prep.archive import Source
from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.files import storage
from relaunch.data_prep.images import decode, is_image
from relaunch.data_prep.packed import FLAG
from relaunch.data_prep.progress import Progress

TITLE = "Tiny-ImageNet"
NEEDS = "wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt"
PUBLISHED = {"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"}  # avalanche-lib has the same
URLS = {"tiny-imagenet-200.zip": ["http://cs231n.stanford.edu/tiny-imagenet-200.zip"]}
TEXTS = ("wnids.txt", "words.txt", "val/val_annotations.txt")


def find(source: Source) -> dict | None:
    """File name -> ("train", wnid), ("val", None) for images and ("text", name) for the lists."""
    tops = [name.removesuffix(TEXTS[2]) for name in source.sizes if name.endswith(TEXTS[2])]
    if not tops:
        return None
    source.only_one(tops)
    prefix, roles = tops[0], dict[str, tuple[str, str | None]]()
    for name in source.sizes:
        inner = name.removeprefix(prefix) if name.startswith(prefix) else ""
        parts = inner.split("/")
        if inner in TEXTS:
            roles[name] = ("text", inner)
        elif parts[0] in ("train", "val") and is_image(name):
            roles[name] = (parts[0], parts[1] if parts[0] == "train" else None)
    return roles if sum(role == "text" for role, _ in roles.values()) == 3 else None


def pack(source: Source, roles: dict, writer) -> None:
    """100,000 train and 10,000 val images, uint8 [N,64,64,3]. Failure 65 if lists and files disagree."""
    wnids, names, labelled = _labels(source, roles)
    writer.classes = [names.get(wnid, wnid) for wnid in wnids]
    for split in ("train", "val"):
        files, labels = _rows(wnids, labelled, split)
        rows = {name: row for row, name in enumerate(files)}
        stream = ((rows[name], name, content) for name, content in source.stream(files))
        writer.images(
            split,
            labels,
            (64, 64, 3),
            decode(stream, (64, 64, 3), len(files), f"tiny_imagenet: {split}", writer.show),
        )


def rows(source: Source, roles: dict, split: str) -> tuple[list[str], list[int]]:
    """The files and labels of train or val, in the order in which they are packed. Failure 65."""
    wnids, _, labelled = _labels(source, roles)
    return _rows(wnids, labelled, split)


def _rows(wnids: list[str], labelled: dict, split: str) -> tuple[list[str], list[int]]:
    files = sorted(name for name in labelled if labelled[name][0] == split)
    return files, [wnids.index(labelled[name][1]) for name in files]


def write_folders(source: Source, roles: dict, folder: Path, show: bool) -> None:
    """Writes FOLDER/{train,val}/<wnid>/*.JPEG, the tree that torchvision's ImageFolder reads."""
    wnids, _, labelled = _labels(source, roles)
    with (
        storage(folder, FLAG),
        Progress(f"writing {folder.name}", len(labelled), "images", show) as progress,
    ):
        for split in ("train", "val"):
            for wnid in wnids:
                (folder / split / wnid).mkdir(parents=True)
        for name, content in source.stream(labelled):
            split, wnid = labelled[name]
            (folder / split / wnid / name.rpartition("/")[2]).write_bytes(content)
            progress.add(1)


def _labels(source: Source, roles: dict) -> tuple[list[str], dict, dict]:
    """(sorted class ids, id -> words, image file -> (split, id)) from the three lists."""
    lists = {
        roles[name][1]: content.decode("utf-8", "replace").splitlines()
        for name, content in source.stream(name for name in roles if roles[name][0] == "text")
    }
    wnids = sorted(line.strip() for line in lists["wnids.txt"] if line.strip())
    names = dict(line.split("\t", 1) for line in lists["words.txt"] if "\t" in line)
    annotated = dict(line.split("\t")[:2] for line in lists["val/val_annotations.txt"] if "\t" in line)
    labelled = {}
    for name, (split, wnid) in roles.items():
        if split != "text":
            wnid = wnid or annotated.get(name.rpartition("/")[2])
            if wnid not in wnids:
                raise Failure(
                    DATA,
                    f"{name} has no class: "
                    + ("val_annotations.txt lacks it" if wnid is None else f"{wnid} is not in wnids.txt"),
                    "download Tiny-ImageNet again",
                )
            labelled[name] = (split, wnid)
    present = {name.rpartition("/")[2] for name in labelled}
    if missing := sorted(set(annotated) - present):
        raise Failure(
            DATA,
            f"{len(missing):,} images of val_annotations.txt are missing, the first is {missing[0]}",
            "download Tiny-ImageNet again",
        )
    return wnids, names, labelled
