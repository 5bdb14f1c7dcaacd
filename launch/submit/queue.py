"""What is asked of SLURM once a job is written: take it, say where it stands, show its log, end it.

    relaunch status 4711

Clusters without accounting forget a job soon after its end: then what the run itself noted is still there.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, HARDWARE, USAGE, Failure
from relaunch.data_prep.names import offered
from relaunch.data_prep.talk import give, tell
from relaunch.launch.submit import slurm, standing
from relaunch.launch.submit.describe import Job
from relaunch.launch.submit.standing import Standing, ask
from relaunch.trainers import records, rundir
from relaunch.trainers.flags import Parser, without

FIND = "`squeue --me` lists your jobs"
ABOUT = {
    "status": "Say how a job and its runs stand, with their last metrics, and what to do next. Of a job\n"
    "that was submitted from this folder, also when SLURM has forgotten it. A chain's first job stands\n"
    "for all of it.",
    "logs": "Show a job's log, and how its runs stand.",
    "cancel": "Cancel a job, or a chain by its first one, for good. What its run saved stays.",
}
NOTE = {"ids": list, "runs": list, "logs": str}  # of a job: and the `command` that submits it again


def submit(job: Job) -> int:
    """Write the script and hand it over, as often as the chain is long. Prints the jobs and their log."""
    folder = slurm.folder(job)
    with files.storage(folder, "--name"):
        folder.mkdir(parents=True, exist_ok=True)
        if job.code:  # what is edited while the job waits, or of another job of this name, is not its own
            copy = folder / f"code-{job.code.digest[:12]}"
            job.code.write(copy)
            job = job.with_code_in(copy)
        script = slurm.script(job)
        (folder / "job.sh").write_text(script)
    ids: list[str] = []
    runs = [run for run, _ in job.runs()]
    again = ["relaunch", "submit", *without(job.typed, "--run"), "--run", job.run]
    for _ in range(job.given.chain):
        after = [f"--dependency=afterany:{ids[-1]}"] if ids else []
        said = ask("sbatch", "--parsable", *after, str(folder / "job.sh"), script=script)
        number = re.search(r"^(\d+)(;.*)?$", said, re.MULTILINE)  # sites may greet before it
        if not number:
            raise Failure(HARDWARE, f"sbatch said no job's number, but {said.strip()!r}", FIND)
        ids.append(number[1])
        note = {"ids": ids, "runs": runs, "logs": str(folder), "command": again}
        with files.storage(folder, "--name"):
            files.write_atomic(folder / f"{ids[0]}.json", files.dump_json(note))
    tasks, word = (f", {len(runs)} tasks", "runs") if job.tasks else ("", "run")
    tell(f"job {' -> '.join(ids)}{tasks}; {word} {', '.join(runs)}; logs in {folder}")
    if job.code:
        tell(f"{', '.join(job.code.contents)}: copied to {copy}, and started from there")
    tell(f"relaunch status {ids[0]}   relaunch logs {ids[0]}   relaunch cancel {ids[0]}")
    return 0


def notes() -> list[dict]:
    found = (records.read(path, NOTE) for path in (rundir.ROOT / "jobs").glob("*/*.json"))
    return [note for note in found if NOTE.keys() <= note.keys()]


def submitted_here(job: str) -> str:
    """The jobs that may have been meant, the newest first."""
    ids = sorted({i for note in notes() for i in note["ids"]}, key=lambda i: (len(i), i), reverse=True)
    return offered(job, ids, "submitted here:")


def noted(job: str) -> dict:
    """What was written down when it was submitted from this folder."""
    number, _, task = job.partition("_")
    for note in notes():
        if number in note["ids"]:
            return note | ({"runs": note["runs"][int(task) : int(task) + 1]} if task else {})
    return {"ids": [job], "runs": [], "logs": None}


def meant(job: str, note: dict) -> list[str]:
    """The first job of a chain stands for all of it."""
    return note["ids"] if job == note["ids"][0] else [job]


def status(job: str) -> int:
    note = noted(job)
    known: list[Standing] = []
    unasked = None
    try:
        known = jobs_of(job, note)
    except Failure as failure:
        if not note["runs"]:
            raise
        unasked = failure
    gone = not unasked and not any(each.left for each in known)
    lines = [each.line() for each in known]
    lines += [line for name in note["runs"] for line in standing.told_of_run(name, gone)]
    if not lines:
        raise Failure(
            DATA,
            f"nobody knows job {job}: SLURM has forgotten it, and it was not submitted from this folder",
            submitted_here(job) or "type this where it was submitted",
        )
    if unasked:  # what the runs noted is told all the same
        lines.insert(0, f"job {job}: {unasked.what}; {unasked.fix}")
    lines += [f"next: {step}" for step in standing.next_steps(job, known, note, asked=not unasked)]
    give("\n".join(lines))
    return 0


def jobs_of(job: str, note: dict) -> list[Standing]:
    """Where the job stands, or each job of the chain or task of the array that it stands for."""
    return [each for j in meant(job, note) for each in standing.known(j, len(note["runs"]))]


def logs(job: str, follow: bool) -> int:
    note = noted(job)
    found = [
        path
        for j in meant(job, note)
        for name in (f"{j}.out", f"{j}_*.out")
        for path in sorted(Path(note["logs"] or ".").glob(name))
    ]
    if not found:  # of another folder's: the controller knows where, for a while
        found = [
            Path(p)
            for p in re.findall(r"StdOut=(.*?)(?: \w+=|$)", ask("scontrol", "-o", "show", "job", job), re.M)
            if Path(p).exists()
        ]
    if not found:
        raise Failure(DATA, f"job {job} has no log yet", f"relaunch status {job} says whether it has begun")
    told = [line for name in note["runs"] for line in standing.told_of_run(name)]
    told.append(f"relaunch status {job} says where it stands, and what to do next")
    if follow:
        tell("\n".join(told), sys.stderr)
        os.execvp("tail", ["tail", "-n", "+1", "-F", *map(str, found)])
    for path in found:
        give(f"==> {path}\n{path.read_text(errors='replace')}", end="")
    tell("\n".join(told), sys.stderr)
    return 0


def cancel(job: str) -> int:
    note = noted(job)
    ids = meant(job, note)
    known = jobs_of(job, note)
    if not known:  # of which scancel would say nothing
        raise Failure(DATA, f"nobody knows job {job}", submitted_here(job) or FIND)
    if not any(each.left for each in known):
        tell("\n".join([*(each.line() for each in known), "nothing was left to cancel"]))
        return 0
    ask("scancel", *ids)
    tell(
        f"job {', '.join(ids)} cancelled; what its run saved stays"
        + (f": {', '.join(note['runs'])}" if note["runs"] else "")
    )
    return 0


def main(verb: str, argv: list[str]) -> int:
    p = Parser(prog=f"relaunch {verb}", description=ABOUT[verb])
    p.add_argument("job", metavar="JOB", help="a SLURM job's number, or NUMBER_TASK of an array")
    if verb == "logs":
        p.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    try:
        given = p.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    if not re.fullmatch(r"\d+(_\d+)?", given.job):
        fix = "write 4711, or 4711_2 for a task of an array; jobs on Kubernetes are kubectl's to show"
        raise Failure(USAGE, f"{given.job!r} is not a job's number", fix)
    return (
        logs(given.job, given.follow)
        if verb == "logs"
        else {"status": status, "cancel": cancel}[verb](given.job)
    )
