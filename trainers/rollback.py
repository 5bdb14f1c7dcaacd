"""`--on-nan rollback`: back to the last checkpoint, and past the batch that made numbers that are not finite.

    rollback.go_back(training, found)    # on every rank; raises `found` where that is not asked for

What a run went back from is in its checkpoints' state.json and in plan.json: {"step", "to", "what"} of each.
When it comes to such a step again it counts it and leaves it out. The checkpoint is written again with the
new entry before another step is taken, so that a kill forgets none.
"""

from __future__ import annotations

from relaunch.data_prep import files
from relaunch.data_prep.errors import DIVERGED, Failure
from relaunch.trainers import records
from relaunch.trainers.guard import NotFinite
from relaunch.trainers.snapshot import restore
from relaunch.trainers.weights import checkpoint

SAME, ALL = 3, 10  # rollbacks to one checkpoint, and in a run: what these did not cure is no bad batch


def go_back(training, found: NotFinite) -> None:
    if training.config.on_nan != "rollback":
        raise found
    run, runtime, earlier = training.run, training.runtime, training.rollbacks

    def last_good():
        path = checkpoint.newest_valid(run)
        if path is None:
            what = f"{found.what}, so that there is none to go back to"
            raise Failure(DIVERGED, what, "save more often (--save-every), or lower --lr")
        to = records.step_of(path)
        if len(earlier) >= ALL or sum(each["to"] == to for each in earlier) >= SAME:
            same = sum(each["to"] == to for each in earlier)
            what = f"{found.what}, after {len(earlier)} rollbacks, {same} of them to step {to}"
            raise Failure(DIVERGED, what, "lower --lr, or set --clip")
        return checkpoint.load(path)

    state = runtime.on_rank_0(last_good)
    step = state.meta["step"]
    training.forget()
    training.spent.go_back(training.step, step)
    restore(training, state)
    training.bar.n = step
    training.rollbacks = [*earlier, {"step": found.step, "to": step, "what": found.about}]
    runtime.on_rank_0(lambda: write_down(training))
    said = f"{found.what}; back to step {step}: rollback {len(training.rollbacks)} of at most {ALL}"
    training.say(said)
    training.save()
    training.saver.settle()


def write_down(training) -> None:
    run = training.run
    with files.storage(run.path, "--run PATH"):
        files.write_atomic(run.plan, files.dump_json(records.plan(run) | {"rollbacks": training.rollbacks}))
        training.metrics.go_back(training.step, training.evaluated)


def leaves_out(training, step: int) -> bool:
    return any(each["step"] == step for each in training.rollbacks)
