"""What a workload of one's own is, as one line of JSON: the launcher asks, which must not import it.

python -m trainers.describe ./flowers.py --epochs 3
python -m trainers.describe ./flowers.py --steps CONFIG SIZES     (as JSON) the steps of an epoch alone
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields
from typing import get_args, get_type_hints

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import data_root, open_packed
from relaunch.data_prep.sizes import Sizes
from relaunch.trainers import workloads
from relaunch.trainers.begin import begin
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.flags import scalar
from relaunch.trainers.group import process
from relaunch.trainers.job import Job
from relaunch.trainers.workloads import Workload, own

FACTS = ("help", "short", "alias", "least", "before", "metavar")  # of a field, as `setting` keeps them


def run(argv: list[str]) -> tuple[int, str | None]:
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever the file prints, the answer is alone
    word, words = argv[0], argv[1:]
    answer: dict = {}
    try:
        work = workloads.load(word)
        if words[:1] == ["--steps"]:
            config, sizes = RunConfig.from_json(json.loads(words[1])), Sizes.from_json(json.loads(words[2]))
            answer["steps"] = steps(work, config, sizes)
        else:
            answer["workload"] = describe(work)
            if not {"-h", "--help"} & set(words):
                answer["steps"] = first_steps(work, parse([word, *words]))
    except Failure as failure:
        answer["failure"] = said(failure)
    with os.fdopen(answers, "w") as out:
        out.write(json.dumps(answer) + "\n")
    return 0, None


def said(failure: Failure) -> dict:
    return {"code": failure.code, "what": failure.what, "fix": failure.fix}


def describe(work: Workload) -> dict:
    """All of a workload that flags, help and plan are made from."""
    hints = get_type_hints(work.options)
    options = []
    for f in fields(work.options):
        kind, choices = scalar(hints[f.name])
        options.append(
            {
                "name": f.name,
                "type": kind.__name__,
                "choices": choices,
                "optional": type(None) in get_args(hints[f.name]),
                "default": f.default,
                **{key: f.metadata[key] for key in FACTS if key in f.metadata},
            }
        )
    assert work.code
    return {
        **{key: getattr(work, key) for key in ("name", "about", "data", "archs", "defaults", "presets")},
        "options": options,
        "kind": work.task.kind,
        "rows": work.task.facts.rows,
        "scores": dict([work.task.facts.best]),
        "libraries": getattr(work.task, "libraries", ()),
        "code": {"folder": str(work.code.folder), **work.code.record()},
    }


def first_steps(work: Workload, job: Job) -> dict | None:
    """The steps of the training that a command line asks for; None before its data is packed."""
    config = job.config
    try:
        config = begin(job).config
    except Failure:  # the launcher finds it, too, and says it
        pass
    try:
        sizes = open_packed(config.data, data_root(job.launch.data_root)).sizes
    except Failure:
        return None
    return steps(work, config, sizes)


def steps(work: Workload, config: RunConfig, sizes: Sizes) -> dict:
    """Of an epoch, or the Failure that the task answers with; and what was asked."""
    asked = {"config": config.to_json(), "sizes": sizes.to_json()}
    try:
        with own.blamed():
            count = work.task.steps_per_epoch(config, sizes)
            return asked | {"steps": count, "samples": work.task.samples_done(config, sizes, count)}
    except Failure as failure:
        return asked | {"failure": said(failure)}


if __name__ == "__main__":
    sys.exit(process.main(run, saves=False))
