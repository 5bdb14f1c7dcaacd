"""Any image folder, or a zip or tar of it: train/<class>/*, val/<class>/* (or valid/), test/<class>/*.

    relaunch prep flowers --source FOLDER --as folder --size 64
    relaunch prep flowers --source FOLDER --val-fraction 0.2        (FOLDER/<class>/* alone)

Grey images stay one channel if all are grey, else everything becomes RGB.
"""

from pathlib import Path

from relaunch.data_prep.archive import Source
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.images import decode, is_image, measure
from relaunch.data_prep.lists import labels
from relaunch.data_prep.names import printable, quoted, some
from relaunch.data_prep.splits import TAKE, like_splits, one_name_each, refuse_unknown, split_of
from relaunch.data_prep.tally import Tally

TITLE = "an image folder"
NEEDS = "train/<class>/*.jpg (or .png, …) and val/<class>/*.jpg"
LIST = "list"  # in the place of a split: a list of classes
WHOLE = "all"  # in the place of a split: classes that nobody has divided into train and val


def find(source: Source) -> dict | None:
    """File name -> (split, class), below the outermost folder that has train/<class>/<image>.

    Failure 65 for a second such folder, and for two folders that are the same split.
    """
    images = [name for name in source.sizes if is_image(name)]
    tops = {top for name in images if (top := _top(name)) is not None}
    if not tops:
        return None
    top = min(tops, key=lambda top: (top.count("/"), top))
    inside = [name for name in images if name.startswith(top)]
    splits = one_name_each(sorted({name.removeprefix(top).split("/")[0] for name in inside}), source.name)
    roles = {}
    for name in inside:
        parts = name.removeprefix(top).split("/")
        if len(parts) > 2 and parts[0] in splits:
            roles[name] = (splits[parts[0]], parts[1])
    source.only_one({top, *(other for name in images if name not in roles and (other := _top(name)))})
    return roles | _listed(source, roles, top)


def find_whole(source: Source) -> dict | None:
    """File name -> (WHOLE, class) for a folder of two or more classes, which are no splits."""
    top = _whole_top(source)
    inside = {name: name.removeprefix(top).split("/") for name in source.sizes if is_image(name)}
    roles = {name: (WHOLE, parts[0]) for name, parts in inside.items() if len(parts) > 1}
    classes = {label for _, label in roles.values()}
    known = any(map(split_of, classes)) or like_splits(classes)
    return roles if len(classes) > 1 and not known else None


def pack(source: Source, roles: dict, writer, size: int | None = None) -> None:
    """uint8 [N,H,W,C] per split, by name; `size` is H and W in pixels.

    Failure 64 when the images differ in size and none is given, or when nothing is validation; 65 for a class
    without train images, and where a split or a class would be lost.
    """
    whole = any(split == WHOLE for split, _ in roles.values())
    writer.classes = sorted({label for split, label in roles.values() if split in ("train", WHOLE)})
    _nested(source, roles, writer)
    if whole and not writer.holdout:
        raise Failure(
            USAGE,
            f"{source.name} is a folder of {len(writer.classes):,} classes ({some(writer.classes)}) without "
            "train/ and val/",
            TAKE,
        )
    known = {label: number for number, label in enumerate(writer.classes)}
    roles = {name: ("train" if split == WHOLE else split, label) for name, (split, label) in roles.items()}
    _account(source, roles, whole, writer)
    writer.notes += [note for split, note in roles.values() if split == LIST]
    roles = {name: role for name, role in roles.items() if role[0] != LIST}
    unknown = {f"{split}/{label}" for split, label in roles.values() if label not in known}
    refuse_unknown(unknown, known, source.name)
    files = {
        split: sorted(name for name in roles if roles[name][0] == split) for split in ("train", "val", "test")
    }
    writer.check_splits([split for split, names in files.items() if names])

    def stream(split):
        rows = {name: row for row, name in enumerate(files[split])}
        return ((rows[name], name, content) for name, content in source.stream(rows))

    shape = measure([stream(split) for split in files], len(roles), size, writer.show, writer.changed)
    for split, names in files.items():
        if names:
            writer.images(
                split,
                [known[roles[name][1]] for name in names],
                shape,
                decode(stream(split), shape, len(names), f"packing {split}", writer.show),
            )


def _nested(source: Source, roles: dict, writer) -> None:
    """A note where images of a class lie in several folders below its own. Failure 65 in a folder of classes
    where only some are so: then those below may be the classes, and theirs would all be one."""
    inner: dict[str, set[str]] = {}
    for name, (split, label) in roles.items():
        if split != LIST:
            below = f"/{name}".rpartition(f"/{label}/")[2].split("/")[:-1]
            inner.setdefault(label, set()).update(below[:1])
    several = {label: below for label, below in inner.items() if len(below) > 1}
    if not several:
        return
    label, below = min(several.items())
    what = f"the images of {quoted(label)} lie in {len(below):,} folders below it ({some(sorted(below))})"
    if all(inner.values()) or not any(split == WHOLE for split, _ in roles.values()):
        writer.notes.append(f"{what}: packed as one class")
        return
    archive = source.path.is_file()
    path = quoted(str((Path() if archive else source.path) / f"{_whole_top(source)}{label}"))
    fix = f"if so, {'unpack it and ' * archive}pass --source {path}; if not, put them directly into it"
    raise Failure(DATA, f"{what}: are those the classes of {source.name}?", fix)


def rows(source: Source, roles: dict, split: str) -> tuple[list[str], list[int]]:
    """The files and labels of a split, in the order in which they are packed."""
    roles = {name: ("train" if of == WHOLE else of, label) for name, (of, label) in roles.items()}
    known = sorted({label for of, label in roles.values() if of == "train"})
    files = sorted(name for name in roles if roles[name][0] == split)
    return files, [known.index(roles[name][1]) for name in files]


def differs(source: Source) -> str:
    """How a source is not an image folder, in a few words, for a refusal."""
    folders = {part for name in source.sizes for part in name.split("/")[:-1]}
    splits = {split: folder for folder in sorted(folders) if (split := split_of(folder))}
    images = [name for name in source.sizes if is_image(name)]
    if images and not splits and (like := like_splits(folders)):
        return f"{some(like)} are not called train, val and test"
    if not images or not splits:
        return ""
    if "train" not in splits:
        return f"there is {', '.join(f'{folder}/' for folder in splits.values())} but no train/"
    return f"the images below {splits['train']}/ lie in no class folders"


def _top(name: str) -> str | None:
    """The folder above the outermost train/<class>/ of a file's name, ending with a slash; None without."""
    parts = name.split("/")
    for depth, part in enumerate(parts[:-2]):
        if split_of(part) == "train":
            return "".join(f"{part}/" for part in parts[:depth])
    return None


def _whole_top(source: Source) -> str:
    """The innermost folder that holds all images, ending with a slash, or nothing."""
    folders = [name.split("/")[:-1] for name in source.sizes if is_image(name)]
    same = 0
    while folders and all(len(parts) > same and parts[same] == folders[0][same] for parts in folders):
        same += 1
    return "".join(f"{part}/" for part in folders[0][:same]) if folders else ""


def _listed(source: Source, roles: dict, top: str) -> dict:
    """Roles of images directly below val/ or test/ whose classes a list in the source says, and the list's:
    (LIST, what to say of it)."""
    known = {label for split, label in roles.values() if split == "train"}
    flat: dict[str, list[str]] = {"val": [], "test": []}
    for name in source.sizes:
        folder, *inner = name.removeprefix(top).split("/") if name.startswith(top) else [""]
        if len(inner) == 1 and split_of(folder) in flat and is_image(name):
            flat[split_of(folder)].append(name)
    found = {}
    for split, images in flat.items():
        listed, of = labels(source, images, known) if images else ("", {})
        if of:
            note = f"classes of {split} are those that {listed} lists for its {len(of):,} images"
            found |= {name: (split, label) for name, label in of.items()} | {listed: (LIST, note)}
    return found


def _account(source: Source, roles: dict, whole: bool, writer) -> None:
    """Count what `roles` leaves out. Failure 65 where a class or a split would be lost by it."""
    train = next(name for name in roles if roles[name][0] == "train")
    top = _whole_top(source) if whole else _top(train) or ""
    missed: dict[tuple[str, str], Tally] = {}  # (split, class) -> endings of files that are not packed
    flat, seen = Tally(), set()  # per split, images that lie in no class folder; the splits that there are
    for name in sorted(source.sizes.keys() - roles.keys() | {f"{folder}/" for folder in source.folders}):
        parts = name.removeprefix(top).split("/") if name.startswith(top) else [""]
        split, inner = ("train", parts) if whole else (split_of(parts[0]), parts[1:])
        folder, kind = name.endswith("/"), Path(name).suffix or "no ending"
        seen.add(split)
        if split and len(inner) > 1:
            tally = missed.setdefault((split, inner[0]), Tally())
            if not folder:
                tally.add(kind, name)
                writer.left_out.add(f"files that Pillow does not read as images ({kind})", name)
        elif split:
            if not folder:
                flat.add(split, name)
                what = "images" if is_image(name) else f"files ({kind})"
                writer.left_out.add(f"{what} that lie in no class folder", name)
        elif not folder:
            writer.left_out.add("files outside train/, val/ and test/", name)
    packed = set(roles.values())
    for (split, label), tally in sorted(missed.items(), key=lambda item: item[0]):
        if (split, label) not in packed:
            _refuse_lost_class(source, split, label, tally, writer)
    splits = {split for split, _ in packed}
    for split in ("val", "test"):
        if split in seen and not splits & {split, "val"} and not writer.holdout:
            count, example = flat.found.get(split, (0, ""))
            why = (
                f"its files ({count:,}) lie in no class folders, so they have no labels, e.g. {example}"
                if count
                else "it holds no images"
            )
            raise Failure(
                DATA,
                f"{split} of {source.name} would be lost: {why}",
                f"sort them into {split}/<class>/ as train is, add a list of lines `image class`, or {TAKE}"
                if count
                else f"fill it, or {TAKE}",
            )


def _refuse_lost_class(source: Source, split: str, label: str, tally: Tally, writer) -> None:
    holds = ", ".join(f"{count:,} {kind}" for kind, (count, _) in tally.found.items())
    if not holds and split != "train":  # said again where val lacks a class of train
        writer.left_out.add("empty folders", f"{split}/{label}")
        return
    raise Failure(
        DATA,
        f"class '{printable(label)}' of {split} in {source.name} would be lost: "
        + (f"it holds no image that Pillow reads, but {holds}" if holds else "its folder is empty"),
        "convert its files to .png or .jpg" if holds else "fill it, or pass a source without it",
    )
