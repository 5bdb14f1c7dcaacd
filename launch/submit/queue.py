"""What is asked of SLURM once a job is written: take it, say where it stands, show its log, end it.

    relaunch status 4711

Clusters without accounting forget a job soon after its end: then what the run itself noted is still there.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, HARDWARE, USAGE, Failure
from relaunch.data_prep.names import offered
from relaunch.data_prep.talk import give, tell
from relaunch.launch.submit import slurm
from relaunch.launch.submit.describe import Job
from relaunch.launch.submit.surroundings import clean
from relaunch.trainers import records, rundir
from relaunch.trainers.flags import Parser
from relaunch.trainers.rundir import RunDir

# what the scheduler says -> what to do about it
FIXES = (
    ("account", "add --account NAME: `sacctmgr show assoc user=$USER` lists yours"),
    ("partition", "`sinfo -s` lists the partitions"),
    ("qos", "`sacctmgr show qos` lists them"),
    ("time limit", "ask for less --time, or another --partition"),
    ("node configuration", "`sinfo -o '%P %D %c %G'` shows what nodes have"),
    ("invalid job id", "`squeue --me` lists your jobs"),
    ("contact", "the scheduler does not answer: try again in a minute"),
)


def ask(*command: str, script: str | None = None) -> str:
    """What a scheduler's command prints, for sbatch: to this script.

    Its refusal is Failure 64 with the scheduler's own reason.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=clean(os.environ, script))
    except FileNotFoundError:
        raise Failure(
            HARDWARE, f"there is no {command[0]} here", "type this on the cluster's login node"
        ) from None
    if done.returncode == 0:
        return done.stdout
    said = [line.split("error: ", 1)[-1] for line in done.stderr.splitlines() if "error: " in line] or [
        f"{command[0]} ended with {done.returncode}"
    ]
    reason = next((line for line in said if "failed" in line), said[0])
    detail = next((line for line in said if line != reason), "")
    fix = next((fix for word, fix in FIXES if word in reason.lower()), "")
    raise Failure(USAGE, f"{reason} ({detail})" if detail else reason, fix)


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
    ids, runs = [], [run for run, _ in job.runs()]
    for _ in range(job.given.chain):
        after = [f"--dependency=afterany:{ids[-1]}"] if ids else []
        said = ask("sbatch", "--parsable", *after, str(folder / "job.sh"), script=script)
        ids.append(said.strip().split(";")[0])
        with files.storage(folder, "--name"):
            files.write_atomic(
                folder / f"{ids[0]}.json", files.dump_json({"ids": ids, "runs": runs, "logs": str(folder)})
            )
    tasks, word = (f", {len(runs)} tasks", "runs") if job.tasks else ("", "run")
    tell(f"job {' -> '.join(ids)}{tasks}; {word} {', '.join(runs)}; logs in {folder}")
    if job.code:
        tell(f"{', '.join(job.code.contents)}: copied to {copy}, and started from there")
    tell(f"relaunch status {ids[0]}   relaunch logs {ids[0]}   relaunch cancel {ids[0]}")
    return 0


NOTE = {"ids": list, "runs": list, "logs": str}


def notes() -> list[dict]:
    found = (records.read(path, NOTE) for path in (rundir.ROOT / "jobs").glob("*/*.json"))
    return [note for note in found if NOTE.keys() <= note.keys()]


def submitted_here(job: str) -> str:
    """The jobs that may have been meant, the newest first."""
    ids = sorted({i for note in notes() for i in note["ids"]}, key=lambda i: (len(i), i), reverse=True)
    return offered(job, ids, "submitted here:")


def noted(job: str) -> dict:
    """What was written down when it was submitted from this folder."""
    for note in notes():
        if job.split("_")[0] in note["ids"]:
            return note
    return {"ids": [job], "runs": [], "logs": None}


def meant(job: str, note: dict) -> list[str]:
    """The first job of a chain stands for all of it."""
    return note["ids"] if job == note["ids"][0] else [job]


KNOW = (  # who may still know a job, and what in their lines is its number, state and detail
    (("squeue", "-h", "-r", "-o", "%i|%T|%r, %N", "-j"), r"(.+?)\|(.+?)\|(?:None, )?(.*)", "{}"),
    (
        ("scontrol", "-o", "show", "job"),
        r"JobId=(\d+).*?JobState=(\S+).*?Restarts=(\d+) .*?ExitCode=(\d+)",
        "came back {} times, exit code {}",
    ),
    (("sacct", "-n", "-P", "-X", "-o", "JobID,State,ExitCode", "-j"), r"(.+?)\|(.+?)\|(.*)", "exit code {}"),
)


# states in which there is something to cancel
LEFT = tuple("PENDING RUNNING SUSPENDED CONFIGURING COMPLETING REQUEUE STOPPED".split())


def standing(job: str) -> list[tuple[str, str]]:
    """(state, line) of each job or task, from who still knows it: queue, controller, accounting."""
    for command, pattern, words in KNOW:
        try:
            said = ask(*command, job)
        except Failure as failure:
            if failure.code == HARDWARE and command[0] == "squeue":
                raise
            continue
        found = [m.groups() for line in said.splitlines() if (m := re.match(pattern, line))]
        if found:
            return [
                (state, f"job {i}: {state} ({words.format(*detail).strip(', ')})")
                for i, state, *detail in found
            ]
    return []


def status(job: str) -> int:
    note = noted(job)
    lines = [line for j in meant(job, note) for _, line in standing(j)]
    for name in note["runs"]:
        run = RunDir(name)
        said = records.status(run)
        words = [
            said.get("state", "its status.json cannot be read" if run.status.exists() else "not begun"),
            *([f"code {said['code']}"] if "code" in said else []),
            *([f"step {said['step']}"] if "step" in said else []),
            *([said["reason"]] if said.get("reason") else []),
        ]
        lines.append(f"run {name}: {', '.join(words)}" + (f" ({said['time']})" if "time" in said else ""))
    if not lines:
        raise Failure(
            DATA,
            f"nobody knows job {job}: SLURM has forgotten it, and it was not submitted from this folder",
            submitted_here(job) or "type this where it was submitted",
        )
    give("\n".join(lines))
    return 0


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
            for p in re.findall(r"StdOut=(\S+)", ask("scontrol", "-o", "show", "job", job))
            if Path(p).exists()
        ]
    if not found:
        raise Failure(DATA, f"job {job} has no log yet", f"relaunch status {job} says whether it has begun")
    if follow:
        os.execvp("tail", ["tail", "-n", "+1", "-F", *map(str, found)])
    for path in found:
        give(f"==> {path}\n{path.read_text(errors='replace')}", end="")
    return 0


def cancel(job: str) -> int:
    note = noted(job)
    ids = meant(job, note)
    known = [found for j in ids for found in standing(j)]
    if not known:  # of which scancel would say nothing
        raise Failure(DATA, f"nobody knows job {job}", submitted_here(job) or "`squeue --me` lists your jobs")
    if not any(state.startswith(LEFT) for state, _ in known):
        tell("\n".join([*(line for _, line in known), "nothing was left to cancel"]))
        return 0
    ask("scancel", *ids)
    tell(
        f"job {', '.join(ids)} cancelled; what its run saved stays"
        + (f": {', '.join(note['runs'])}" if note["runs"] else "")
    )
    return 0


def main(verb: str, argv: list[str]) -> int:
    p = Parser(prog=f"relaunch {verb}")
    p.add_argument("job", metavar="JOB", help="a SLURM job's number, or NUMBER_TASK of an array")
    if verb == "logs":
        p.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    try:
        given = p.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    if not re.fullmatch(r"\d+(_\d+)?", given.job):
        raise Failure(
            USAGE, f"{given.job!r} is not a job's number", "write 4711, or 4711_2 for a task of an array"
        )
    return (
        logs(given.job, given.follow)
        if verb == "logs"
        else {"status": status, "cancel": cancel}[verb](given.job)
    )
