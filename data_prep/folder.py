"""Any image folder, or a zip or tar of it: train/<class>/*, val/<class>/* (or valid/), test/<class>/*.

    relaunch prep flowers --source FOLDER --as folder --size 64

Grey images stay one channel if all are grey, else everything becomes RGB.
"""

from relaunch.data_prep.archive import Source
from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.images import decode, is_image, measure

TITLE = "an image folder"
NEEDS = "train/<class>/*.jpg (or .png, …) and val/<class>/*.jpg"
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def find(source: Source) -> dict | None:
    """File name -> (split, class), below the outermost folder that has train/<class>/<image>."""
    images = [name for name in source.sizes if is_image(name)]
    tops = {name[: f"/{name}".index("/train/")] for name in images if "/train/" in f"/{name}"}
    roles = {}
    if tops:
        top = min(tops, key=len)
        for name in images:
            parts = name.removeprefix(top).split("/")
            if name.startswith(top) and len(parts) > 2 and parts[0] in SPLITS:
                roles[name] = (SPLITS[parts[0]], parts[1])
    return roles if any(split == "train" for split, _ in roles.values()) else None


def pack(source: Source, roles: dict, writer, size: int | None = None) -> None:
    """uint8 [N,H,W,C] per split, by name; `size` is H and W in pixels.

    Failure 64 when the images differ in size and none is given, 65 for a class without train images.
    """
    writer.classes = sorted({label for split, label in roles.values() if split == "train"})
    if unknown := sorted(
        {f"{split}/{label}" for split, label in roles.values() if label not in writer.classes}
    ):
        raise Failure(
            DATA,
            f"no train images for {', '.join(unknown[:5])}",
            "give every class a folder under train/, or remove these",
        )
    files = {
        split: sorted(name for name in roles if roles[name][0] == split) for split in ("train", "val", "test")
    }

    def stream(split):
        rows = {name: row for row, name in enumerate(files[split])}
        return ((rows[name], name, content) for name, content in source.stream(rows))

    shape = measure([stream(split) for split in files], len(roles), size, writer.show)
    for split, names in files.items():
        if names:
            writer.images(
                split,
                [writer.classes.index(roles[name][1]) for name in names],
                shape,
                decode(stream(split), shape, len(names), f"packing {split}", writer.show),
            )
