"""Runs the steps of a lab that are not done, one after the other, and says what is left.

    ends = engine.run(lab, steps, facts)    # {"batch64": End(State("done"), 0, "")}

Each step is a process with a log of its own. A stop signal is passed on to it: it saves, and the lab goes on
there the next time. What fails keeps those back that read it, and no others.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import LOCKED, PREEMPTED, STOPPED, Failure
from relaunch.data_prep.names import command
from relaunch.data_prep.talk import tell
from relaunch.launch import supervise
from relaunch.launch.facts import Facts
from relaunch.launch.lab import proofs
from relaunch.launch.lab.proofs import State
from relaunch.launch.lab.steps import VERB, Lab, Step
from relaunch.launch.runs import duration
from relaunch.trainers import PROGRAM, records
from relaunch.trainers.rundir import RunDir

LAUNCHER = str(Path(__file__).parents[1] / "__main__.py")
SAID = re.compile(r"^relaunch: (\d+) (.*)$", re.MULTILINE)
TICK, REDRAW = 0.1, 2.0  # s between looks at a step, and between two drawings of the line that moves


@dataclass(frozen=True)
class End:
    """What became of a step: its state, the code it ended with if it ran, and what it said of a failure."""

    state: State
    code: int = 0
    said: str = ""


@contextmanager
def owned(lab: Lab):
    """The lab's folder is ours until the block ends. Failure 77 if another process has it."""
    with files.storage(lab.folder, "--out FOLDER"):
        lab.path("logs").mkdir(parents=True, exist_ok=True)
        lock = files.open_lock(lab.path(".lock"))
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"another process is working on {lab.folder}"
            raise Failure(LOCKED, what, "wait for it, or choose another --out") from None
        except OSError:  # a disk that lends no locks: the runs in it have their own
            pass
        yield


def states(lab: Lab, steps: dict[str, Step], facts: Facts) -> dict[str, State]:
    return {name: proofs.look(step, lab, steps, facts) for name, step in steps.items()}


def run(lab: Lab, steps: dict[str, Step], facts: Facts) -> dict[str, End]:
    """Carry out what is to be done. Failure 75 or 78 where it was stopped: what is done stays."""
    ends: dict[str, End] = {}
    with supervise.Asked() as asked:
        for number, (name, step) in enumerate(steps.items(), 1):
            # looked at now: a step before it may have made what it reads
            state, place = proofs.look(step, lab, steps, facts), f"[{number}/{len(steps)}] {name}"
            lacking = [n for n in step.after if n in ends and ends[n].state.kind != "done"]
            if state.kind == "todo" and lacking:
                first = ends[lacking[0]].state
                kind, why = ("cannot", first) if first.kind == "cannot" else ("failed", None)
                state = (
                    State(kind, why.why, why.facts) if why else State("failed", "lacks", {"name": lacking[0]})
                )
            if state.kind == "todo":
                todo = [s for s in list(steps.values())[number - 1 :] if open_yet(lab, s, steps, facts)]
                left = remaining(todo, pace(lab, steps))
                tell(f"{place}: {typed(step, steps)}")
                tell(f"    about {duration(left)} left for this and what follows")
                ends[name] = carry_out(lab, step, steps, facts, asked, left)
                if ends[name].code in (PREEMPTED, STOPPED) or asked.first:
                    code = ends[name].code if ends[name].code == STOPPED else PREEMPTED
                    what = f"stopped in {name}, step {number} of {len(steps)}; what is done is kept"
                    raise Failure(code, what, f"go on: {again(lab)}")
            else:
                ends[name] = End(state)
                tell(f"{place}: {SHORT[state.kind].format(**state.facts)}")
    return ends


SHORT = {
    "done": "done before",
    "cannot": "not on this machine: the report says what fills it in",
    "other": "there is another result in its place: the report says which",
    "failed": "left out: it needs {name}",
}


def again(lab: Lab) -> str:
    """The command that goes on with a lab."""
    return command(["relaunch", "lab", *lab.typed])


def open_yet(lab: Lab, step: Step, steps: dict[str, Step], facts: Facts) -> bool:
    return proofs.look(step, lab, steps, facts).kind == "todo"


def carry_out(lab, step: Step, steps, facts: Facts, asked: supervise.Asked, left: float) -> End:
    """One step as a process, to its end."""
    log, answer = lab.path("logs", f"{step.name}.log"), None
    part = step.leaves.with_name(f".{step.leaves.name}.part")
    began, before = time.monotonic(), used()
    with files.storage(lab.folder, "--out FOLDER"):
        output = open(log, "w", opener=files.shyly)
        if step.answers:
            answer = open(part, "w", opener=files.shyly)
    with output:
        output.truncate()
        output.write(f"$ {typed(step, steps)}\n")
        output.flush()
        program = [PROGRAM, *words] if (words := resolved(step, steps))[0] in VERB else [LAUNCHER, *words]
        child = supervise.start([sys.executable, *program], dict(os.environ), output, answer)
        code = stay(lab, step, child, asked, left)
    if answer:
        answer.close()
    if code == 0 and answer:
        os.replace(part, step.leaves)
    if code == 0:
        seconds, busy = time.monotonic() - began, used() - before
        write_note(lab, step, steps, seconds, busy)
        state = proofs.look(step, lab, steps, facts)
        if state.kind != "done":
            code, said = 1, f"it ended well and left no {step.leaves} that is what was asked"
            return End(State("failed", "failed", {"code": code, "said": said}), code, said)
        tell(f"    done in {duration(seconds)}")
        return End(state)
    said = failure(log.read_text(errors="replace"))
    if code not in (PREEMPTED, STOPPED) and not asked.first:
        tell(f"    failed with code {code}: {said or 'its log says why'}\n    log: {log}")
    return End(State("failed", "failed", {"code": code, "said": said or f"log: {log}"}), code, said)


def resolved(step: Step, steps: dict[str, Step]) -> list[str]:
    """The words to start it with: RUN@first becomes the first checkpoint that the run still has."""
    words = list(step.words)
    for i, word in enumerate(words):
        kept = records.committed(RunDir(steps[step.after[0]].leaves)) if word.endswith("@first") else []
        if kept:
            words[i] = word.removesuffix("first") + str(records.step_of(kept[0]))
    return words


def typed(step: Step, steps: dict[str, Step]) -> str:
    """The command line of a step as it can be typed now."""
    return dataclasses.replace(step, words=tuple(resolved(step, steps))).typed


def stay(lab: Lab, step: Step, child: subprocess.Popen, asked: supervise.Asked, left: float) -> int:
    """Wait for a step's end; a stop is passed on once, and who insists does not wait. Its exit code."""
    moving, told, drawn, began = sys.stderr.isatty(), False, 0.0, time.monotonic()
    while True:
        try:
            code = child.wait(TICK)
            break
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        if asked.first and not told:
            asked.acknowledge("stopping; what is done is kept")
            child.send_signal(asked.first)
            told = True
        if asked.insisted:
            os.killpg(child.pid, signal.SIGKILL)
        if moving and now - drawn > REDRAW:
            drawn, so_far = now, fraction(step)
            mine = (now - began) * (1 - so_far) / so_far if so_far > 0.02 else 0.0
            rest = max(mine, left - (now - began))
            line = f"    {duration(now - began)}, about {duration(max(rest, 0))} left" + (
                f", {100 * so_far:.0f} % of this" if so_far else ""
            )
            tell(f"{line:78}", sys.stderr, end="\r")
    if moving and drawn:
        tell(" " * 78, sys.stderr, end="\r")
    return code if code >= 0 else 128 - code


def fraction(step: Step) -> float:
    """How far a training is, 0..1; 0 where that is not known."""
    if step.words[0] != "train":
        return 0.0
    run = RunDir(step.leaves)
    total = records.plan(run).get("total_steps") or 0
    last = max((r["step"] for r in records.metrics(run)), default=0)
    return min(1.0, last / total) if total else 0.0


def failure(log: str) -> str:
    """The line with which a step said why it failed, of its log, less the code."""
    found = SAID.findall(log)
    return found[-1][1] if found else ""


# time -----------------------------------------------------------------------------------------------------


def used() -> float:
    """Seconds of CPU that ended steps have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_note(lab: Lab, step: Step, steps: dict[str, Step], seconds: float, busy: float) -> None:
    note = {
        "words": list(step.words),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "guess": step.seconds,
        "inputs": proofs.inputs(step, steps),
        "host": socket.gethostname(),
    }
    with files.storage(lab.folder, "--out FOLDER"):
        files.write_atomic(proofs.note_of(lab, step), json.dumps(note, indent=2) + "\n")


def pace(lab: Lab, steps: dict[str, Step]) -> float:
    """How slow this machine is against the guesses: the steps that it has run say so; 1 before the first."""
    notes = [(proofs.note(lab, step), step) for step in steps.values()]
    ran = [
        (n["seconds"], s.seconds)
        for n, s in notes
        if n.get("host") == socket.gethostname() and "seconds" in n
    ]
    return sum(t for t, _ in ran) / sum(g for _, g in ran) if ran else 1.0


def remaining(steps: list[Step], pace: float) -> float:
    """Seconds that these will take; what a training has behind it does not count."""
    return pace * sum(step.seconds * (1 - fraction(step)) for step in steps)
