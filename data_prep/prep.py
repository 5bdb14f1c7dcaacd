"""`relaunch prep`: official archive, image folder, text files or Hugging Face dataset -> packed arrays.

relaunch prep mnist                                              (downloads it)
relaunch prep cifar10 --source cifar-10-python.tar.gz --out data
"""

from __future__ import annotations

import argparse
import sys
import time

from relaunch.data_prep.errors import PREEMPTED, USAGE, Failure
from relaunch.data_prep.names import nearest
from relaunch.data_prep.packed import OFFICIAL, data_root, describe, open_packed, verify
from relaunch.data_prep.recipes import RECIPES, prepare
from relaunch.data_prep.report import packed_lines, said_lines
from relaunch.data_prep.talk import give, hold, settle, tell

ABOUT = """Prepare a data set: its official archive, or your own images or texts, become packed arrays in
ROOT/NAME. A set that is there is never replaced."""
EXAMPLES = """examples:
  relaunch prep mnist                                          download the official files and pack them
  relaunch prep cifar10 --source cifar-10-python.tar.gz        the archive, or its extracted folder, is here
  relaunch prep tiny_imagenet --source tiny-imagenet-200.zip --as-folders
  relaunch prep flowers --source my_images --size 64           my_images/{train,val}/<class>/*.jpg
  relaunch prep leaves --source my_images --val-fraction 0.2   my_images/<class>/*.jpg
  relaunch prep book --source my_texts                         my_texts/{train,valid,test}.txt
  relaunch prep diabetes --source diabetes.npz                 x_train, y_train, x_val, y_val
  relaunch prep mine --source hub:user/dataset --columns image=photo,label=species
  relaunch prep mnist --verify                                 hash a prepared set again
then train on it by name:  relaunch train cifar10 --data NAME"""


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message, file=None):
        give(message, end="")

    def error(self, message):
        raise Failure(USAGE, message, f"see {self.prog} --help")

    def parse_args(self, args=None, namespace=None):
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            near = nearest(rest[0].split("=")[0], self._option_string_actions)
            fix = f"did you mean {near}?" if near else f"see {self.prog} --help"
            raise Failure(USAGE, f"unknown argument {rest[0]!r}", fix)
        return found


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="relaunch prep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=ABOUT,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="what the set will be called; a recipe's name also chooses that recipe")
    add(
        "--source",
        metavar="PATH|hub:ID[:CONFIG]",
        help="archive (zip, tar), folder, text, parquet, csv, .npz, or Hub id; default: download, for "
        + ", ".join(OFFICIAL),
    )
    add(
        "--as",
        dest="recipe",
        metavar="RECIPE",
        help=f"how to read it: {', '.join(RECIPES)}; default: NAME if it is one, else what it looks like",
    )
    add(
        "--out",
        "--data-root",
        metavar="ROOT",
        help="folder of the packed sets (default: $RELAUNCH_DATA, else data)",
    )
    add(
        "--size",
        type=int,
        metavar="N",
        help="resize the short side to N pixels and crop the centre (image folders, Hub); "
        "needed when sizes differ",
    )
    add(
        "--columns",
        metavar="ROLE=COLUMN,…",
        help="Hub and tables: image=…,label=… (classes), image=…,target=… (numbers) or text=…",
    )
    share = parser.add_mutually_exclusive_group()
    share.add_argument(
        "--val-fraction",
        type=float,
        metavar="F",
        help="take this share of train as val: of each class, the same images on every machine (of a text, "
        "its end); a val of the source's own becomes test",
    )
    share.add_argument(
        "--holdout", type=int, metavar="N", help="the same, as a number of images (words, for texts)"
    )
    add(
        "--as-folders",
        action="store_true",
        help="tiny_imagenet: also write ROOT/NAME-folders/{train,val}/<wnid>/*.JPEG for ImageFolder",
    )
    add("--verify", action="store_true", help="hash the prepared set ROOT/NAME again and compare")
    return parser


def _columns(text: str | None) -> dict[str, str]:
    pairs = dict(pair.partition("=")[::2] for pair in text.split(",")) if text else {}
    if not all(pairs.values()) or set(pairs) - {"image", "label", "target", "text"}:
        raise Failure(
            USAGE,
            f"--columns {text} is not understood",
            "write --columns image=COLUMN,label=COLUMN (target=COLUMN for numbers) or --columns text=COLUMN",
        )
    return pairs


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 64, 65, 73, and 75 when stopped by Ctrl-C."""
    hold()
    try:
        args = _parser().parse_args(argv)
        if args.size is not None and args.size < 1:
            raise Failure(USAGE, f"--size {args.size} is not a number of pixels", "use for example --size 64")
        if args.val_fraction is not None and not 0 < args.val_fraction < 1:
            raise Failure(
                USAGE,
                f"--val-fraction {args.val_fraction} is not between 0 and 1",
                "use for example --val-fraction 0.1",
            )
        if args.holdout is not None and args.holdout < 1:
            raise Failure(
                USAGE, f"--holdout {args.holdout} is not a number of images", "use for example --holdout 5000"
            )
        root, started = data_root(args.out), time.perf_counter()
        if args.verify:
            data = open_packed(args.name, root)
            verify(data)
            tell(f"{describe(data)}: every array has the SHA-256 of its meta.json")
            return 0
        existed = (root / args.name).exists()
        data = prepare(
            args.name,
            args.source,
            args.recipe,
            root,
            args.size,
            _columns(args.columns),
            args.as_folders,
            val_fraction=args.val_fraction,
            holdout=args.holdout,
        )
        note = "was already there" if existed else f"{time.perf_counter() - started:.1f} s"
        tell(f"{describe(data)} ({note})")
        for line in packed_lines(data):
            tell(line)
        for line in said_lines(data, existed):
            tell(line, sys.stderr)
        if data.meta["source"].get("as_published") is False and not existed:
            file = data.meta["source"]["file"]
            tell(f"note: {file} is not byte for byte the published one; its contents are well formed")
        return 0
    except Failure as failure:
        tell(failure.line(), sys.stderr)
        return failure.code
    except KeyboardInterrupt:
        stopped = Failure(PREEMPTED, "stopped; nothing was left half-written", "run the same command again")
        tell(stopped.line(), sys.stderr)
        return stopped.code
    finally:
        settle()


if __name__ == "__main__":
    sys.exit(main())
