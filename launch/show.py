"""What a plan looks like on a terminal.

show.table(plan)    # relaunch train … --dry-run
show.line(plan)     # at the top of every start
"""

from __future__ import annotations

from pathlib import Path

from relaunch.data_prep.names import command, printable
from relaunch.launch import estimate
from relaunch.launch.estimate import Size
from relaunch.launch.plan import Plan
from relaunch.trainers import shards
from relaunch.trainers.config import TF32


def plural(n: int, word: str, words: str | None = None) -> str:
    return f"{n:,} {word if n == 1 else words or word + 's'}"


def precision(plan: Plan) -> str:
    return "fp32" if plan.accelerate.precision == "no" else plan.accelerate.precision


def mixed(plan: Plan) -> str:
    """What autocast computes in what: the weights themselves stay float32."""
    if plan.accelerate.precision == "no":
        return ""
    scaled = ", its gradients scaled against underflow" if plan.accelerate.precision == "fp16" else ""
    kept = "; weights, their gradients, the optimizer and the loss in fp32" if plan.config else ""
    return f": matrix products and convolutions{scaled}{kept}"


def tf32(plan: Plan) -> str:
    """What float32 is on a GPU: it says nothing of its own generation here."""
    if plan.accelerate.use_cpu or plan.accelerate.precision != "no" or not plan.config:
        return ""
    said = TF32[plan.config.tf32]
    return f"{said} on GPUs from Ampere on (--tf32)" if said else ""


def processes(plan: Plan) -> str:
    """`2 processes on the CPU`, `16 processes on 2 machines x 8 GPUs`."""
    accelerate = plan.accelerate
    what = plural(accelerate.processes, "process", "processes")
    if accelerate.use_cpu and accelerate.machines > 1:
        return f"{what} on the CPUs of {accelerate.machines} machines"
    if accelerate.use_cpu:
        return f"{what} on the CPU" + (", in place of GPUs (--emulate)" if plan.emulated else "")
    if accelerate.machines > 1:
        return f"{what} on {accelerate.machines} machines x {plural(plan.local, 'GPU')}"
    return f"{what} on {plural(plan.local, 'GPU')}"


def batch(plan: Plan) -> str:
    config = plan.config
    accumulated = (
        f" x {plural(config.grad_accum_steps, 'micro-batch', 'micro-batches')}"
        if config.grad_accum_steps > 1
        else ""
    )
    processes = plural(plan.accelerate.processes, "process", "processes")
    if config.elastic_exact:
        own = shards.SHARDS // plan.accelerate.processes
        processes += f" x {own} of {shards.SHARDS} shards (--elastic-exact)"
    parted = ", or in as few micro-batches as fit its memory" if plan.fits else ""
    return f"{config.batch_size} = {processes}{accumulated} x {plan.micro_batch}{parted}"


def line(plan: Plan) -> str:
    """The plan in one line."""
    parts = [f"{processes(plan)} ({plan.accelerate.name}), {precision(plan)}"]
    if plan.config:
        parts.append(f"batch {batch(plan)}")
    if place := plan.place:
        begins = f" from step {place.step}" if place.step is not None else place.begun and f", {place.begun}"
        parts.append(place.run + begins)
    if plan.timeout and plan.accelerate.processes > 1:
        parts.append(f"a process that is missing ends the others after {plan.timeout} s")
    return f"relaunch {plan.verb}: " + "; ".join(parts)


def row(name: str, value: str) -> str:
    return f"{name:14}{printable(value)}"


def memory(size: Size | None) -> str:
    """The table's last line."""
    return row("memory", estimate.say(size))


def table(plan: Plan) -> str:
    """The whole plan, one fact a line, but for `memory`, which takes seconds to know."""
    accelerate, facts, rows = plan.accelerate, plan.facts, []
    if config := plan.config:
        rows.append(("workload", f"{config.workload} {config.arch}"))
        if data := plan.data:
            counts = data.sizes.counts if data.sizes else {}
            sizes = ", ".join(f"{n:,} {split}" for split, n in counts.items())
            rows.append(
                (
                    "data",
                    f"{data.name} in {data.where}: "
                    + (f"{sizes}, hash {data.hash[:12]}" if sizes else "packed at the start"),
                )
            )
    rows.append(("config", f"{accelerate.name} ({short(accelerate.path)})"))
    rows.append(("processes", processes(plan)))
    this = f"{facts.host}: {plural(facts.cores, 'core')}, {gpus(plan)}, {facts.memory / 1e9:.0f} GB of memory"
    if accelerate.machines > 1:
        first = f"{accelerate.address}:{accelerate.port or 29500}"
        which = f"{accelerate.machines}, the first is {first}; this is number {accelerate.machine_rank}"
        rows.append(("machines", which))
    if nodes := facts.nodes:
        which = f"machine {nodes.rank} of {nodes.nodes}, the first is {nodes.address}:{nodes.port}"
        rows.append(("platform", f"{nodes.platform}: {which}"))
    rows += [
        ("this machine", this),
        ("threads", f"{plan.threads} a process"),
        ("precision", precision(plan) + mixed(plan) + tf32(plan)),
    ]
    if config:
        if config.compile != "off":
            auto = "if measuring a few steps both ways, before the first, shows that it repays itself"
            rows.append(("torch.compile", "yes" if config.compile == "on" else auto))
        rows.append(("batch", batch(plan)))
        if config.input != "packed":
            rows.append(("input", f"{config.input}, {plural(config.workers, 'worker')} a process"))
        steps = f"{plan.epoch_steps:,} an epoch" if plan.epoch_steps else "known when the data is packed"
        total = f", {plan.total_steps:,} in all" if plan.total_steps else ""
        if config.time:
            held = f"as many as --time {config.time} holds"
            total += f" ({held})" if total else f"; {held}, measured before the first"
        rows.append(("steps", steps + total))
        warm = f", {plural(config.warmup_steps, 'step')} of warm-up" if config.warmup_steps else ""
        rows.append(("learning rate", f"{config.lr:g}, {config.schedule}{warm}; {config.optimizer}"))
    if place := plan.place:
        begins = (
            f", goes on from its checkpoint of step {place.step:,}"
            if place.step is not None
            else f", {place.begun or 'new'}"
        )
        rows.append(("run", place.run + begins))
    if plan.timeout and accelerate.processes > 1:
        rows.append(
            ("timeout", f"a process that is missing ends the others after {plan.timeout} s (--timeout)")
        )
    words = [short(w) if w == str(accelerate.path) else w for w in plan.accelerate_command]
    rows.append(("accelerate", command(words)))
    if plan.direct:
        rows.append(
            (
                "started as",
                command(["python", *plan.command[1:]]) + "  (one process needs no launcher around it)",
            )
        )
    return "\n".join(row(name, value) for name, value in rows)


def gpus(plan: Plan) -> str:
    facts = plan.facts
    if not facts.gpus_installed:
        return "no GPU"
    hidden = f" ({facts.gpus} visible)" if facts.gpus != facts.gpus_installed else ""
    return f"{facts.gpus_installed} x {facts.gpu_names[0] if facts.gpu_names else 'GPU'}{hidden}"


def short(path) -> str:
    """A path as seen from here, if it lies below."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
