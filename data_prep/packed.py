"""Packed data sets: the one on-disk format that every workload trains from, and the only writer of it.

    ROOT/NAME/meta.json                 written last: a folder without it is not a set
    ROOT/NAME/SPLIT/images.npy          uint8 [N,H,W,C]       ROOT/NAME/SPLIT/labels.npy   int64 [N]
    ROOT/NAME/SPLIT/tokens.npy          uint16 or uint32 [N]  ROOT/NAME/vocab.txt          one word a line

`python -m data_prep.prep NAME --source PATH --verify` re-hashes a set.
"""

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from relaunch.data_prep import VERSION
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.files import sha256, storage, sync, sync_tree

SCHEMA = 1
OFFICIAL = ("mnist", "cifar10", "tiny_imagenet", "wikitext2")  # can be downloaded
EMBEDDED = ("digits", "pydoc")  # come with installed packages, so they are packed on first use


def data_root(flag: str | None = None) -> Path:
    """The folder that holds the packed sets: the flag, else $RELAUNCH_DATA, else `data`."""
    return Path(flag or os.environ.get("RELAUNCH_DATA") or "data")


class Packed:
    """One packed set, opened: facts from meta.json, arrays as memory maps that nobody writes."""

    def __init__(self, path: Path, meta: dict):
        self.path, self.meta = path, meta
        self.name: str = meta["name"]
        self.kind: str = meta["kind"]  # "images" or "text"
        self.hash: str = meta["hash"]  # identifies the data, wherever the folder lies
        self.classes: list[str] = meta["classes"]
        self.mean: list[float] = meta["mean"]  # per channel of the train images, 0..1
        self.std: list[float] = meta["std"]
        self.splits: dict[str, int] = {split: facts["count"] for split, facts in meta["splits"].items()}

    def check_split(self, split: str) -> None:
        if split not in self.splits:
            raise Failure(
                USAGE, f"data set '{self.name}' has no split '{split}'", f"it has: {', '.join(self.splits)}"
            )

    @property
    def eval_split(self) -> str:
        """`val` if the set has it, else `test`."""
        if "val" not in self.splits and "test" not in self.splits:
            raise Failure(
                USAGE,
                f"data set '{self.name}' has neither val nor test",
                "prepare it again from a source that has one",
            )
        return "val" if "val" in self.splits else "test"

    def images(self, split: str) -> np.ndarray:
        """uint8 [N,H,W,C]."""
        return self._array(split, "images.npy")

    def labels(self, split: str) -> np.ndarray:
        """int64 [N], indices into `classes`."""
        return self._array(split, "labels.npy")

    def tokens(self, split: str) -> np.ndarray:
        """uint16 or uint32 [N], indices into `vocab()`."""
        return self._array(split, "tokens.npy")

    def vocab(self) -> list[str]:
        return (self.path / "vocab.txt").read_text("utf-8").split("\n")[:-1]

    def _array(self, split: str, filename: str) -> np.ndarray:
        self.check_split(split)
        if f"{split}/{filename}" not in self.meta["arrays"]:
            raise Failure(
                USAGE,
                f"data set '{self.name}' holds {self.kind}, it has no {filename}",
                "choose a data set of the workload's kind",
            )
        # "c" (copy on write): torch.from_numpy warns about read-only maps
        return np.load(self.path / split / filename, mmap_mode="c", allow_pickle=False)


def open_packed(name_or_path: str | Path, root: str | Path) -> Packed:
    """Opens NAME under `root`, or a path. Reads meta.json and compares file sizes; hashes nothing.

    The embedded sets are packed under `root` on first use. Failure(65) when the set is missing or incomplete.
    """
    text, root = str(name_or_path), Path(root)
    path = root / text
    if os.sep in text or text in (".", "..") or not path.is_dir() and Path(text, "meta.json").is_file():
        path = Path(text)
    if text in EMBEDDED and not path.exists():
        from relaunch.data_prep.prep import prepare

        return prepare(text, root=root, progress=False)
    name = path.name
    source = "" if name in OFFICIAL + EMBEDDED else " --source PATH"
    again = f"run: relaunch prep {shlex.quote(name)}{source} --out {shlex.quote(str(path.parent))}"
    if not path.is_dir():
        raise Failure(DATA, f"no packed data set '{name}' in {path.parent}", again)
    again = f"remove it, then {again}"
    try:
        meta = json.loads((path / "meta.json").read_text("utf-8"), parse_constant=_refuse_constant)
        if meta["schema"] != SCHEMA:
            raise Failure(DATA, f"{path} has schema {meta['schema']}, this version reads {SCHEMA}", again)
        packed = Packed(path, meta)
        sizes = {file: facts["bytes"] for file, facts in meta["arrays"].items()}
    except FileNotFoundError:
        raise Failure(
            DATA, f"{path} has no meta.json, so it is not a complete packed data set", again
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise Failure(DATA, f"{path}/meta.json cannot be read ({error})", again) from None
    for file, size in sizes.items():
        found = (path / file).stat().st_size if (path / file).is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found:,} bytes instead of {size:,}"
            raise Failure(DATA, f"{path / file} {state}", again)
    return packed


def verify(packed: Packed) -> None:
    """Hashes every array again. Failure(65) names the first file that differs from meta.json."""
    for file, facts in packed.meta["arrays"].items():
        if sha256(packed.path / file) != facts["sha256"]:
            raise Failure(
                DATA,
                f"{packed.path / file} is damaged: its SHA-256 is not the one in meta.json",
                f"remove {packed.path} and prepare it again",
            )
    if packed.hash != _data_hash(packed.meta):
        raise Failure(
            DATA,
            f"{packed.path}/meta.json is damaged: its hash does not fit its contents",
            f"remove {packed.path} and prepare it again",
        )


def _refuse_constant(text: str):
    raise ValueError(f"{text} is not JSON")


def _data_hash(meta: dict) -> str:
    facts = {key: meta[key] for key in ("schema", "kind", "classes", "arrays")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# ---- writing ----


@contextmanager
def exclusive(root: Path, name: str):
    """One process at a time prepares ROOT/NAME. The kernel lets go of the lock when its holder dies."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise Failure(
            USAGE, f"'{name}' is not a name for a data set", "use letters, digits, '.', '_' and '-'"
        )
    path = root / f".{name}.lock"
    with storage(path, "--out"):
        root.mkdir(parents=True, exist_ok=True)
        while True:
            lock = open(path, "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(
                    f"another process is preparing {root / name}; waiting for it", file=sys.stderr, flush=True
                )
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    break
            except FileNotFoundError:
                pass
            lock.close()  # its last holder removed it: only a lock on the file that is there now counts
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path):
    """Yields an empty folder beside `target` that becomes `target` atomically if the block succeeds.

    Call it inside `exclusive`: then a leftover partial folder can only be of a dead process, and is removed.
    """
    partial = target.with_name(f".{target.name}.partial")
    with storage(target, "--out"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    try:
        yield partial
        with storage(target, "--out"):
            sync_tree(partial)
            os.rename(partial, target)
            sync(target.parent)
    except BaseException:  # also Ctrl-C: leave nothing behind
        shutil.rmtree(partial, ignore_errors=True)
        raise


class Writer:
    """What a recipe packs into: arrays split by split, then `finish` writes meta.json."""

    def __init__(self, folder: Path, show: bool = False):
        self.folder, self.show = folder, show  # show: print progress
        self.classes: list[str] = []
        self.splits: dict[str, dict] = {}
        self.arrays: dict[str, dict] = {}

    def images(self, split: str, labels, shape: tuple[int, int, int], batches) -> None:
        """Writes a split's labels and images; `batches` yields (first row or row indices, uint8 [n,H,W,C]).

        Rows may come in any order, so that a stream is packed in bounded memory; each must come once.
        """
        labels = np.asarray(labels, dtype=np.int64)
        if not len(labels):
            raise Failure(DATA, f"the source has no images for split '{split}'", "check what --source holds")
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise Failure(
                DATA, f"split '{split}' has a label outside 0..{len(self.classes) - 1}", "check the source"
            )
        self._save(f"{split}/labels.npy", labels)
        path, stride, seen = self.folder / split / "images.npy", int(np.prod(shape)), 0
        with (
            storage(path, "--out"),
            open(path, "wb") as file,
        ):  # plain writes, not a map: on a full disk a map dies of SIGBUS
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for rows, pixels in batches:
                for row, image in zip(rows, pixels):
                    file.seek(start + int(row) * stride)
                    file.write(image.tobytes())
                seen += len(pixels)
        if seen != len(labels):
            raise Failure(
                DATA, f"split '{split}' has {len(labels):,} labels but {seen:,} images", "check the source"
            )
        self._record(f"{split}/images.npy", "uint8", [len(labels), *shape])
        self.splits[split] = {"count": len(labels), "shape": list(shape)}

    def text(self, vocab: list[str], splits: dict) -> None:
        """Writes vocab.txt and, per split, its token ids in the smallest unsigned type that holds them."""
        with storage(self.folder, "--out"):
            (self.folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocab), "utf-8")
        self._record("vocab.txt", "utf-8", [len(vocab)])
        dtype = np.uint16 if len(vocab) <= 1 << 16 else np.uint32
        for split, ids in splits.items():
            if not len(ids):
                raise Failure(
                    DATA, f"the source has no words for split '{split}'", "check what --source holds"
                )
            self._save(f"{split}/tokens.npy", np.asarray(ids).astype(dtype))
            self.splits[split] = {"count": len(ids), "shape": []}

    def finish(self, name: str, recipe: str, source: dict, options: dict) -> None:
        """Writes meta.json: facts of the data only, no times or places, so that equal sources give equal bytes."""
        from importlib.metadata import version

        kind = "text" if "vocab.txt" in self.arrays else "images"
        mean, std = _mean_std(self.folder / "train" / "images.npy") if kind == "images" else ([], [])
        meta = {
            "schema": SCHEMA,
            "name": name,
            "recipe": recipe,
            "kind": kind,
            "splits": self.splits,
            "classes": self.classes,
            "mean": mean,
            "std": std,
            "source": source,
            "options": options,
            "arrays": self.arrays,
            "made_by": f"relaunch {VERSION}, Pillow {version('pillow')}",
        }
        meta["hash"] = _data_hash(meta)
        with storage(self.folder, "--out"):
            text = json.dumps(meta, indent=1, allow_nan=False, ensure_ascii=False)
            (self.folder / "meta.json").write_text(text + "\n", "utf-8")

    def _save(self, file: str, array: np.ndarray) -> None:
        with storage(self.folder / file, "--out"):
            (self.folder / file).parent.mkdir(exist_ok=True)
            np.save(self.folder / file, array, allow_pickle=False)
        self._record(file, str(array.dtype), list(array.shape))

    def _record(self, file: str, dtype: str, shape: list[int]) -> None:
        path = self.folder / file
        self.arrays[file] = {
            "dtype": dtype,
            "shape": shape,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }


def _mean_std(path: Path) -> tuple[list[float], list[float]]:
    """Per channel over all pixels, 0..1, from exact integer counts: the same on every machine."""
    images = np.load(path, mmap_mode="r")
    counts = np.zeros((images.shape[-1], 256), dtype=np.int64)
    for first in range(0, len(images), 1024):
        for channel, row in enumerate(counts):
            row += np.bincount(images[first : first + 1024, ..., channel].ravel(), minlength=256)
    levels, total = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0))
    return mean.tolist(), np.where(
        std > 1e-6, std, 1.0
    ).tolist()  # 1 for a constant channel: nobody divides by zero
