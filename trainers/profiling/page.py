"""Profiles as people read them: lines for a terminal, and the blocks of a page. Never imports torch.

blocks(records.profile(Path("profiles/mnist")))    # for pages.page.html
"""

from __future__ import annotations

from collections.abc import Container

from relaunch.data_prep.names import shortened, table
from relaunch.trainers.profiling.figures import OUTSIDE, PHASES

TOP = 10  # operators in a table
DRAWN = 6  # in a chart: more colours are told apart by nobody
NOTE = (
    "Self time is an operator's own, without the operators that it calls; total time is with them. Times are "
    "ms a step, and memory is what is allocated less what is freed in the total time, in 10^6 bytes; both "
    "under the profiler, which slows a step by its overhead. Shares sum to 100 %: what is in no operator is "
    "Python, autograd's and the optimizer's own bookkeeping. FLOP = 2 x MAC of the matrix products, "
    "convolutions and attention of the forward and the backward pass; other operations are not counted."
)
GPU_NOTE = " Device time is that of the kernels that an operator launched; shares are of it."


def amount(value: float) -> str:
    """Three digits that count, thousands separated, never an exponent."""
    if abs(value) >= 100 or abs(value) < 0.005:
        return f"{abs(round(value)) if abs(value) < 1 else value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def counted(calls: float) -> str:
    return f"{calls:,.0f}" if calls >= 100 or abs(calls - round(calls)) < 0.005 else f"{calls:,.1f}"


def scaled(flop: float | None, unit: str) -> str:
    """`1.23 GFLOP`."""
    if flop is None:
        return "–"
    size, prefix = next(((s, p) for s, p in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if flop >= s), (1e3, "k"))
    return f"{amount(flop / size)} {prefix}{unit}"


def overhead(setting: dict) -> str:
    value = setting.get("overhead")
    return "–" if value is None else f"{100 * value:+z.0f} %"


def other_ms(setting: dict) -> float:
    return max(0.0, setting["profiled_ms"] - sum(setting["phases"].values()))


def split(setting: dict) -> list[tuple[str, float]]:
    """(phase, its share of the step), with what lies between the phases."""
    whole = setting["profiled_ms"] or 1.0
    found = [(name, setting["phases"].get(name, 0.0) / whole) for name in PHASES]
    return [*found, ("other", other_ms(setting) / whole)]


def operators(setting: dict, by: str = "share", limit: int = TOP) -> list[list[str]]:
    """The table of a setting, its head first. `by`: share (of the device's time, if any) or self_ms."""
    rows = sorted(setting["operators"], key=lambda row: -row[by])
    whole = sum(row[by] for row in rows) or 1.0
    device = setting["device"] != "cpu"
    named = [row for row in rows if row["name"] != OUTSIDE]
    outside = [row for row in rows if row["name"] == OUTSIDE]
    few, rest = named[:limit], named[limit:]

    def sums(name: str, of: list[dict]) -> dict:
        added = {f: sum(row[f] for row in of) for f in (*FIELDS, by)}
        return {"name": name, **added}

    shown = [
        *few,
        *([sums(f"{len(rest)} other operators", rest)] if rest else []),
        *outside,
        sums("all", rows),
    ]
    # with those that they call: a sum of total times would count them twice
    total = [amount(r["total_ms"]) if r in few else "" for r in shown]
    lines = [
        [
            r["name"],
            amount(r["self_ms"]),
            percent(r[by] / whole),
            t,
            counted(r["calls"]) if r["calls"] else "",
            amount(r["memory_mb"]) if r in few else "",
            *([amount(r["device_ms"])] if device else []),
        ]
        for r, t in zip(shown, total)
    ]
    head = ["operator", "self ms", "share", "total ms", "calls", "MB", *(["device ms"] if device else [])]
    return [head, *lines]


FIELDS = ("self_ms", "total_ms", "calls", "memory_mb", "device_ms")


def where(setting: dict) -> str:
    """`cpu, x86_64, 1 thread, fp32`."""
    threads = f"{setting['threads']} thread{'s' * (setting['threads'] > 1)}"
    precision = setting.get("precision", "no")
    parts = [setting["config"], setting["device_name"], threads, "fp32" if precision == "no" else precision]
    if setting["world"] > 1:
        parts.append(f"the first of {setting['world']} processes")
    return ", ".join(parts)


def shapes(setting: dict) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in setting.get("inputs", [])) or "unknown"


def times(setting: dict) -> str:
    """What a step takes, in a line."""
    made = f"{scaled(setting.get('flops_per_step'), 'FLOP')} a step, "
    made += scaled(setting.get("flops_per_s"), "FLOP/s")
    return f"{amount(setting['step_ms'])} ms a step, {amount(setting['sample_us'])} us a sample, {made}"


def agreement(setting: dict) -> str:
    """How the profiler's clock and ours saw the same steps."""
    profiled, timer = setting["profiled_ms"], setting["independent_ms"]
    apart = f"{100 * (profiled / timer - 1):+z.1f} %" if timer else "–"
    clocks = (
        f"{amount(profiled)} ms each by the profiler, {amount(timer)} ms by a timer around them ({apart})"
    )
    return f"{setting['steps']} steps profiled, {clocks}; profiler overhead {overhead(setting)}"


def summary(setting: dict, workload: str) -> list[str]:
    """A setting in three lines."""
    what = f"{workload}, batch {setting['batch_size']} ({shapes(setting)})"
    phases = "  ".join(f"{name} {percent(share)}" for name, share in split(setting))
    return [f"{what} on {where(setting)}: {times(setting)}", phases, agreement(setting)]


def lines(setting: dict, workload: str) -> list[str]:
    """A setting on a terminal, with its operators."""
    rows = [[shortened(row[0], 44), *row[1:]] for row in operators(setting)]
    return [*summary(setting, workload), "", *table(rows)]


# the page -----------------------------------------------------------------------------------------


def names(settings: list[dict]) -> list[str]:
    """How settings are told apart: by the batch size, and where there are several by the config."""
    several = len({s["config"] for s in settings}) > 1
    return [f"{s['config']}, " * several + f"batch {s['batch_size']}" for s in settings]


def blocks(found: dict) -> list:
    """The page of what records.profile gave; empty for nothing."""
    from relaunch.trainers.pages import charts
    from relaunch.trainers.pages.blocks import Facts, Heading, Prose, Table

    settings = found.get("settings", [])
    if not settings:
        return []
    labels = names(settings)
    versions = found.get("versions", {})
    facts = [("workload", f"{found['workload']} {found.get('training', {}).get('arch', '')}".strip())]
    facts.append(("data", found["data"]))
    facts += [("where", place) for place in dict.fromkeys(map(where, settings))]
    facts += [(name, str(version)) for name, version in versions.items()]
    head = ["setting", "ms a step", "us a sample", "samples/s", "input", "forward", "backward", "optimizer"]
    head += ["other", "FLOP a step", "FLOP/s", "overhead"]
    rows = [
        [
            name,
            amount(s["step_ms"]),
            amount(s["sample_us"]),
            amount(1e6 / s["sample_us"]),
            *(percent(share) for _, share in split(s)),
            scaled(s.get("flops_per_step"), "FLOP"),
            scaled(s.get("flops_per_s"), "FLOP/s"),
            overhead(s),
        ]
        for name, s in zip(labels, settings)
    ]
    device = any(s["device"] != "cpu" for s in settings)
    of = "% of the kernels' time" if device else "% of the step"
    moved = {name: [100 * share for share in values] for name, values in moves(settings).items()}
    phases = {name: [100 * dict(split(s))[name] for s in settings] for name in (*PHASES, "other")}
    page = [
        Facts(facts),
        Heading("A step"),
        Table(head, rows),
        charts.stacked(labels, moved, of, "Where a step's time goes, by operator"),
        charts.stacked(labels, phases, "% of the step", "Where a step's time goes, by phase"),
        charts.bars(labels, [s["step_ms"] for s in settings], "ms", "Time a step"),
        charts.bars(labels, [s["sample_us"] for s in settings], "us", "Time a sample"),
        Heading("The most expensive operators"),
        Prose(NOTE + GPU_NOTE * device),
    ]
    for name, s in zip(labels, settings):
        page += [
            Heading(name, level=3),
            Prose(f"The model got {shapes(s)}. {agreement(s)}. Trace for ui.perfetto.dev: {s['trace']}"),
        ]
        orders = (
            [("share", "device time"), ("self_ms", "host time")] if s["device"] != "cpu" else [("share", "")]
        )
        for by, what in orders:
            head, *rows = operators(s, by)
            page.append(Table(head, rows, caption=f"By {what}" if what else ""))
    return page


def moves(settings: list[dict]) -> dict[str, list[float]]:
    """Shares of the operators that are large somewhere, by name, one for each setting; they sum to 1."""
    shares = [{row["name"]: row["share"] for row in s["operators"]} for s in settings]
    largest = {name: max(of.get(name, 0.0) for of in shares) for of in shares for name in of}
    ranked = sorted((name for name in largest if name != OUTSIDE), key=lambda name: -largest[name])[:DRAWN]
    found: dict[str, list[float]] = {}
    for name in ranked:
        found[brief(name, found)] = [of.get(name, 0.0) for of in shares]
    rest = [sum(share for name, share in of.items() if name not in (*ranked, OUTSIDE)) for of in shares]
    return found | {"others": rest, "outside": [of.get(OUTSIDE, 0.0) for of in shares]}


def brief(name: str, taken: Container[str]) -> str:
    """An operator in 24 columns, as a legend has them; none of those that are taken."""
    name = name.rpartition(": ")[2].removeprefix("aten::")
    for number in range(1, DRAWN + 1):
        end = f" {number}" * (number > 1)
        short = name if len(name + end) <= 24 else f"{name[:16]}…{name[-7 + len(end) :]}"
        if short + end not in taken:
            break
    return short + end
