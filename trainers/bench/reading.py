"""What the measurements of a comparison say, in sentences; and nothing that they do not support.

    reading(comparison)    # ["batch_size=32 was the fastest: 5.2 ± 0.1 s for 2,000 samples", …]

What is said of a difference is what the repeats support (spread.differ). One repeat has no spread: then there
are numbers and no verdict.
"""

from __future__ import annotations

from relaunch.trainers.bench import spread
from relaunch.trainers.bench.comparison import CANNOT, FAILED, MEASURED, WAITING, Cell, Comparison
from relaunch.trainers.bench.spread import Spread

NOISY = 0.1  # of the mean: repeats that spread more were disturbed, or too short
WAITS = 0.2  # of the time: from here on waiting for data is worth a sentence
PERCENT = ("top1", "top5")
WHY = {  # of one cell, of several
    CANNOT: ("cannot be measured here", "cannot be measured here"),
    FAILED: ("failed", "failed"),
    WAITING: ("is not measured yet", "are not measured yet"),
}


def number(value: float) -> str:
    """Three digits or more: 0.0123, 1.23, 12.3, 123, 12,345."""
    for least, places in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if abs(value) >= least:
            return f"{value:,.{places}f}"
    return f"{value:.3g}"


def with_spread(mean: float, sd: float | None, unit: str = "") -> str:
    """`5.21 ± 0.05 s`; without a spread `5.21 s`. Both have as many places."""
    text = number(mean)
    places = len(text.partition(".")[2]) if "." in text else 0
    if sd is not None and 0 < sd < 10**-places:
        places = min(places + 1, 4)
        text = f"{mean:,.{places}f}"
    return text + (f" ± {sd:,.{places}f}" if sd is not None else "") + (unit and f" {unit}")


def shown(repeats: Spread | None, unit: str = "") -> str:
    return with_spread(repeats.mean, repeats.sd, unit) if repeats else ""


def quality(cell: Cell) -> str:
    """`top1 61.2 ± 0.4 %`."""
    found = cell.quality()
    return f"{cell.metric} {shown(found, '%' if cell.metric in PERCENT else '')}" if found else ""


def times(pair: tuple[float, float | None]) -> str:
    places = 2 if pair[0] < 10 else 1
    return f"{pair[0]:,.{places}f}" + (f" ± {pair[1]:,.{places}f}" if pair[1] is not None else "") + " times"


def reading(c: Comparison) -> list[str]:
    return [*lead(c), *against_baseline(c), *doubts(c), *(f"{line}." for line in left_out(c))]


def against_baseline(c: Comparison) -> list[str]:
    return [sentence(c, cell) for cell in c.cells if cell.state == MEASURED and cell is not c.baseline]


def lead(c: Comparison) -> list[str]:
    """Which was the fastest, how sure that is, and what it cost."""
    timed = c.timed()
    if not timed:
        return [f"Nothing has been measured to the target {c.target} yet."] if c.target else []
    best = timed[0]
    if len(c.cells) == 1:
        return [f"{best.name or c.workload}: {took(c, best)}."]
    if len(timed) == 1:
        return [f"{best.name} is the only one that was measured: {took(c, best)}."]
    said = f"{best.name} was the fastest: {took(c, best)}"
    if best is not c.baseline and (pair := c.faster(best, c.baseline)):
        said += f", {times(pair)} as fast as the baseline {c.baseline.name}"
    second = timed[1]
    sure = spread.differ(c.time(best), c.time(second))
    if sure == spread.WITHIN:
        said += f"; its lead over {second.name} is within the spread"
    elif sure == spread.OPEN:
        said += f"; its lead over {second.name} may be chance: {best_of(c)} repeats do not tell"
    elif sure == spread.UNKNOWN:
        said += "; one repeat has no spread, so whether that is more than chance is not known"
    if best is not c.baseline and differs(c, best) == spread.BEYOND:
        said += f"; and {against(best, c.baseline)}"
    return [said + "."]


def took(c: Comparison, cell: Cell) -> str:
    speed = shown(cell.repeats("samples_per_s"), f"{c.unit}/s")
    if c.target:
        return f"{shown(c.time(cell), 's')} to {c.target} ({speed})"
    if not c.equal:
        return speed
    return f"{shown(c.time(cell), 's')} for {cell.measures[0].samples:,} {c.unit} ({speed})"


def best_of(c: Comparison) -> int:
    return min(len(cell.measures) for cell in c.timed())


def differs(c: Comparison, cell: Cell) -> str:
    """What there is to say of its quality against the baseline's (spread.differ)."""
    if cell.metric != c.baseline.metric or not c.equal or c.target:
        return spread.UNKNOWN
    return spread.differ(cell.quality(), c.baseline.quality())


def sentence(c: Comparison, cell: Cell) -> str:
    """One cell against the baseline."""
    if c.target and cell.misses:
        missed = f"{cell.misses} of {len(cell.measures)} runs" if len(cell.measures) > 1 else "its run"
        return f"{cell.name}: {missed} did not reach {c.target} ({quality(cell)} at the end)."
    pair = c.faster(cell, c.baseline)
    if pair is None:
        return f"{cell.name}: {took(c, cell)}, {quality(cell)}; there is no baseline to compare it with."
    said = f"{cell.name}: {times(pair)} the baseline's speed" + (f" to {c.target}" if c.target else "")
    said += {
        spread.WITHIN: ", which is within the spread",
        spread.OPEN: ", which may be chance",
    }.get(spread.differ(c.time(cell), c.time(c.baseline)), "")
    if c.target or not cell.quality() or not c.baseline.quality():
        return said + "."
    numbers = f"{cell.metric} {versus(cell, c.baseline)}"
    said += {
        spread.BEYOND: f"; {against(cell, c.baseline)}, more than the spread",
        spread.WITHIN: f"; {cell.metric} within its spread ({versus(cell, c.baseline)})",
        spread.OPEN: f"; {numbers}, which may be chance",
        spread.UNKNOWN: f"; {numbers}, without a verdict",
    }[differs(c, cell)]
    return said + "."


def versus(cell: Cell, base: Cell) -> str:
    unit = " %" if cell.metric in PERCENT else ""
    return f"{shown(cell.quality())} against {shown(base.quality())}{unit}"


def against(cell: Cell, base: Cell) -> str:
    """`top1 3.2 points lower`."""
    mine, other = cell.quality(), base.quality()
    assert mine and other, "asked for only where both were scored"
    gap = mine.mean - other.mean
    unit = " points" if cell.metric in PERCENT else ""
    return (
        f"its {cell.metric} is {number(abs(gap))}{unit} {'higher' if gap > 0 else 'lower'} "
        f"({versus(cell, base)})"
    )


def doubts(c: Comparison) -> list[str]:
    """What a reader should hold against these numbers, as far as they show it themselves."""
    found, measured = [], [cell for cell in c.cells if cell.state == MEASURED]
    for cell in measured:
        time = cell.repeats("seconds")
        if time and time.sd is not None and time.sd > NOISY * time.mean:
            found.append(
                f"{cell.name or c.workload}: its times spread by {100 * time.sd / time.mean:.0f} %: "
                "the runs are too short, or the machine had something else to do."
            )
        wait = cell.repeats("data_wait_share")
        if wait and wait.mean >= WAITS:
            found.append(
                f"{cell.name or c.workload}: {100 * wait.mean:.0f} % of its time it waited for data."
            )
    if measured and any(len(cell.measures) == 1 for cell in measured) and len(measured) > 1:
        fix = "--repeats 3 gives one, and so do runs that differ in the seed alone."
        found.append(f"Of one repeat there is no spread, and so no verdict: {fix}")
    if not c.equal and not c.target and len(measured) > 1:
        found.append("Trained on different numbers of samples: their speed is compared, and no more.")
    hosts = sorted({str(m.facts.get("host")) for cell in measured for m in cell.measures})
    if len(hosts) > 1:
        found.append(f"Measured on several machines ({', '.join(hosts)}): the ratios are also theirs.")
    found += [line] if "threads" not in c.grid and (line := threads(measured)) else []
    return found


def threads(measured: list[Cell]) -> str:
    """What is uneven about the threads: on one machine, processes of the same number should have as many."""
    by_shape: dict[tuple, set] = {}
    for measure in (measure for cell in measured for measure in cell.measures):
        facts = measure.facts
        by_shape.setdefault((facts.get("host"), facts.get("world")), set()).add(facts.get("threads"))
    uneven = next((sorted(map(str, found)) for found in by_shape.values() if len(found) > 1), [])
    return (
        f"Their processes had {' or '.join(uneven)} threads each: --threads makes them equal."
        if uneven
        else ""
    )


def left_out(c: Comparison) -> list[str]:
    """What was not measured and why, cells of one reason together."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for cell in c.cells:
        if cell.state in WHY:
            by_reason.setdefault((cell.state, cell.reason), []).append(cell.name or c.workload)
    return [
        f"{'; '.join(names)} {WHY[state][len(names) > 1]}{reason and ': ' + reason}"
        for (state, reason), names in by_reason.items()
    ]
