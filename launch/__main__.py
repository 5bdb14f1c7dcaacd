"""The command line: `relaunch VERB …`, the same as `python -m launch VERB …`. Never imports torch.

relaunch train mnist --epochs 1
"""

from __future__ import annotations

import os
import sys

if not __package__:  # by path: Python put this folder first, see trainers/__main__.py
    here = os.path.dirname(os.path.abspath(__file__))
    others = [entry for entry in sys.path if os.path.realpath(entry) != os.path.realpath(here)]
    sys.path[:] = [os.path.dirname(here), *others]
    import launch  # noqa: F401, TID251  binds `relaunch` to this tree

    del sys.path[0]

from relaunch.data_prep import VERSION
from relaunch.data_prep.errors import USAGE, Failure, nameable
from relaunch.data_prep.names import offered
from relaunch.data_prep.talk import give, hold, settle, tell
from relaunch.trainers import PROGRAM

VERBS = {
    "prep": "make a packed data set from an archive, a folder or a Hugging Face data set",
    "train": "train a workload, or go on with a run",
    "evaluate": "score a run or a checkpoint and write its predictions",
    "diff": "say which predictions changed between two runs, checkpoints or prediction files",
    "export": "write a run's weights for other programs",
    "generate": "write text with a trained language model",
    "profile": "measure a training step: its operators, phases, FLOPs and traces, at some batch sizes",
    "summary": "list a model's layers, parameters and FLOPs",
    "compare": "train a workload under several settings, and say which is the fastest",
    "drill": "kill a training at random moments, resume it, and prove that nothing was lost",
    "lab": "carry out a whole lab and write its report",
    "report": "write a page about runs: curves, results, mistakes, model, settings",
    "doctor": "check this machine for a config and a workload, and rehearse a start",
    "runs": "list the runs here, or show one",
    "checkpoints": "list, verify and drop a run's checkpoints, or go back to one",
    "bundle": "write a run into one file, each byte of it checked, to move it elsewhere",
    "unbundle": "make a run of such a file",
    "tensorboard": "show runs' curves, graph, images and texts in TensorBoard",
    "stop": "ask a run to save and leave",
    "submit": "write a job for SLURM, Kubernetes or a web form, and hand it to SLURM",
    "status": "say where a SLURM job and its runs stand, and what to do next",
    "logs": "show the log of a SLURM job",
    "cancel": "cancel a SLURM job for good",
}


def usage() -> str:
    lines = ["usage: relaunch VERB …", ""] + [f"  {verb:11} {about}" for verb, about in VERBS.items()]
    return "\n".join(
        lines
        + ["", "relaunch VERB --help says more. First steps: relaunch train mnist --data digits --epochs 1"]
        + ["relaunch --version says which version this is."]
    )


@nameable()
def run(argv: list[str]) -> int:
    """Carry out one command line; returns the exit code, or raises Failure."""
    if argv[:1] == ["help"] and argv[1:]:
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        give(usage())
        return 0 if argv else USAGE
    if argv == ["--version"]:
        give(f"relaunch {VERSION}")
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        raise Failure(USAGE, f"unknown verb {verb!r}", offered(verb, VERBS, limit=len(VERBS)))
    if verb == "prep":
        from relaunch.data_prep import prep

        return prep.main(rest)
    if verb in ("train", "evaluate", "profile"):
        from relaunch.launch import start

        return start.main(verb, rest)
    if verb == "doctor":
        from relaunch.launch import doctor

        return doctor.main(rest)
    if verb == "compare":
        from relaunch.launch import compare

        return compare.main(rest)
    if verb == "drill":
        from relaunch.launch import drill

        return drill.main(rest)
    if verb == "lab":
        from relaunch.launch import lab

        return lab.main(rest)
    if verb in ("runs", "stop"):
        from relaunch.launch import runs

        return (runs.main_runs if verb == "runs" else runs.main_stop)(rest)
    if verb == "checkpoints":
        from relaunch.launch import checkpoints

        return checkpoints.main(rest)
    if verb in ("bundle", "unbundle"):
        from relaunch.launch import bundle

        return (bundle.main_bundle if verb == "bundle" else bundle.main_unbundle)(rest)
    if verb == "tensorboard":
        from relaunch.launch import tensorboard

        return tensorboard.main(rest)
    if verb == "submit":
        from relaunch.launch import submit

        return submit.main(rest)
    if verb in ("status", "logs", "cancel"):
        from relaunch.launch.submit import queue

        return queue.main(verb, rest)
    # the others need torch: hand the process over
    os.execv(sys.executable, [sys.executable, PROGRAM, verb, *rest])


def main() -> int:
    hold()
    try:
        return run(sys.argv[1:])
    except Failure as failure:
        tell(failure.line(), sys.stderr)
        return failure.code
    except KeyboardInterrupt:  # while nothing runs yet that would save
        tell("relaunch: 130 interrupted", sys.stderr)
        return 130
    finally:
        settle()


if __name__ == "__main__":
    sys.exit(main())
