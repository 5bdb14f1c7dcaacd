"""The weights of a checkpoint alone, for other programs: NAME.safetensors and NAME.pth, a plain state dict.

    python -m trainers.export runs/first@best

The names are torchvision's (ResNet) and pytorch/examples' (mnist, word_language_model), so that
`Net().load_state_dict(torch.load("NAME.pth"))` works there; with `--stem small`, conv1 differs.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.workloads import own

if TYPE_CHECKING:
    from torch import Tensor


def tied(config: RunConfig, sizes: Sizes) -> dict[str, str]:
    """Of each tensor with two names in the model: second -> first, the only one in a checkpoint."""
    import torch

    # without numbers, unless it is somebody's own, who may ask for one
    with own.blamed(), torch.device("cpu" if config.code else "meta"):
        model = workloads.load(config.workload).model(config, sizes)
    first: dict[Tensor, str] = {}
    names = {name: first.setdefault(p, name) for name, p in model.named_parameters(remove_duplicate=False)}
    return {name: origin for name, origin in names.items() if name != origin}


def parser() -> Parser:
    p = Parser(
        prog="relaunch export",
        description=(
            "Write the weights of a checkpoint alone, as NAME.safetensors and NAME.pth.\n\n"
            "  relaunch export first@best\n"
            "  relaunch export model_best.pth.tar --out weights"
        ),
    )
    p.add_argument(
        "source",
        metavar="RUN|CHECKPOINT|FILE",
        help="RUN, RUN@best, RUN@STEP, a checkpoint's folder or a weights file",
    )
    p.add_argument("--out", help="folder for the two files (default: RUN/export)")
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
        stem = f"{source.config.workload}-{source.config.arch}-{source.step:09d}"
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
    process.tell(f"{source.path}: {size(sum(f.stat().st_size for f in before))} with all that it holds")
    for suffix, content in contents.items():
        path = out / f"{stem}.{suffix}"
        if path.resolve() == source.path.resolve():
            raise Failure(USAGE, f"{path} would overwrite what it is made from", "choose another --out")
        with files.storage(path, "--out FOLDER"):
            out.mkdir(parents=True, exist_ok=True)
            files.write_atomic(path, content)
        process.tell(f"{path}: {size(len(content))}, {len(weights)} tensors")
    return 0, None


def size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
