"""One page about runs: curves, results, predictions, model, settings; two runs are compared sample by sample.

python -m trainers.report first second -o report.html
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.data_prep.names import quoted
from relaunch.data_prep.talk import tell
from relaunch.trainers import rundir
from relaunch.trainers.flags import Parser
from relaunch.trainers.group import process
from relaunch.trainers.rundir import RunDir

ENDINGS = (".html", ".md")


def parser() -> Parser:
    p = Parser(
        prog="relaunch report",
        description=(
            "Write one page about runs, which opens from a file and needs nothing else: curves, results,\n"
            "where the time went, predictions and mistakes, model, machine and settings. Two runs are also\n"
            "compared sample by sample. Nothing is trained or evaluated: what is missing is said.\n\n"
            "  relaunch report first                        report.html, about runs/first\n"
            "  relaunch report first second -o both.html\n"
            "  relaunch report runs/lr-* -o report.md       Markdown, its pictures in report_files/"
        ),
    )
    p.add_argument("runs", nargs="+", metavar="RUN", help="a name under runs/, or a path")
    p.add_argument("-o", "--out", metavar="FILE", default="report.html", help="a .html or .md [report.html]")
    p.add_argument("--data-root", help="where packed data is kept (default: $RELAUNCH_DATA, else data)")
    return p


def run(argv: list[str]) -> tuple[int, str | None]:
    args = parser().parse_args(argv)
    out = Path(args.out)
    if out.suffix not in ENDINGS:
        raise Failure(USAGE, f"-o {quoted(args.out)} is no page", "end it with .html or .md")
    runs = [found(name) for name in args.runs]
    from relaunch.trainers.pages import page, report

    title, blocks = report.title_of(runs), report.run_blocks(runs, args.data_root)
    with files.storage(out, "-o FILE"):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".md":
            text = page.markdown(title, blocks, out.with_name(f"{out.stem}_files"))
        else:
            text = page.html(title, blocks)
        files.write_atomic(out, text)
    tell(f"written: {out} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0, None


def found(name: str) -> RunDir:
    """A run by its name or path. Its folder is enough, whatever has become of the files in it."""
    path, selector = rundir.find(name)
    run = RunDir(path)
    if selector:
        fix = f"relaunch report {quoted(name.rpartition('@')[0])}; relaunch diff compares two checkpoints"
        raise Failure(USAGE, f"{quoted(name)} is a checkpoint, and a report is about whole runs", fix)
    if not any(map(os.path.lexists, (run.config, run.status, run.plan, run.metrics, run.checkpoints))):
        raise Failure(DATA, f"{path} is not a run", "relaunch runs lists those that are")
    return run


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
