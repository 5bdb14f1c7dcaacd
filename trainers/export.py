"""The weights of a checkpoint alone, for other programs: NAME.safetensors and NAME.pth, a plain state dict.

NAME.json says what these do not: how images were normalised, their size, the classes' names, and the SHA-256
of both files, by which an evaluation of either knows that it is theirs.

    python -m trainers.export runs/first@best

The names are torchvision's (ResNet, torchvision:NAME), timm's (timm:NAME) and pytorch/examples' (mnist,
word_language_model), so that `Net().load_state_dict(torch.load("NAME.pth"))` works there; with
`--stem small`, conv1 differs.
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import VERSION, files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.sizes import Sizes
from relaunch.data_prep.talk import tell
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.workloads import own

if TYPE_CHECKING:
    from torch import Tensor


def tied(config: RunConfig, sizes: Sizes) -> dict[str, str]:
    """Of each tensor with two names in the model: second -> first, the only one in a checkpoint."""
    from relaunch.trainers.build import new_model

    with own.blamed():
        model = new_model(config, sizes)
    first: dict[Tensor, str] = {}
    names = {name: first.setdefault(p, name) for name, p in model.named_parameters(remove_duplicate=False)}
    return {name: origin for name, origin in names.items() if name != origin}


def parser() -> Parser:
    p = Parser(
        prog="relaunch export",
        description=(
            "Write the weights of a checkpoint alone, as NAME.safetensors and NAME.pth, and beside them\n"
            "NAME.json: the images' mean, deviation and size, and the classes' names.\n\n"
            "  relaunch export first@best\n"
            "  relaunch export model_best.pth.tar --out weights"
        ),
    )
    p.add_argument(
        "source",
        metavar="RUN|CHECKPOINT|FILE",
        help="RUN, RUN@best, RUN@STEP, a checkpoint's folder or a weights file",
    )
    p.add_argument("--out", help="folder for the files (default: RUN/export)")
    return p


def run(argv: list[str]) -> tuple[int, str | None]:
    args = parser().parse_args(argv)
    import torch
    from safetensors.torch import save

    from relaunch.trainers.weights.source import open_source

    source = open_source(args.source, execute=True)
    if not args.out and not source.run:
        raise Failure(
            USAGE, f"{source.path} lies in no run, so there is no place for its weights", "add --out FOLDER"
        )
    out = Path(args.out) if args.out else source.run.path / "export"
    weights = {name: tensor.contiguous() for name, tensor in source.weights().items()}
    if source.config:
        weights |= {name: weights[origin] for name, origin in tied(source.config, source.sizes).items()}
        arch = source.config.arch.replace(":", "-")  # no file system has to take it
        stem = f"{source.config.workload}-{arch}-{source.step:09d}"
    else:
        stem = source.path.name.split(".")[0]
    plain = io.BytesIO()
    torch.save(weights, plain)
    contents = {
        "safetensors": save(
            {name: tensor.clone() for name, tensor in weights.items()}
        ),  # it takes no tensor twice
        "pth": plain.getvalue(),
    }
    before = [source.path] if source.path.is_file() else source.path.iterdir()
    tell(f"{source.path}: {size(sum(f.stat().st_size for f in before))} with all that it holds")
    tensors = f", {len(weights)} tensors"
    if source.about:
        hashes = {f"{stem}.{kind}": hashlib.sha256(content).hexdigest() for kind, content in contents.items()}
        about = {"relaunch": VERSION, **source.about, "files": hashes}
        contents["json"] = files.dump_json(about).encode()
    for suffix, content in contents.items():
        path = out / f"{stem}.{suffix}"
        if path.resolve() == source.path.resolve():
            raise Failure(USAGE, f"{path} would overwrite what it is made from", "choose another --out")
        with files.storage(path, "--out FOLDER"):
            out.mkdir(parents=True, exist_ok=True)
            files.write_atomic(path, content)
        what = f"{size(len(content))}{tensors}" if suffix != "json" else "how they were trained, for evaluate"
        tell(f"{path}: {what}")
    return 0, None


def size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
