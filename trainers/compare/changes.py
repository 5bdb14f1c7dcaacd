"""What changed between two Predictions of the same samples: the numbers, and the lines that show them.

result, changed = compare(a, b, names)
"\\n".join(report(result, a, b, changed, names, top=10))
"""

from __future__ import annotations

import math

import numpy as np

from relaunch.data_prep.names import shortened, table
from relaunch.trainers.compare import words
from relaunch.trainers.compare.predictions import OLD_TASKS, Predictions, told


def compare(a: Predictions, b: Predictions, names: list[str]) -> tuple[dict, np.ndarray]:
    """(what goes into diff.json, ids of the samples to look at, the first one first).

    Of classes these are the samples whose prediction changed, the most confident first: a changed sample's
    confidence is the mean of both, how sure the two were of verdicts of which one is wrong. Of numbers, the
    samples of which anything differs, the one whose loss moved furthest first. Percentages are 0..100;
    `names` are those of the classes.
    """
    change = b.loss.astype(np.float64) - a.loss
    about = {
        "n": len(a),
        "identical": all(np.array_equal(a.columns[c], b.columns[c], equal_nan=True) for c in a.columns),
        "largest_loss_change": strict(np.abs(change).max()),
    }
    if a.roles.classes:
        numbers, changed = of_classes(a, b, names)
    else:
        numbers, changed = of_numbers(a, b, change)
    return {**about, **numbers, "changed": changed.tolist()}, changed


def of_classes(a: Predictions, b: Predictions, names: list[str]) -> tuple[dict, np.ndarray]:
    right_a, right_b, differ = a.guess == a.truth, b.guess == b.truth, a.guess != b.guess
    flips = {
        "right_to_wrong": right_a & ~right_b,
        "wrong_to_right": ~right_a & right_b,
        "wrong_to_other_wrong": differ & ~right_a & ~right_b,
    }
    changed = np.flatnonzero(differ)
    changed = changed[np.argsort(-confidence(a, b)[changed], kind="stable")]
    masks = {"n": np.ones(len(a), bool), "right_a": right_a, "right_b": right_b, **flips}
    of_class = {key: np.bincount(a.truth[mask], minlength=len(names)) for key, mask in masks.items()}
    flipped = sum(of_class[key] for key in flips)
    classes = [
        {"class": int(c), "name": names[c], **{key: int(counts[c]) for key, counts in of_class.items()}}
        for c in np.argsort(-flipped, kind="stable")
        if flipped[c]
    ]
    counts = {key: int(mask.sum()) for key, mask in flips.items()}
    same = len(a) - len(changed)
    return {
        "agree": same,
        "agreement": percent(same, len(a)),
        "both_right": int((right_a & right_b).sum()),
        **counts,
        "mcnemar_p": fair_coins(counts["right_to_wrong"], counts["wrong_to_right"]),
        "classes": classes,
    }, changed


def of_numbers(a: Predictions, b: Predictions, change: np.ndarray) -> tuple[dict, np.ndarray]:
    """`change` [N] of each sample's loss. To agree is to be the same in every column: two guesses may lie on
    either side of the truth and have one loss.
    """
    differ = np.zeros(len(a), bool)
    for name, column in a.columns.items():
        other = b.columns[name]
        same = (column == other) | ((column != column) & (other != other))  # NaN is not NaN
        differ |= ~same.reshape(len(a), -1).all(1)
    moved = np.flatnonzero(differ)
    rose, fell = change > 0, change < 0
    same = len(a) - len(moved)
    return {
        "agree": same,
        "agreement": percent(same, len(a)),
        "worse": int(rose.sum()),
        "better": int(fell.sum()),
        "same_loss": int((differ & ~rose & ~fell).sum()),
        "sign_p": fair_coins(int(rose.sum()), int(fell.sum())),
        "mean_loss_change": strict(change.mean()),
    }, moved[np.argsort(-np.abs(change[moved]), kind="stable")]


def fair_coins(lost: int, gained: int) -> float:
    """The chance that as many fair coins fall as unevenly: the exact two-sided p of McNemar's test (1947) on
    right and wrong, and of the sign test on losses that rose and fell.
    """
    n, k = lost + gained, min(lost, gained)
    term = total = math.comb(n, k)
    for i in range(k, 0, -1):  # C(n, i - 1) from C(n, i), the largest first
        term = term * i // (n - i + 1)
        total += term
        if term < total >> 80:  # what is left is far beyond a float's 53 bits
            break
    return min(1.0, 2 * total / (1 << n))


def quality(p: Predictions) -> dict[str, float | None]:
    """Right predictions in percent where there are classes, and the metrics of the evaluation."""
    right = {"top1": percent((p.guess == p.truth).sum(), len(p))} if p.roles.classes else {}
    if "metrics" in p.facts:
        return right | p.facts["metrics"]
    rows = p.columns  # of schema 1
    return right | {name: strict(v) for name, v in OLD_TASKS[p.facts["kind"]].summarise(rows).items()}


def confidence(a: Predictions, b: Predictions) -> np.ndarray:
    """float64 [N]: the mean of both; 0 where the predictions do not say."""
    if a.sure is None or b.sure is None:
        return np.zeros(len(a))
    return (a.sure.astype(np.float64) + b.sure) / 2


def percent(part: int, whole: int) -> float:
    return 100 * int(part) / whole


def strict(value: float) -> float | None:
    """None for what JSON has no number for."""
    return float(value) if math.isfinite(value) else None


# for the terminal ---------------------------------------------------------------------------------

LABELS = {"top1": "top-1 %", "top5": "top-5 %", "loss": "loss, nats", "nll": "nll, nats", "ppl": "perplexity"}
OF_NUMBERS = {"mae": "mean absolute error", "r2": "R2"}
PERCENT_OR_LARGE = ("top1", "top5", "ppl")
MOVES = {"worse": "loss rose", "better": "loss fell", "same_loss": "differs, loss the same"}
FLIPS = {
    "right_to_wrong": "right -> wrong",
    "wrong_to_right": "wrong -> right",
    "wrong_to_other_wrong": "wrong -> other wrong",
}


def report(
    result: dict, a: Predictions, b: Predictions, changed: np.ndarray, names: list[str], top: int
) -> list[str]:
    """Lines: what was compared, how good both are, and the `top` classes and samples that changed most.

    `result` is `compare`'s, and under "a" and "b" what is known of each; `changed` are `compare`'s ids.
    """
    n, of_words = result["n"], a.roles.view == "text"
    lines = []
    for letter in "ab":
        side = result[letter]
        step = "foreign weights" if side["step"] is None else f"step {side['step']}"
        lines.append(f"{letter.upper()}  {side['name']}  ({step}, {side['predictions']})")
        if "mean" in (inputs := side.get("inputs", {})):
            lines.append(f"   {told(inputs)}")
        elif a.roles.view == "images":
            lines.append(
                "   normalised by the mean and deviation of the data below (a file of 0.2 or before)"
            )
    lines += [f"on {a.facts['data']}/{a.facts['split']}, {n:,} {a.roles.rows}", ""]
    rows = [["", "A", "B", "B - A"]]
    for (key, x), y in zip(quality(a).items(), quality(b).values()):
        x, y = (math.nan if v is None else v for v in (x, y))
        style = ",.2f" if key in PERCENT_OR_LARGE else ",.4f" if key in LABELS else ",.5g"
        labels = LABELS if a.roles.classes else OF_NUMBERS
        label = "next word right %" if of_words and key == "top1" else labels.get(key, key)
        rows.append([label, f"{x:{style}}", f"{y:{style}}", f"{y - x:+{style}}"])
    lines += [*table(rows), ""]
    answers = dict(words.asked(result))
    if result["identical"]:
        lines.append(f"no differences: all {n:,} predictions are the same, to the bit of every column")
        return [*lines, *told_answers({q: found for q, found in answers.items() if q == words.CAUSES})]
    labels = FLIPS if a.roles.classes else MOVES
    lines.append(words.BETTER)
    rows = [["agree", f"{result['agree']:,} of {n:,}", f"{result['agreement']:.2f} %"]]
    rows += [[label, f"{result[key]:,}", f"{percent(result[key], n):.2f} %"] for key, label in labels.items()]
    lines += table(rows)
    lines += [
        f"{test} {'' if said[0] == 'b' else '= '}{said}" for test, said in answers.pop(words.BETTER).items()
    ]
    if result["largest_loss_change"] is not None:
        unit = " nats" if a.roles.classes else ""
        lines.append(f"no sample's loss moved by more than {result['largest_loss_change']:.3g}{unit}")
    lines += told_answers(answers)
    if not len(changed):
        return lines
    if not a.roles.classes:
        return [*lines, "", *table(numbers_that_moved(a, b, changed[:top]))]
    shown = result["classes"][:top]
    rows = [["word" if of_words else "class", "n", "right in A", "right in B", *FLIPS.values()]]
    rows += [
        [short(c["name"]), *(f"{c[key]:,}" for key in ("n", "right_a", "right_b", *FLIPS))] for c in shown
    ]
    more = len(result["classes"]) - len(shown)
    lines += ["", *table(rows), *[f"and {more:,} more in diff.json"] * (more > 0)]
    rows = [["changed, most confident first", "truth", "A", "", "", "B", "", ""]]
    for i in changed[:top]:
        verdicts = [
            (
                short(names[p.guess[i]]),
                "" if p.sure is None else f"{100 * p.sure[i]:.1f} %",
                "right" if p.guess[i] == p.truth[i] else "wrong",
            )
            for p in (a, b)
        ]
        rows.append([f"#{i}", short(names[a.truth[i]]), *verdicts[0], *verdicts[1]])
    return [*lines, "", *table(rows)]


def told_answers(answers: dict[str, dict[str, str]]) -> list[str]:
    """Of `words.asked`: each question, and below it what answers it."""
    lines = []
    for question, found in answers.items():
        lines += ["", question]
        if question == words.CAUSES:  # sentences
            lines += [f"  {label}: {said}" for label, said in found.items()]
        else:
            lines += [f"  {line}" for line in table([[label, said] for label, said in found.items()])]
    return lines


def numbers_that_moved(a: Predictions, b: Predictions, ids: np.ndarray) -> list[list[str]]:
    """Rows: the truth, where there is one, both guesses and both losses."""
    known = a.truth is not None and a.guess is not None
    rows = [["moved most", *["truth", "A", "B"] * known, "loss of A", "loss of B", "B - A"]]
    for i in ids:
        told_row = [number(x) for x in (a.truth[i], a.guess[i], b.guess[i])] if known else []
        change = float(b.loss[i]) - float(a.loss[i])
        rows.append([f"#{i}", *told_row, f"{a.loss[i]:.4g}", f"{b.loss[i]:.4g}", f"{change:+.4g}"])
    return rows


def number(value) -> str:
    """A number, or several of one sample."""
    return short(" ".join(f"{v:.4g}" for v in np.atleast_1d(value)))


def short(name: str) -> str:
    return shortened(name, 24)
