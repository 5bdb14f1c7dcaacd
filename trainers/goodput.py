"""What a run's time record says: goodput and badput by cause, the bound, and what a change would give. Pure.

    rows(judged(record, config, plan, metrics))    # [("wall time", "41.3 s …"), ("goodput", "81.0 %: …"), …]

Each number is of this run. A change is offered with the seconds that it would have saved, computed from what
the run measured; what was not measured is not promised.
"""

from __future__ import annotations

from relaunch.trainers.shapes import NUMBER, shaped

NAMES = {
    "start": "start",
    "input": "input wait",
    "compute": "forward+backward",
    "optimizer": "optimizer",
    "communication": "communication",
    "evaluation": "evaluation",
    "checkpoint": "checkpoint",
    "repeated": "repeated steps",
    "restarts": "restarts",
    "other": "other",
}
CAUSES = tuple(NAMES)
GOOD = ("compute", "optimizer")  # what trains; all else is badput
IN_STEPS = ("input", "compute", "optimizer", "communication", "other")
STRAGGLES = 0.1  # share by which a rank's own part of a step is longer than the others'
WRITES = {"count": int, "seconds": NUMBER}  # of a record; older ones have none
WORTH = 0.02  # share of the wall time that a change must save to be offered


def judged(record: dict, config: dict, plan: dict, metrics: list[dict], single: dict | None = None) -> dict:
    """What `records.time_spent` returns, of the run's records as they were read; seconds and megabytes.

    `single`: {"run", "samples_per_s"} of a single-process run of the same settings, if one is known.
    """
    causes, world = record["causes"], max(1, plan.get("world", 1))
    trained = sum(causes[cause] for cause in IN_STEPS)
    samples = record["samples"] - record["from_samples"]
    memory = [m for row in metrics if isinstance(m := row.get("peak_memory_mb"), (int, float))]
    found = {
        "wall": sum(causes.values()),
        "causes": causes,
        "goodput": sum(causes[cause] for cause in GOOD) / (sum(causes.values()) or 1.0),
        "samples_per_s": samples / trained if trained else 0.0,
        "peak_memory_mb": max(memory, default=0.0),
        "starts": record["starts"],
        "between": record["between"],
        "from_step": record["from_step"],
        "step": record["step"],
        "world": world,
    }
    if wrote := writes(record):
        found["writes"] = wrote
    if slow := straggler(record["ranks"]):
        found["straggler"] = slow
    if world > 1 and single and single["samples_per_s"] and found["samples_per_s"]:
        found["scaling"] = single | {"efficiency": found["samples_per_s"] / (world * single["samples_per_s"])}
    together = causes | {"restarts": causes["restarts"] + causes["repeated"], "repeated": 0.0}
    bound = max(together, key=together.__getitem__)
    found["bound"] = "restarts and repeated steps" if bound == "restarts" else NAMES[bound]
    found["bound_share"] = together[bound] / (found["wall"] or 1.0)
    found["advice"] = advice(found, bound, config, plan, metrics)
    return found


def writes(record: dict) -> dict:
    """{"count": checkpoints that were committed, "seconds": of their writing}; empty without any."""
    found = shaped(record.get("writes"), WRITES)
    return found if WRITES.keys() <= found.keys() and found["count"] > 0 else {}


def straggler(ranks: list[dict]) -> dict | None:
    """The rank that waits least for the others, if its own part of a step is STRAGGLES longer than theirs.

    An all-reduce ends for all at once, so that whoever comes last to it waits least.
    """
    if len(ranks) < 2:
        return None
    own = [rank["steps"] - rank["waited"] for rank in ranks]
    slowest = min(range(len(ranks)), key=lambda r: ranks[r]["waited"])
    others = sorted(seconds for r, seconds in enumerate(own) if r != slowest)
    usual = (others[(len(others) - 1) // 2] + others[len(others) // 2]) / 2  # the median
    if usual <= 0 or own[slowest] / usual - 1 < STRAGGLES:
        return None
    return {"rank": slowest, "longer": own[slowest] / usual - 1, "seconds": own[slowest] - usual}


def changes(found: dict, config: dict, plan: dict, metrics: list[dict]) -> list[tuple[float, str]]:
    """(seconds that it would have saved, what to change) for everything that the record can tell of."""
    causes, batch = found["causes"], config.get("batch_size")
    every, save_every = config.get("eval_every"), config.get("save_every")
    epoch_steps, steps = plan.get("steps_per_epoch", 0), found["step"] - found["from_step"]
    ready = "have each batch ready when it is asked for: at most"
    if config.get("input") == "raw":  # the two routes train the same bits
        ready = (
            f"--input packed (it is raw), or more --workers (they are {config.get('workers', 0)}): at most"
        )
    offers = [(causes["input"], ready)]
    if slow := found.get("straggler"):
        offers.append((slow["seconds"], f"bring rank {slow['rank']} to the pace of the others: about"))
    evaluations = sum(row["split"] == "val" and row["step"] > found["from_step"] for row in metrics)
    if isinstance(every, int) and evaluations > 1:
        saved = causes["evaluation"] * (evaluations // 2) / evaluations
        offers.append((saved, f"--eval-every {2 * every} (it is {every}):"))
    if isinstance(save_every, int) and save_every > 0 and steps > 0:
        ends = steps // epoch_steps if epoch_steps else 0  # an epoch's end saves by itself
        between = steps // save_every - (ends if epoch_steps and epoch_steps % save_every == 0 else 0)
        if between > 1:
            saved = causes["checkpoint"] * (between // 2) / (between + ends)
            offers.append((saved, f"--save-every {2 * save_every} (it is {save_every}): about"))
        if causes["repeated"] and save_every > 1:
            saved = causes["repeated"] / 2 - causes["checkpoint"]
            offers.append((saved, f"--save-every {save_every // 2} (it is {save_every}): about"))
    if isinstance(batch, int):
        saved = (causes["optimizer"] + causes["communication"]) / 2
        halves = f"--batch-size {2 * batch} (it is {batch}), which halves the optimizer's steps and trains "
        offers.append((saved, f"{halves}otherwise: about"))
    return offers


def advice(found: dict, bound: str, config: dict, plan: dict, metrics: list[dict]) -> str:
    """The change that would have saved most, and how much; or that none is worth it, and why."""
    wall = found["wall"]
    if found["step"] - found["from_step"] < 2:
        return "too few steps to say"
    saved, what = max(changes(found, config, plan, metrics))
    if bound == "start" and saved < found["causes"]["start"]:
        then = found["causes"]["start"] / (2 * wall - found["causes"]["start"])
        return f"the start is paid once: over twice the steps it would be {100 * then:.0f} %"
    if saved < WORTH * wall:
        return f"no setting of this run would have saved {100 * WORTH:.0f} % of its wall time"
    return f"{what} {amount(saved)} less of {amount(wall)} ({100 * saved / wall:.0f} %)"


def amount(seconds: float) -> str:
    """`41.3 s`, `12 min 05 s`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def rows(found: dict) -> list[tuple[str, str]]:
    """(name, text) for each line that tells of it; empty where there is no record."""
    if not found:
        return []
    wall, causes, starts = found["wall"] or 1.0, found["causes"], found["starts"]

    def shares(names) -> str:
        parts = sorted(((causes[name], NAMES[name]) for name in names), reverse=True)
        return ", ".join(f"{name} {100 * s / wall:.1f} %" for s, name in parts if s / wall >= 0.0005)

    good = 100 * found["goodput"]
    since = f" since step {found['from_step']:,}" if found["from_step"] else ""
    told = f"{amount(wall)}{since} up to step {found['step']:,}"
    if starts > 1:
        told += f", in {starts} starts with {amount(found['between'])} between them"
    told += f"; {found['samples_per_s']:,.0f} samples/s in the steps"
    told += f", {found['peak_memory_mb']:,.0f} MB" if found["peak_memory_mb"] else ""
    within = (
        "; relaunch profile shows its operators" if found["bound"] in (NAMES[name] for name in GOOD) else ""
    )
    lines = [
        ("wall time", told),
        ("goodput", f"{good:.1f} %: {shares(GOOD)}".removesuffix(": ")),
        ("badput", f"{100 - good:.1f} %: {shares(c for c in CAUSES if c not in GOOD)}".removesuffix(": ")),
        ("bound", f"{found['bound']}, {100 * found['bound_share']:.0f} % of the wall time{within}"),
        ("change", found["advice"]),
    ]
    if wrote := found.get("writes"):
        still, beside = (1e3 * s / wrote["count"] for s in (causes["checkpoint"], wrote["seconds"]))
        each = f"{still:,.0f} ms of training for each, which was written in {beside:,.0f} ms"
        lines.insert(3, ("saves", f"{wrote['count']:,}: {each}"))
    if scaling := found.get("scaling"):
        lines.append(
            (
                "scaling",
                f"{100 * scaling['efficiency']:.0f} % of {found['world']} times the "
                f"{scaling['samples_per_s']:,.0f} samples/s of {scaling['run']}, one process",
            )
        )
    elif found["world"] > 1:
        lines.append(("scaling", "unknown: no run of one process with the same settings beside this one"))
    if slow := found.get("straggler"):
        lines.append(
            (
                "straggler",
                f"rank {slow['rank']} waits least for the others: its own part of a step is "
                f"{100 * slow['longer']:.0f} % longer than theirs",
            )
        )
    return lines
