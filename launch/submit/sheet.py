"""What to paste into a platform's web form, for platforms that know images, node types and a start command.

    relaunch submit sheet cifar10 --config 8gpu --user anna --image torch:2.10 --node-type a100

The paths are BitaHub's: data read-only in /data/<user>/<dataset>, code in /code, results in /output, which
later tasks see read-only as /myproject_outputs/<task>.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.launch.submit.describe import Job
from relaunch.launch.submit.surroundings import checked, environment
from relaunch.trainers.flags import without


def block(job: Job) -> str:
    """The form's fields, its start command, and the command of a later task that goes on from its output."""
    if job.nodes > 1:
        raise Failure(USAGE, "tasks of a web form do not know of each other", "leave --nodes out")
    given, run = job.given, Path(job.run).name
    dataset = given.dataset or job.data
    for name, text in (
        ("--user", given.user),
        ("--dataset", dataset),
        ("--from-task", given.from_task or "task"),
    ):
        if "/" in checked(name, text):
            raise Failure(USAGE, f"{name} {text!r} is not a name", "it is one folder of the platform's")
    source = f"/data/{given.user}/{dataset}"
    job, code = job.with_code_in("own"), job.code
    theirs = [f"               and {', '.join(code.contents)} of {code.folder} as /code/own"] if code else []
    words = [
        "python3",
        "launch/__main__.py",
        "train",
        *without(job.words, "--data", "--data-root"),
        "--data",
        source,
        "--run",
        f"/output/{run}",
        "--resume",
        "auto",
    ]
    image = "one with Python 3.11, PyTorch 2.10 and what pyproject.toml lists"
    node = "any with GPUs" if job.gpus else "any"
    values, hidden = environment(job.given.env, capture=False)
    lines = [
        f"Task name:      {job.name}",
        f"Image:          {checked('--image', given.image) or image}",
        f"Node type:      {checked('--node-type', given.node_type) or node}",
        f"GPUs:           {job.gpus}",
        *([f"Time limit:     {given.time / 3600:.1f} h"] if given.time else []),
        "Code:           this repository, which the platform shows as /code",
        *theirs,
        f"Data:           {source} (a packed set: few files, read-only)",
        *(f"Variable:       {k}={checked(f'--env {k}', v)}" for k, v in values.items()),
        *(f"Variable:       {k}=*** (type it into the form yourself)" for k in hidden),
        "",
        "Start command:",
        start(words, given.from_task, run),
        "",
        "To go on from this task's output in a later task (put this task's name in place of THIS_TASK):",
        start(words, "THIS_TASK", run),
    ]
    return "\n".join(lines) + "\n"


def start(words: list[str], earlier: str | None, run: str) -> str:
    """The run is copied out of the earlier task's read-only output; what is there already stays."""
    copy = (
        f"mkdir -p /output && cp -rn {shlex.quote(f'/myproject_outputs/{earlier}/{run}')} /output/ && "
        if earlier
        else ""
    )
    return f"{copy}cd /code && exec {shlex.join(words)}"
