"""A whole lab, from the archive to the report: `relaunch lab NAME`.

relaunch lab mnist --quick
relaunch lab tiny_imagenet --lang zh
"""

from __future__ import annotations

import importlib
from pathlib import Path

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.names import listed, printable
from relaunch.data_prep.talk import tell
from relaunch.launch import command, facts
from relaunch.launch.lab import engine, report
from relaunch.launch.lab.steps import Lab
from relaunch.launch.lab.words import LANGUAGES
from relaunch.trainers.flags import Parser, without

LABS = {
    "mnist": "a small CNN: curves at three batch sizes, the busiest operators, with and without a GPU",
    "cifar10": "one change at a time: device, batch, precision, workers, BatchNorm, learning rate",
    "tiny_imagenet": "ResNet-18 on one CPU, one GPU, eight GPUs; two checkpoints judged image by image",
    "wikitext2": "a Transformer language model: perplexity, its writing, and what it attends to",
}


def parser() -> Parser:
    p = Parser(
        prog="relaunch lab",
        description=(
            "Carry out a whole lab and write its report, labs/NAME/report.html and report.md.\n\n"
            + "\n".join(f"  {name:14} {about}" for name, about in LABS.items())
            + "\n\n  relaunch lab mnist --quick            minutes, on digits that come along: no download"
            "\n  relaunch lab cifar10 --dry-run        what it would run, and what is done"
            "\n  relaunch lab tiny_imagenet            the lab as it was set: hours without a GPU"
            "\n  relaunch lab mnist --quick --lang zh  the same report in Chinese; nothing runs again"
            "\n\nWhat is done is not done again: stop it at any time, and type the same command to go on. A"
            "\nrun of another machine counts as well, once its folder lies in labs/NAME/runs/."
        ),
    )
    p.add_argument("name", metavar="NAME", choices=LABS, help=", ".join(LABS))
    p.add_argument("--quick", action="store_true", help="minutes on two cores: few samples, few repeats")
    p.add_argument("--lang", choices=LANGUAGES, default="en", help="language of the report [en]")
    p.add_argument("--out", metavar="FOLDER", help="the lab's folder [labs/NAME, or labs/NAME-quick]")
    p.add_argument("--data", metavar="NAME", help="another packed set than the lab's own")
    p.add_argument("--source", metavar="PATH", help="the data's archive or folder, in place of a download")
    p.add_argument("--data-root", help="where packed data is kept (default: $RELAUNCH_DATA, else data)")
    p.add_argument("--threads", type=int, metavar="N", help="CPU threads of each training")
    p.add_argument("--dry-run", action="store_true", help="list the steps and how they stand; run nothing")
    return p


def main(argv: list[str]) -> int:
    """Returns 0, or the code of the first step that failed: the report is written all the same."""
    args = parser().parse_args(argv)
    work = importlib.import_module(f"relaunch.launch.lab.{args.name}")
    lab = Lab(
        name=args.name,
        folder=Path(args.out or f"labs/{args.name}{'-quick' * args.quick}"),
        data=args.data or (work.QUICK_DATA if args.quick else args.name),
        quick=args.quick,
        data_root=args.data_root,
        threads=args.threads,
        source=args.source,
        typed=tuple(word for word in without(argv, "--lang") if word not in ("--dry-run", "--dry_run")),
    )
    steps = {step.name: step for step in work.steps(lab)}
    for step in steps.values():  # a mistake is found before the first of them runs
        if step.words[0] == "train":
            command.job(command.split(list(step.words[1:]))[1])
    here = facts.gather(lab.path("runs"))
    if args.dry_run:
        report.say_states(lab, steps, engine.states(lab, steps, here))
        return 0
    with engine.owned(lab):
        ends = engine.run(lab, steps, here)
        if not any(end.state.kind == "done" for end in ends.values()):  # without data there is no page
            name, end = next(iter(ends.items()))
            raise Failure(end.code or 1, f"{name}: {end.said}", f"then {engine.again(lab)} goes on")
        page = report.write(lab, steps, ends, here, work, args.lang)
    tell(f"written: {printable(str(page))}, and {page.with_suffix('.md').name} beside it")
    failed = {name: end for name, end in ends.items() if end.state.kind in ("failed", "other")}
    if failed:
        code = next((end.code for end in failed.values() if end.code), 1)
        what = f"{len(failed)} of {len(steps)} steps are not done: {listed(failed)}"
        raise Failure(code, what, f"the report says why; {engine.again(lab)} tries them again")
    return 0
