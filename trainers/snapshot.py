"""The state of a training at a step's boundary: taken for a checkpoint, and taken up by a resumed run."""

from __future__ import annotations

from torch import Tensor

from relaunch.trainers.weights.checkpoint import State
from relaunch.trainers.weights.state import load_optimizer, load_weights, optimizer_state, weights_of

# Raised whenever an unchanged command would train other bits; a resume across it says so and goes on.
# 1: from the first version on, whose checkpoints do not say it.
NUMERICS = 1
# 2: the loss in one tensor of the logits' size; the decoder's product by oneDNN on AMD
OF_TEXT = 2
# 2: all matrices of one shape turned together
OF_MUON_ON_GPU = 2

TRAINED = "/trained"  # with --ema: an entry of each weight in optimizer.safetensors


def numerics(training) -> int:
    """Of what this version trains."""
    of_task = OF_TEXT if training.task.kind == "text" else NUMERICS
    on_gpu = training.config.optimizer == "muon" and training.runtime.device.type == "cuda"
    return max(of_task, getattr(training.module, "numerics", 1), OF_MUON_ON_GPU if on_gpu else 1)


def numerics_of(state: State) -> int:
    return state.meta.get("numerics", 1)


def take(training, open_sums: list) -> State:
    """On rank 0, the tensors as they are: the next step changes them. `open_sums`: of each rank, its
    (log window, epoch sums).
    """
    runtime, config = training.runtime, training.config
    scaler = runtime.accelerator.scaler
    meta = {
        "step": training.step,
        "samples": training.samples,
        "skipped": training.skipped,
        "evaluated": training.evaluated,
        "best": training.best,
        "since_best": training.since_best,
        "open_sums": open_sums,
        "windows": "epoch",  # that of the log ends with its epoch; not said: it went on into the next one
        "scaler": scaler.state_dict() if scaler else None,
        "world": runtime.world,
        "threads": runtime.threads,
        "precision": runtime.precision,
        "global_batch": config.batch_size,
        "config": config.to_json(),
        "numerics": numerics(training),
        **({"rollbacks": training.rollbacks} if training.rollbacks else {}),
        "sizes": training.packed.sizes.to_json(),
        "inputs": training.task.inputs(config, training.packed.sizes),
        **training.identity,
    }
    module = training.module
    weights, slots = weights_of(module), optimizer_state(training.optimizer, module)
    if training.average:
        slots |= {name + TRAINED: tensor for name, tensor in weights.items()}
        weights = weights_of(training.average.module)
    return State(weights, slots, meta)


def restore(training, state: State) -> None:
    """Take up a checkpoint's state, the same on every rank."""
    warm_up(training)
    runtime, meta = training.runtime, state.meta
    trained, slots = split(state.optimizer)
    load_weights(training.module, trained or state.model, "the checkpoint")
    load_optimizer(training.optimizer, training.module, slots)
    if training.average:
        load_weights(training.average.module, state.model, "the checkpoint")
    for name in ("step", "skipped", "evaluated", "best"):
        setattr(training, name, meta[name])
    training.since_best = meta.get("since_best", 0)  # checkpoints of 0.2 do not say it: counted from here on
    training.rollbacks = meta.get("rollbacks", [])
    training.protected = {training.step}
    if len(meta["open_sums"]) == runtime.world:
        mine = meta["open_sums"][runtime.rank]
    elif runtime.main or training.elastic:  # another world size: rank 0 takes what all had summed
        mine = [[sum(column) for column in zip(*(part[i] for part in meta["open_sums"]))] for i in (0, 1)]
    else:
        mine = training.zeros(), training.zeros()
    if training.elastic:
        mine = [training.batches.mine(sums) for sums in mine]
    window, epoch_sums = mine
    if "windows" not in meta and epoch_sums[-1] < 0:  # less what the window holds of the epoch before
        window, epoch_sums = [a + b for a, b in zip(window, epoch_sums)], training.zeros()
    training.window, training.epoch_sums = window, epoch_sums
    if runtime.accelerator.scaler and meta["scaler"]:
        runtime.accelerator.scaler.load_state_dict(meta["scaler"])
    training.restart_clock()


def split(slots: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights in training, of a checkpoint whose model is their average (else none), and the rest."""
    trained = {name: tensor for name, tensor in slots.items() if name.endswith(TRAINED)}
    rest = {name: tensor for name, tensor in slots.items() if name not in trained}
    return {name.removesuffix(TRAINED): tensor for name, tensor in trained.items()}, rest


def warm_up(training) -> None:
    """Two passes that are thrown away.

    After a first one DDP regroups the gradients, and with three or more ranks that changes how they round: a
    resumed run must sum as the one that it continues did.
    """
    if training.runtime.world > 2 and not training.elastic:
        for _ in range(2):
            with training.runtime.peers.waiting("all_reduce of the gradients"):
                loss, _ = training.batches.loss(training.model, training.batches.batch(0, 0))
                training.runtime.accelerator.backward(loss)
        training.optimizer.zero_grad()
