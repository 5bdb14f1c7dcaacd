"""What changed between two predictions, as blocks: for `diff`'s page, and a report on two runs.

blocks = changes_blocks(result, a, b, changed, packed, names, lang.of("en"))
"""

from __future__ import annotations

import numpy as np

from relaunch.data_prep.packed import Packed
from relaunch.trainers.compare import changes, passages
from relaunch.trainers.compare.predictions import Predictions, told
from relaunch.trainers.pages import numbers
from relaunch.trainers.pages.blocks import Code, Facts, Gallery, Heading, Item, Note, Prose, Table
from relaunch.trainers.pages.lang import Say
from relaunch.trainers.pages.thumbs import thumb

TILES = 240  # images of a page: as many as anybody looks through, and a page of a few MB at most
ROWS = 30  # of a table of classes, or of samples
# numbers of diff.json beside those that have a place below: key -> (what it is called, its unit)
KNOWN: dict[str, tuple[str, str]] = {}


def changes_blocks(
    result: dict,
    a: Predictions,
    b: Predictions,
    changed: np.ndarray,
    packed: Packed | None,
    names: list[str],
    say: Say,
    passages_shown: int = 5,
) -> list:
    """`result` and `changed` are `changes.compare`'s, with each side's facts under "a" and "b"."""
    blocks: list = [sides(result, a, say), quality(a, b, say)]
    if result["identical"]:
        same = say("No differences: all {n:,} predictions are the same, to the bit.", n=result["n"])
        return [*blocks, Prose(same)]
    blocks += [flips(result, a, say), *more(result, say)]
    if a.roles.classes:
        blocks += per_class(result, a, say)
    if a.roles.view == "text":
        return [*blocks, *texts(a, b, packed, names, passages_shown, say)]
    return [*blocks, *samples(result, a, b, changed, packed, names, say)]


def sides(result: dict, a: Predictions, say: Say) -> Facts:
    rows = []
    for letter in "ab":
        side = result[letter]
        step = say("foreign weights") if side["step"] is None else say("step {step:,}", step=side["step"])
        inputs = f"\n{told(side['inputs'])}" if "mean" in side.get("inputs", {}) else ""
        rows.append((letter.upper(), f"{side['name']}, {step}{inputs}"))
    data = f"{a.facts['data']}/{a.facts['split']}, {result['n']:,} {say(a.roles.rows)}"
    return Facts([*rows, (say("data"), data)])


def quality(a: Predictions, b: Predictions, say: Say) -> Table:
    rows = []
    for (key, x), y in zip(changes.quality(a).items(), changes.quality(b).values()):
        known = x is not None and y is not None
        change = f"{y - x:+.2f}" if key in changes.PERCENT_OR_LARGE else f"{y - x:+.4f}" if known else "–"
        rows.append(
            [
                say(numbers.NAMES.get(key, (key, ""))[0]),
                numbers.metric(key, x),
                numbers.metric(key, y),
                change,
            ]
        )
    return Table(["", "A", "B", "B − A"], rows)


def flips(result: dict, a: Predictions, say: Say) -> Table:
    n = result["n"]
    labels, p, test = (
        (changes.FLIPS, result["mcnemar_p"], "McNemar's exact p")
        if a.roles.classes
        else (changes.MOVES, result["sign_p"], "exact p of the sign test")
    )
    rows = [[say("agree"), f"{result['agree']:,}", numbers.percent(result["agree"], n, 2)]]
    rows += [
        [say(text), f"{result[key]:,}", numbers.percent(result[key], n, 2)] for key, text in labels.items()
    ]
    chance = f"{p:.3g}" if p else say("below 1e-300")
    caption = f"{say(test)} {chance}: {say(changes.verdict(result))}"
    return Table(["", say("samples"), say("share")], rows, caption)


def more(result: dict, say: Say) -> list:
    """The other numbers of the result that have a name."""
    rows = []
    for key, (text, unit) in KNOWN.items():
        value = result.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            rows.append((say(text), f"{value:,.4g}" + (f" {unit}" if unit else "")))
    return [Facts(rows)] if rows else []


def per_class(result: dict, a: Predictions, say: Say) -> list:
    shown = result["classes"][:ROWS]
    if not shown:
        return []
    keys = ("n", "right_a", "right_b", *changes.FLIPS)
    head = [
        say("word" if a.roles.view == "text" else "class"),
        say("samples"),
        say("right in A"),
        say("right in B"),
    ]
    head += [say(text) for text in changes.FLIPS.values()]
    rows = [[c["name"], *(f"{c[key]:,}" for key in keys)] for c in shown]
    caption = say("Where it changed, most changes first")
    if len(result["classes"]) > len(shown):
        caption += say(": {n} of {total} classes", n=len(shown), total=f"{len(result['classes']):,}")
    return [Heading(say("Per class"), 3), Table(head, rows, caption, sortable=True)]


def kinds(a: Predictions, b: Predictions, ids: np.ndarray) -> list[str]:
    """Of each sample, which way it changed: a text of changes.FLIPS or MOVES."""
    if a.roles.classes:
        right_a, right_b = a.guess[ids] == a.truth[ids], b.guess[ids] == b.truth[ids]
        lost, gained, other = changes.FLIPS.values()
        return np.where(right_a, lost, np.where(right_b, gained, other)).tolist()
    change = b.loss[ids].astype(np.float64) - a.loss[ids]
    rose, fell, same = changes.MOVES.values()
    return np.where(change > 0, rose, np.where(change < 0, fell, same)).tolist()


def chosen(kind: list[str], limit: int) -> list[int]:
    """Places of at most `limit` samples, in order: the first ones of each kind, so that none is empty."""
    if len(kind) <= limit:
        return [*range(len(kind))]
    places: dict[str, list[int]] = {}
    for place, each in enumerate(kind):
        places.setdefault(each, []).append(place)
    quota = limit // len(places)
    taken = {place for found in places.values() for place in found[:quota]}
    for place in range(len(kind)):  # what the rare kinds leave goes to the first of all
        if len(taken) >= limit:
            break
        taken.add(place)
    return sorted(taken)


def samples(
    result: dict,
    a: Predictions,
    b: Predictions,
    changed: np.ndarray,
    packed: Packed | None,
    names: list[str],
    say: Say,
) -> list:
    """The samples that changed, with their images where the data is here."""
    kind = kinds(a, b, changed)
    places = chosen(kind, TILES)
    ids = [int(changed[place]) for place in places]
    pictures = packed.images(a.facts["split"]) if packed and a.roles.view == "images" else None
    items = [
        tile(i, say(kind[place]), a, b, names, thumb(pictures[i]) if pictures is not None else b"", say)
        for place, i in zip(places, ids)
    ]
    if not items:
        return []
    first = say("the most confident first" if a.roles.classes else "the furthest moved first")
    caption = say("{n:,} of {total:,} that changed, {first}.", n=len(items), total=len(changed), first=first)
    if len(items) < len(changed):
        caption += " " + say("Of each kind of change the first ones are here; all are in changed.parquet.")
    heading = Heading(say("What changed"), 3)
    if pictures is None and a.roles.view == "images":
        data = f"{a.facts['data']} (hash {a.facts['data_hash'][:12]})"
        note = Note(say("No images: the data set {data} is not here; add --data-root FOLDER.", data=data))
        return [heading, note, Gallery(items, len(changed), caption)]
    return [heading, Gallery(items, len(changed), caption)]


def tile(i: int, kind: str, a: Predictions, b: Predictions, names: list[str], image: bytes, say: Say) -> Item:
    values = {say("loss of B − loss of A"): float(b.loss[i]) - float(a.loss[i])}
    groups = {say("change"): kind}
    title, lines = f"#{i}", []
    if a.roles.classes:
        title += f" {names[a.truth[i]]}"
        groups |= {say("truth"): names[a.truth[i]]}
        for letter, p in (("A", a), ("B", b)):
            sign = "✓" if p.guess[i] == p.truth[i] else "✗"
            sure = "" if p.sure is None else f" {100 * p.sure[i]:.0f} %"
            lines.append(f"{sign} {letter}: {names[p.guess[i]]}{sure}")
            groups[say("{side} says", side=letter)] = names[p.guess[i]]
            if p.sure is not None:
                values[say("confidence of {side}", side=letter)] = float(p.sure[i])
        if a.sure is not None and b.sure is not None:
            values = {say("confidence"): float(changes.confidence(a, b)[i])} | values
    else:
        if a.truth is not None:
            title += f": {changes.number(a.truth[i])}"
        for letter, p in (("A", a), ("B", b)):
            guess = "" if p.guess is None else f"{changes.number(p.guess[i])}, "
            lines.append(f"{letter}: {guess}{say('loss')} {p.loss[i]:.4g}")
    return Item(image, title, lines, groups, values)


def texts(
    a: Predictions, b: Predictions, packed: Packed | None, names: list[str], count: int, say: Say
) -> list:
    """The passages whose loss moved most."""
    if not packed:
        return [Note(say("No passages: the data set is not here; add --data-root FOLDER."))]
    words = [names[i] for i in packed.tokens(a.facts["split"])]
    change, blocks = b.loss.astype(np.float64) - a.loss, []
    for heading, sign in (("Where B is worse than A", 1), ("Where B is better than A", -1)):
        blocks.append(Heading(say(heading), 3))
        starts = passages.moved(sign * change, count)
        for start in starts:
            rows = slice(start, min(start + passages.LENGTH, len(change)))
            x, y = (p.loss[rows].mean(dtype=np.float64) for p in (a, b))
            text = say("Words {first:,} to {last:,}", first=start + 1, last=rows.stop)
            blocks.append(Prose(f"{text}: {x:.2f} → {y:.2f} {say('nats a word')} ({y - x:+.2f})"))
            blocks.append(Code("\n".join(passages.block(words, a.loss, b.loss, rows)).rstrip()))
        blocks += [] if starts else [Prose(say("Nowhere."))]
    return blocks
