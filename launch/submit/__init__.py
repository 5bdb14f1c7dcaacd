"""`relaunch submit`: one description of a job, written for SLURM, Kubernetes, or a platform with a web form.

relaunch submit slurm cifar10 --config 8gpu --epochs 100 --nodes 2 --time 4:00:00 --partition gpu --submit
relaunch status | logs | cancel JOB
"""

from __future__ import annotations

import sys

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import offered
from relaunch.data_prep.talk import give, tell, watched

KINDS = {
    "slurm": "an sbatch script",
    "kubernetes": "a TrainJob (Kubeflow Trainer v2), or with --pytorchjob the older PyTorchJob",
    "sheet": "what to paste into a platform's web form (BitaHub and its like)",
}


def main(argv: list[str]) -> int:
    """`relaunch submit KIND WORKLOAD …`. Prints, unless `--submit`."""
    if not argv or argv[0] in ("-h", "--help"):
        give(
            "\n".join(
                [
                    "usage: relaunch submit KIND WORKLOAD [flags of relaunch train] [flags of the job]",
                    "",
                    *(f"  {kind:12} {about}" for kind, about in KINDS.items()),
                    "",
                    "relaunch submit KIND --help lists the flags of the job.",
                ]
            )
        )
        return 0 if argv else USAGE
    kind, rest = argv[0], argv[1:]
    if kind not in KINDS:
        raise Failure(USAGE, f"unknown kind of job {kind!r}", offered(kind, KINDS))
    from relaunch.launch.submit import describe, kubernetes, queue, sheet, slurm

    try:
        job = describe.parse(kind, rest)
    except SystemExit as end:  # help was asked for
        return int(end.code or 0)
    if job.given.submit:
        return queue.submit(job)
    give({"slurm": slurm.script, "kubernetes": kubernetes.manifest, "sheet": sheet.block}[kind](job), end="")
    if kind == "kubernetes":
        tell(kubernetes.watched(job), sys.stderr)
    if watched():
        hand = "; to hand it in: --submit" if kind == "slurm" else ""
        tell(f"relaunch: only shown; to keep it: > FILE{hand}", sys.stderr)
    return 0
