"""Where a job stands: what the scheduler knows of it, what its runs noted, and what to do next.

standing.known("4711")    # [Standing("4711", "PENDING", reason="Priority", details="")]

Clusters without accounting forget a job soon after its end: then what the run itself noted is still there.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from relaunch.data_prep.errors import HARDWARE, HUNG, PREEMPTED, STOPPED, USAGE, Failure
from relaunch.data_prep.names import command
from relaunch.launch.submit.surroundings import clean
from relaunch.trainers import records
from relaunch.trainers.rundir import RunDir

# what the scheduler says -> what to do about it
FIXES = (
    ("account", "add --account NAME: `sacctmgr show assoc user=$USER` lists yours"),
    ("partition", "`sinfo -s` lists the partitions"),
    ("qos", "`sacctmgr show qos` lists them"),
    ("time limit", "ask for less --time, or another --partition"),
    ("node configuration", "`sinfo -o '%P %D %c %G'` shows what nodes have"),
    ("invalid job id", "`squeue --me` lists your jobs"),
)
SILENT = re.compile("unable to contact|connection|timed out|configuration source", re.IGNORECASE)
FORGOTTEN = re.compile("invalid job id|accounting storage is disabled", re.IGNORECASE)
PATIENCE = 120  # s: a controller that fails over is silent for one


def ask(*words: str, script: str | None = None) -> str:
    """What a scheduler's command prints, for sbatch: to this script.

    Failure with the scheduler's own reason: 64, or 69 if it is silent.
    """
    how: dict = {"capture_output": True, "text": True, "errors": "replace", "timeout": PATIENCE}
    try:
        done = subprocess.run(words, env=clean(os.environ, script), **how)
    except FileNotFoundError:
        raise Failure(
            HARDWARE, f"there is no {words[0]} here", "type this on the cluster's login node"
        ) from None
    except subprocess.TimeoutExpired:
        raise Failure(
            HARDWARE, f"{words[0]} had no answer in {PATIENCE} s", "try again in a minute"
        ) from None
    if done.returncode == 0:
        return done.stdout
    # a site's own words stand around the reason, or in its place
    lines = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line.strip()]
    lines = lines or [f"{words[0]} ended with {done.returncode}, and said nothing"]
    last = next((i for i, line in enumerate(lines) if re.search("failed: |fatal: ", line)), 0)
    speaker = rf"^({words[0]}: )?((\w+ )?error: |fatal: )?"  # slurm_load_jobs error:
    reason, *others = (re.sub(speaker, "", line.strip()) for line in [lines.pop(last), *lines])
    what = f"{reason} ({'; '.join(others)})" if others else reason
    if SILENT.search(reason):
        raise Failure(HARDWARE, what, "the scheduler does not answer: try again in a minute")
    raise Failure(USAGE, what, next((fix for word, fix in FIXES if word in reason.lower()), ""))


# the scheduler ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """A job, or a task of an array, as somebody who still knows it tells of it."""

    job: str  # its number as people type it
    state: str
    reason: str  # the scheduler's, of its state
    details: str

    @property
    def left(self) -> bool:
        """Whether there is something to cancel."""
        return self.state.startswith(LEFT)

    def line(self) -> str:
        told = ", ".join(filter(None, (self.reason, self.details)))
        return f"job {self.job}: {self.state}" + (f" ({told})" if told else "")


LEFT = tuple(
    "PENDING RUNNING SUSPENDED CONFIGURING COMPLETING REQUEUE STOPPED SIGNALING SPECIAL_EXIT".split()
)


def in_queue(said: str) -> list[Standing]:
    rows = [line.split("|", 3) for line in said.splitlines() if line.count("|") >= 3]
    return [Standing(job, state, reason_of(reason), nodes) for job, state, reason, nodes in rows]


def at_controller(said: str) -> list[Standing]:
    found = []
    for line in said.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobId" not in fields or "JobState" not in fields:
            continue
        job = fields["JobId"]
        if "ArrayJobId" in fields and "ArrayTaskId" in fields:  # a task's own number, nobody has typed
            job = f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}"
        times = fields.get("Restarts", "0")
        back = f"came back {times} time{'s' * (times != '1')}" if times != "0" else ""
        details = ", ".join(filter(None, (back, exit_words(fields.get("ExitCode", "")))))
        found.append(Standing(job, fields["JobState"], reason_of(fields.get("Reason", "")), details))
    return found


def in_accounting(said: str) -> list[Standing]:
    rows = [line.split("|", 3) for line in said.splitlines() if line.count("|") >= 3]
    return [Standing(job, state, reason_of(reason), exit_words(code)) for job, state, code, reason in rows]


def reason_of(text: str) -> str:
    text = text.replace("_", " ")
    return "" if text in ("None", "(null)", "Unknown") else text


def exit_words(text: str) -> str:
    """Of `3:0`, a code and a signal; empty for 0, which stands also beside failures of no program."""
    code, _, by = text.partition(":")
    if by == "53":  # SLURM's own number for that
        return "its node could not write the log, or enter the working folder"
    if by.isdigit() and 0 < int(by) <= 64:  # beyond that, numbers of SLURM's whose state says more
        return f"ended by signal {by}"
    return f"exit code {code}" if code.strip("0") else ""


KNOW = (  # who may still know a job
    (("squeue", "-h", "-r", "-o", "%i|%T|%r|%N", "-j"), in_queue),
    (("scontrol", "-o", "show", "job"), at_controller),
    (("sacct", "-n", "-P", "-X", "-o", "JobID,State,ExitCode,Reason", "-j"), in_accounting),
)


def known(job: str, tasks: int = 1) -> list[Standing]:
    """A job, or the `tasks` of an array, each from the first that knows it; empty: nobody does.

    Failure 69 or 64: of those who could be asked, nobody does.
    """
    found: dict[str, Standing] = {}
    failure = None
    for words, read in KNOW:
        if failure and failure.code == HARDWARE and words[0] == "scontrol":
            continue  # it asks the same controller
        try:
            said = read(ask(*words, job))
        except Failure as refused:
            if not FORGOTTEN.search(refused.what) and words[0] != "sacct":
                failure = failure or refused
            continue
        for each in said:
            if not found or re.fullmatch(r"\d+(_\d+)?", each.job):  # 12_[3-5] was told one by one
                found.setdefault(each.job, each)
        if len(found) >= tasks and (tasks > 1 or job in found):
            break
    if not found and failure:
        raise failure
    return sorted(found.values(), key=lambda each: [int(n) for n in re.findall(r"\d+", each.job)])


# the runs --------------------------------------------------------------------------------------------------

UNTOLD = (*records.COORDINATES, "lr", "skipped", "data_wait_share", "peak_memory_mb")


def told_of_run(name: str, gone: bool = False) -> list[str]:
    """What a run's folder tells: how it stands, and its last metrics. `gone`: no job of it is left."""
    run = RunDir(name)
    said, total = records.status(run), records.plan(run).get("total_steps")
    last = {record["split"]: record for record in records.metrics(run) if rates(record)}
    step = max([said.get("step", 0), *(record["step"] for record in last.values())])
    state = said.get("state", "its status.json cannot be read" if run.status.exists() else "not begun")
    words = [
        "ended without a word" if gone and state == "running" else state,
        *([f"code {said['code']}"] if "code" in said else []),
        *([f"step {step:,}" + (f"/{total:,}" if total else "")] if "step" in said or last else []),
        *([said["reason"]] if said.get("reason") else []),
    ]
    lines = [f"run {name}: {', '.join(words)}" + (f" ({said['time']})" if "time" in said else "")]
    scored = records.plan(run).get("eval_split", "val")
    for split, record in last.items():
        which = "train" if split == "train" else scored
        lines.append(f"    {which} at step {record['step']:,}: {', '.join(rates(record))}")
    return lines


def rates(record: dict) -> list[str]:
    """The numbers of a record by which a training is judged: `loss 0.1234`, `955 samples/s`."""
    numbers = {k: v for k, v in record.items() if k not in UNTOLD and isinstance(v, (int, float))}
    return [records.shown(*each) for each in numbers.items() if not each[0].startswith("epoch_")]


# what to do next -------------------------------------------------------------------------------------------

REASONS = (  # for which a job waits: the first that fits
    ("NodeLimit|PartitionTimeLimit", "it will not begin there: relaunch cancel {job}, and ask for less"),
    ("DependencyNeverSatisfied", "the job before it is gone, and it never begins: relaunch cancel {job}"),
    ("BeginTime", "it came back, and waits for two minutes"),
    ("requeued held", "it could not be started: relaunch logs {job}, then `scontrol release {job}`"),
    ("JobHeldUser", "it is held: `scontrol release {job}` lets it begin"),
    ("JobHeldAdmin", "whoever runs the cluster holds it: ask them"),
    ("QOS|Assoc", "a limit of your account: it begins when others of your jobs have ended"),
    ("ReqNodeNotAvail|Reserved|PartitionDown", "its nodes are down or reserved: `sinfo -R` says why"),
)
TO_GO_ON = {PREEMPTED, HUNG, STOPPED}  # codes after which the same command goes on


def next_steps(job: str, jobs: list[Standing], note: dict, asked: bool = True) -> list[str]:
    """What to type next, by how jobs and runs stand. `asked`: whether the scheduler could be."""
    steps = []
    for each in jobs:
        number = job if each.job.startswith(f"{job}_") else each.job  # of an array: all of it
        if each.state == "PENDING":
            fix = next((fix for what, fix in REASONS if re.search(what, each.reason)), "it begins by itself")
            steps.append(fix.format(job=number))
        elif each.left:
            steps.append(f"relaunch logs {number} -f")
    runs = {name: records.status(RunDir(name)) for name in note["runs"]}
    done = [RunDir(name).argument for name, said in runs.items() if said.get("state") == "done"]
    if len(done) == len(runs) > 1:
        steps.append(f"relaunch compare --runs {' '.join(done)}")
    elif done:
        steps += [f"relaunch runs show {name}" for name in done[-1:]]
    if any(each.left for each in jobs):
        running = [RunDir(name).argument for name, said in runs.items() if said.get("state") == "running"]
        steps += [f"relaunch stop {name} ends it, saved" for name in running[:1]]
    elif asked and len(done) < len(runs):
        codes = {said.get("code") for said in runs.values() if said.get("state") != "done"}
        steps += [] if codes <= TO_GO_ON else [f"relaunch logs {job} says more of it"]
        again = command(note.get("command", [])) or "submit it again with the same --run"
        steps.append(f"to go on: {again}")
    return list(dict.fromkeys(steps))
