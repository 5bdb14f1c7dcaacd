"""What changed between two predictions, as blocks: for `diff`'s page, and a report on two runs.

blocks = changes_blocks(result, a, b, changed, packed, names)
"""

from __future__ import annotations

import numpy as np

from relaunch.data_prep.packed import Packed
from relaunch.trainers.compare import changes, passages, words
from relaunch.trainers.compare.predictions import Predictions, told
from relaunch.trainers.pages import numbers
from relaunch.trainers.pages.blocks import Code, Facts, Gallery, Heading, Item, Note, Prose, Table
from relaunch.trainers.pages.thumbs import thumb

TILES = 240  # images of a page: as many as anybody looks through, and a page of a few MB at most
ROWS = 30  # of a table of classes, or of samples


def changes_blocks(
    result: dict,
    a: Predictions,
    b: Predictions,
    changed: np.ndarray,
    packed: Packed | None,
    names: list[str],
    passages_shown: int = 5,
) -> list:
    """`result` and `changed` are `changes.compare`'s, with each side's facts under "a" and "b"."""
    blocks: list = [sides(result, a), quality(a, b)]
    if result["identical"]:
        known = ("weights", "settings", *words.TESTS, "right_to_wrong", "wrong_to_right", "worse", "better")
        blocks += questions({key: result[key] for key in known if key in result})
        same = f"No differences: all {result['n']:,} predictions are the same, to the bit."
        return [*blocks, Prose(same)]
    blocks += [flips(result, a), *questions(result)]
    if a.roles.classes:
        blocks += per_class(result, a)
    if a.roles.view == "text":
        return [*blocks, *texts(a, b, packed, names, passages_shown)]
    return [*blocks, *samples(result, a, b, changed, packed, names)]


def sides(result: dict, a: Predictions) -> Facts:
    rows = []
    for letter in "ab":
        side = result[letter]
        step = "foreign weights" if side["step"] is None else f"step {side['step']:,}"
        inputs = f"\n{told(side['inputs'])}" if "mean" in side.get("inputs", {}) else ""
        rows.append((letter.upper(), f"{side['name']}, {step}{inputs}"))
    data = f"{a.facts['data']}/{a.facts['split']}, {result['n']:,} {a.roles.rows}"
    return Facts([*rows, ("data", data)])


def quality(a: Predictions, b: Predictions) -> Table:
    rows = []
    for (key, x), y in zip(changes.quality(a).items(), changes.quality(b).values()):
        known = x is not None and y is not None
        change = f"{y - x:+.2f}" if key in changes.PERCENT_OR_LARGE else f"{y - x:+.4f}" if known else "–"
        rows.append(
            [
                numbers.NAMES.get(key, (key, ""))[0],
                numbers.metric(key, x),
                numbers.metric(key, y),
                change,
            ]
        )
    return Table(["", "A", "B", "B − A"], rows)


def flips(result: dict, a: Predictions) -> Table:
    n, labels = result["n"], changes.FLIPS if a.roles.classes else changes.MOVES
    rows = [["agree", f"{result['agree']:,}", numbers.percent(result["agree"], n, 2)]]
    rows += [[text, f"{result[key]:,}", numbers.percent(result[key], n, 2)] for key, text in labels.items()]
    return Table(["", "samples", "share"], rows)


def questions(result: dict) -> list:
    """Which of the numbers answers what."""
    blocks: list = []
    for question, answers in words.asked(result):
        blocks += [Heading(question, 3), Facts(list(answers.items()))]
    return blocks


def per_class(result: dict, a: Predictions) -> list:
    shown = result["classes"][:ROWS]
    if not shown:
        return []
    keys = ("n", "right_a", "right_b", *changes.FLIPS)
    head = [
        "word" if a.roles.view == "text" else "class",
        "samples",
        "right in A",
        "right in B",
    ]
    head += [text for text in changes.FLIPS.values()]
    rows = [[c["name"], *(f"{c[key]:,}" for key in keys)] for c in shown]
    caption = "Where it changed, most changes first"
    if len(result["classes"]) > len(shown):
        caption += f": {len(shown)} of {len(result['classes']):,} classes"
    return [Heading("Per class", 3), Table(head, rows, caption, sortable=True)]


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
) -> list:
    """The samples that changed, with their images where the data is here."""
    kind = kinds(a, b, changed)
    places = chosen(kind, TILES)
    ids = [int(changed[place]) for place in places]
    pictures = packed.images(a.facts["split"]) if packed and a.roles.view == "images" else None
    items = [
        tile(i, kind[place], a, b, names, thumb(pictures[i]) if pictures is not None else b"")
        for place, i in zip(places, ids)
    ]
    if not items:
        return []
    first = "the most confident first" if a.roles.classes else "the furthest moved first"
    caption = f"{len(items):,} of {len(changed):,} that changed, {first}."
    if len(items) < len(changed):
        caption += " " + "Of each kind of change the first ones are here."
    heading = Heading("What changed", 3)
    if pictures is None and a.roles.view == "images":
        data = f"{a.facts['data']} (hash {a.facts['data_hash'][:12]})"
        note = Note(f"No images: the data set {data} is not here; add --data-root FOLDER.")
        return [heading, note, Gallery(items, len(changed), caption)]
    return [heading, Gallery(items, len(changed), caption)]


def tile(i: int, kind: str, a: Predictions, b: Predictions, names: list[str], image: bytes) -> Item:
    values = {"loss of B − loss of A": float(b.loss[i]) - float(a.loss[i])}
    groups = {"change": kind}
    title, lines = f"#{i}", []
    if a.roles.classes:
        title += f" {names[a.truth[i]]}"
        groups |= {"truth": names[a.truth[i]]}
        for letter, p in (("A", a), ("B", b)):
            sign = "✓" if p.guess[i] == p.truth[i] else "✗"
            sure = "" if p.sure is None else f" {100 * p.sure[i]:.0f} %"
            lines.append(f"{sign} {letter}: {names[p.guess[i]]}{sure}")
            groups[f"{letter} says"] = names[p.guess[i]]
            if p.sure is not None:
                values[f"confidence of {letter}"] = float(p.sure[i])
        if a.sure is not None and b.sure is not None:
            values = {"confidence": float(changes.confidence(a, b)[i])} | values
    else:
        if a.truth is not None:
            title += f": {changes.number(a.truth[i])}"
        for letter, p in (("A", a), ("B", b)):
            guess = "" if p.guess is None else f"{changes.number(p.guess[i])}, "
            lines.append(f"{letter}: {guess}loss {p.loss[i]:.4g}")
    return Item(image, title, lines, groups, values)


def texts(a: Predictions, b: Predictions, packed: Packed | None, names: list[str], count: int) -> list:
    """The passages whose loss moved most."""
    if not packed:
        return [Note("No passages: the data set is not here; add --data-root FOLDER.")]
    read = [names[i] for i in packed.tokens(a.facts["split"])]
    change, blocks = b.loss.astype(np.float64) - a.loss, []
    for heading, sign in (("Where B is worse than A", 1), ("Where B is better than A", -1)):
        blocks.append(Heading(heading, 3))
        starts = passages.moved(sign * change, count)
        for start in starts:
            rows = slice(start, min(start + passages.LENGTH, len(change)))
            x, y = (p.loss[rows].mean(dtype=np.float64) for p in (a, b))
            text = f"Words {start + 1:,} to {rows.stop:,}"
            blocks.append(Prose(f"{text}: {x:.2f} → {y:.2f} nats a word ({y - x:+.2f})"))
            blocks.append(Code("\n".join(passages.block(read, a.loss, b.loss, rows)).rstrip()))
        blocks += [] if starts else [Prose("Nowhere.")]
    return blocks
