"""Classes of images that lie in no class folders, from a list beside them: ImageNet's validation as it comes.

val/ILSVRC2012_val_00000001.JPEG …    and one of
LOC_val_solution.csv                  lines of a name and a class: `ILSVRC2012_val_00000001,n01751748 …`
synset_labels.txt                     lines of a class alone, in the order of the sorted names
"""

from __future__ import annotations

import re
from collections.abc import Collection

from relaunch.data_prep.archive import Source

ENDINGS = (".txt", ".csv", ".tsv")
LARGEST = 1 << 26  # bytes of a list: ImageNet's has 2 MB
FIELD = re.compile(r"[,;\s]+")


def labels(source: Source, images: Collection[str], classes: Collection[str]) -> tuple[str, dict[str, str]]:
    """(name of the list, image -> class) of the list that says the most of `images`; ("", {}) without one."""
    stems = {_stem(name): name for name in sorted(images)}
    lists = {n for n, size in source.sizes.items() if n.lower().endswith(ENDINGS) and size <= LARGEST}
    found: dict[str, dict[str, str]] = {}
    if len(stems) == len(images):  # else a name alone does not say which
        for name, content in source.stream(lists):
            lines = content.decode("utf-8", "replace").splitlines()
            rows = [fields for line in lines if (fields := FIELD.split(line.strip())) != [""]]
            if len(rows) == len(stems) and all(len(row) == 1 and row[0] in classes for row in rows):
                found[name] = dict(zip(stems.values(), (row[0] for row in rows)))
            else:
                pairs = {stems.get(_stem(row[0])): row[1] for row in rows if len(row) > 1}
                found[name] = {image: label for image, label in pairs.items() if image and label in classes}
    name = max(sorted(found), key=lambda name: len(found[name]), default="")
    return (name, found[name]) if name and found[name] else ("", {})


def _stem(name: str) -> str:
    """A file's name without folders and ending: lists give it with or without."""
    name = name.replace("\\", "/").rpartition("/")[2]
    return re.sub(r"\.(jpe?g|png|gif|bmp|webp|tiff?|ppm)$", "", name, flags=re.I)
