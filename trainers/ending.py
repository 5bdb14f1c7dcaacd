"""How a training ends: its exit code, its last record, its last words."""

from __future__ import annotations

from relaunch.data_prep.errors import PREEMPTED, STOPPED
from relaunch.trainers import goodput, lines, records
from relaunch.trainers.group import process

# what all ranks do after a step: the largest of what they ask for. CHECK is to compute the next one twice;
# SAVE is by rank 0's clock, where --save-every is a time; UNSAVED and NOT_FINITE are to hear what became of a
# save, and of the step; the others end the training
NO_STOP, CHECK, SAVE, BY_SIGNAL, BY_REQUEST, UNSAVED, NOT_FINITE = range(7)


def finish(training) -> int:
    """Write down how it ended and where its time went, and say so; returns the exit code."""
    code, state, why = outcome(training)
    training.spent.write(training.step, training.samples, paused=code in (0, STOPPED))
    if training.runtime.main:
        training.run.write_status(state, code, training.step, why)
        if told := goodput.rows(records.time_spent(training.run)):
            training.say("\n".join(["where the time went:", *(f"  {name:11}{text}" for name, text in told)]))
    if training.elastic and (cost := training.elastic.cost(training.spent)):
        training.say(cost)
    training.say(lines.last_line(training, why))
    return code


def outcome(training) -> tuple[int, str, str]:
    """(exit code, state of status.json, reason)."""
    step, best = training.step, training.best
    if training.ends and not training.owes_evaluation():
        why = lines.why_done(training.config, step, training.total, best, training.since_best)
        return 0, "done", why
    saved = "and saved" if step else "before the first step: nothing to save"
    if training.stop == BY_REQUEST:
        return STOPPED, "stopped", f"stopped by the STOP file, {saved}"
    if number := process.asked_to_stop():
        by = number.name
    else:
        by = "--stop-after" if step >= training.stop_after else "a signal to another process"
    return PREEMPTED, "preempted", f"stopped by {by}, {saved}"
