"""Every layer of a workload's model: its output's shape, parameters and cost.

python -m trainers.summary tiny_imagenet --stem small
python -m trainers.summary tiny_imagenet --json      the same as one line of JSON
python -m trainers.summary first                     of a run's model
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from typing import TYPE_CHECKING

from relaunch.data_prep import files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import table as aligned
from relaunch.data_prep.packed import data_root, open_packed
from relaunch.data_prep.sizes import PUBLISHED, published
from relaunch.data_prep.talk import give, tell
from relaunch.trainers import rundir, workloads
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.workloads import own

if TYPE_CHECKING:
    from torch import Tensor, nn

NOTE = (
    "FLOP = 2 x MAC, of matrix products, convolutions and attention (all T x T of it); "
    "other operations are not counted."
)


def flop_counter():
    """A context that counts the FLOPs of what runs in it (see NOTE)."""
    from torch.utils.flop_counter import FlopCounterMode

    from relaunch.models import convolution, product

    ours = product.flop_formulas() | convolution.flop_formulas()
    return FlopCounterMode(display=False, custom_mapping=ours)


def layers(model: nn.Module, example: Tensor) -> dict:
    """What a model computes of `example`: {"layers": [one entry per call], "parameters": N, "flops": N,
    "nodes", "edges"}, the last two as dataflow.Flow finds them.

    A layer is a module that calls no other. Entries are in the order of the calls, each with `name`, `type`,
    `output` (its shape, a list), `parameters` (counted where they are first used) and `flops` (see NOTE).
    Works on a copy in eval mode, on the CPU.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import _FlopCounterMode as mode

    from relaunch.trainers import eager
    from relaunch.trainers.dataflow import Flow

    flow = Flow(example)
    model, counter = copy.deepcopy(model).cpu().eval(), flop_counter()
    rows, open_calls, counted = [], [], set()

    def enter(module, args):
        for call in open_calls:
            call["leaf"] = False
        open_calls.append({"leaf": True, "flops": counter.get_total_flops(), "from": flow.sources(args)})

    def leave(name, module, args, out):
        call = open_calls.pop()
        if call["leaf"]:
            flow.reach(name, type(module).__name__, call["from"], out)
            own = [p for p in module.parameters() if p not in counted]
            counted.update(own)
            rows.append(
                {
                    "name": name,
                    "type": type(module).__name__,
                    "output": list((out[0] if isinstance(out, tuple) else out).shape),
                    "parameters": sum(p.numel() for p in own),
                    "flops": counter.get_total_flops() - call["flops"],
                }
            )

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(lambda m, args, out, name=name: leave(name, m, args, out))
    # with gradients, and attention as plain products: some versions of torch do not count its fused forms
    with counter, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), eager.spared(mode.__torch_dispatch__):
        flow.end(model(flow.example))
    parameters = sum(p.numel() for p in model.parameters())
    counts = {"parameters": parameters, "flops": counter.get_total_flops()}
    return {"layers": rows, **counts, "nodes": flow.nodes, "edges": flow.edges}


def table(found: dict, shape: tuple[int, ...]) -> str:
    """What `layers` found of an input of that shape, as text: a line for each call, and the totals."""
    rows = [
        ("layer", "type", "output", "parameters", "FLOPs"),
        *(
            (x["name"], x["type"], "x".join(map(str, x["output"])), f"{x['parameters']:,}", f"{x['flops']:,}")
            for x in found["layers"]
        ),
        ("total", "", "", f"{found['parameters']:,}", f"{found['flops']:,}"),
    ]
    end = f"For one input of {'x'.join(map(str, shape))}: {found['flops'] / 2e9:.3f} GMAC. {NOTE}"
    return "\n".join([*aligned(rows, left=3), end])


def run(argv: list[str]) -> tuple[int, str | None]:
    ours = Parser(prog="relaunch summary", add_help=False)
    ours.add_argument("--json", action="store_true")
    ours.add_argument(
        "--settings"
    )  # the launcher's: a whole config as JSON, in place of a workload and flags
    ours.add_argument("--data-root")
    args, rest = ours.parse_known_args(argv)
    if {"-h", "--help"} & set(rest):
        tell(
            "relaunch summary RUN lists those of a run's model.\n"
            "relaunch summary WORKLOAD --json prints the layers as one line of JSON.\n"
        )
    try:
        config = settings(args.settings, rest)
        with contextlib.redirect_stdout(sys.stderr):  # what a model of one's own prints
            text = summarise(config, args.data_root, args.json)
    except Failure as failure:
        if not args.json:
            raise
        said = {"code": failure.code, "what": failure.what, "fix": failure.fix}
        give(json.dumps({"failure": said}))
        return failure.code, None
    give(text)
    return 0, None


def settings(given: str | None, rest: list[str]) -> RunConfig:
    """The config that a JSON text holds, or else the one that the words `rest` ask for. Failure 64 or 65."""
    if given is None and len(rest) == 1 and (run := run_of(rest[0])):
        values = files.read_json(run.config)
        if values.get("code"):
            told = f"the files of its workload, in {run.code}, are executed"
            tell(f"relaunch: {run.path}: {told}", sys.stderr)
        return own.config_of(values, run.path, True, str(run.config))
    if given is None:
        return parse(rest, "relaunch summary").config
    named = workloads.load(rest[0]).name if rest else None
    try:
        config = RunConfig.from_json(json.loads(given))
    except ValueError as error:
        raise Failure(USAGE, f"--settings is not JSON ({error})", "give a run's config.json") from error
    if rest and (rest[1:] or named != config.workload):
        raise Failure(USAGE, f"{rest[0]!r} beside --settings", "they hold every setting: leave it out")
    return config


def run_of(word: str) -> RunDir | None:
    """The run that a word names, unless a workload has that name."""
    run = RunDir(rundir.locate(word))
    return run if run.begun() and word not in {*workloads.names(), *own.installed()} else None


def summarise(config: RunConfig, root: str | None, as_json: bool) -> str:
    """The layers of the model that a config asks for, as a table or as one line of JSON."""
    try:
        sizes, shown = open_packed(config.data, data_root(root)).sizes, ""
    except Failure:
        if config.data not in PUBLISHED:
            raise
        sizes, shown = published(config.data), " (not packed here: its published sizes)"
    from relaunch.trainers.build import make_model
    from relaunch.trainers.finetune import told

    model = make_model(config, sizes)
    one = workloads.load(config.workload).task.example(config, sizes)
    found = layers(model, one)
    if as_json:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return json.dumps(found | {"trained": trained})
    head = f"{config.workload} {config.arch} on {sizes.data}{shown}"
    return "\n".join([head, "", table(found, one.shape), *told(config, model)])


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
