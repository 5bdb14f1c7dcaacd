"""What changed between two Predictions of the same samples: the numbers, and the lines that show them.

result, changed = compare(a, b, names)
"\\n".join(report(result, a, b, changed, names, top=10))
"""

from __future__ import annotations

import math

import numpy as np

from relaunch.trainers.compare.predictions import Predictions


def compare(a: Predictions, b: Predictions, names: list[str]) -> tuple[dict, np.ndarray]:
    """(what goes into diff.json, ids whose prediction changed, the most confident first).

    A changed sample's confidence is the mean of both: how sure the two were of verdicts of which one is
    wrong. Percentages are 0..100, losses in nats; `names` are those of the classes (text: of the words).
    """
    right_a, right_b, differ = a.pred == a.label, b.pred == b.label, a.pred != b.pred
    flips = {
        "right_to_wrong": right_a & ~right_b,
        "wrong_to_right": ~right_a & right_b,
        "wrong_to_other_wrong": differ & ~right_a & ~right_b,
    }
    changed = np.flatnonzero(differ)
    changed = changed[np.argsort(-confidence(a, b)[changed], kind="stable")]
    masks = {"n": np.ones(len(a), bool), "right_a": right_a, "right_b": right_b, **flips}
    of_class = {key: np.bincount(a.label[mask], minlength=len(names)) for key, mask in masks.items()}
    flipped = sum(of_class[key] for key in flips)
    classes = [
        {"class": int(c), "name": names[c], **{key: int(counts[c]) for key, counts in of_class.items()}}
        for c in np.argsort(-flipped, kind="stable")
        if flipped[c]
    ]
    counts = {key: int(mask.sum()) for key, mask in flips.items()}
    same = len(a) - len(changed)
    return {
        "n": len(a),
        "identical": all(
            np.array_equal(getattr(a, c), getattr(b, c), equal_nan=True)
            for c in ("pred", "confidence", "nll")
        ),
        "agree": same,
        "agreement": percent(same, len(a)),
        "both_right": int((right_a & right_b).sum()),
        **counts,
        "mcnemar_p": mcnemar(counts["right_to_wrong"], counts["wrong_to_right"]),
        "largest_nll_change": strict(np.abs(b.nll.astype(np.float64) - a.nll).max()),
        "classes": classes,
        "changed": changed.tolist(),
    }, changed


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p of McNemar's test (1947): the chance that as many fair coins fall as unevenly."""
    n, k = lost + gained, min(lost, gained)
    term = total = math.comb(n, k)
    for i in range(k, 0, -1):  # C(n, i - 1) from C(n, i), the largest first
        term = term * i // (n - i + 1)
        total += term
        if term < total >> 80:  # what is left is far beyond a float's 53 bits
            break
    return min(1.0, 2 * total / (1 << n))


def quality(p: Predictions) -> dict[str, float | None]:
    """Right predictions in percent and the mean loss in nats."""
    nll = float(p.nll.mean(dtype=np.float64))
    right = {"top1": percent((p.pred == p.label).sum(), len(p))}
    if p.top5 is not None:
        return right | {
            "top5": percent((p.top5 == p.label[:, None]).any(1).sum(), len(p)),
            "loss": strict(nll),
        }
    return right | {"nll": strict(nll), "ppl": strict(math.exp(min(nll, 700.0)))}


def confidence(a: Predictions, b: Predictions) -> np.ndarray:
    return (a.confidence.astype(np.float64) + b.confidence) / 2


def percent(part: int, whole: int) -> float:
    return 100 * int(part) / whole


def strict(value: float) -> float | None:
    """None for what JSON has no number for."""
    return float(value) if math.isfinite(value) else None


# for the terminal ---------------------------------------------------------------------------------

LABELS = {"top1": "top-1 %", "top5": "top-5 %", "loss": "loss, nats", "nll": "nll, nats", "ppl": "perplexity"}
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
    text, n = a.facts["kind"] == "text", result["n"]
    lines = []
    for letter in "ab":
        side = result[letter]
        step = "foreign weights" if side["step"] is None else f"step {side['step']}"
        lines.append(f"{letter.upper()}  {side['name']}  ({step}, {side['predictions']})")
    lines += [f"on {a.facts['data']}/{a.facts['split']}, {n:,} {'words' if text else 'images'}", ""]
    rows = [["", "A", "B", "B - A"]]
    for (key, x), y in zip(quality(a).items(), quality(b).values()):
        x, y = (math.nan if v is None else v for v in (x, y))
        digits = 4 if key in ("loss", "nll") else 2
        label = "next word right %" if text and key == "top1" else LABELS[key]
        rows.append([label, f"{x:,.{digits}f}", f"{y:,.{digits}f}", f"{y - x:+,.{digits}f}"])
    lines += [*table(rows), ""]
    if result["identical"]:
        return [
            *lines,
            f"no differences: all {n:,} predictions are the same, to the bit of their confidence and loss",
        ]
    rows = [["agree", f"{result['agree']:,} of {n:,}", f"{result['agreement']:.2f} %"]]
    rows += [[label, f"{result[key]:,}", f"{percent(result[key], n):.2f} %"] for key, label in FLIPS.items()]
    p = result["mcnemar_p"]
    lines += [*table(rows), f"McNemar's exact p {f'= {p:.3g}' if p else 'below 1e-300'}: {verdict(result)}"]
    if result["largest_nll_change"] is not None:
        lines.append(f"no sample's loss moved by more than {result['largest_nll_change']:.3g} nats")
    if not len(changed):
        return lines
    shown = result["classes"][:top]
    rows = [["word" if text else "class", "n", "right in A", "right in B", *FLIPS.values()]]
    rows += [
        [short(c["name"]), *(f"{c[key]:,}" for key in ("n", "right_a", "right_b", *FLIPS))] for c in shown
    ]
    more = len(result["classes"]) - len(shown)
    lines += ["", *table(rows), *[f"and {more:,} more in diff.json"] * (more > 0)]
    rows = [["changed, most confident first", "truth", "A", "", "", "B", "", ""]]
    for i in changed[:top]:
        verdicts = [
            (
                short(names[p.pred[i]]),
                f"{100 * p.confidence[i]:.1f} %",
                "right" if p.pred[i] == p.label[i] else "wrong",
            )
            for p in (a, b)
        ]
        rows.append([f"#{i}", short(names[a.label[i]]), *verdicts[0], *verdicts[1]])
    return [*lines, "", *table(rows)]


def verdict(result: dict) -> str:
    lost, gained = result["right_to_wrong"], result["wrong_to_right"]
    if lost + gained == 0:
        return "both are right on the same samples"
    if result["mcnemar_p"] >= 0.05:  # the customary level
        return "fair coins would often differ as much"
    return f"{'B' if gained > lost else 'A'} is right more often, beyond chance"


def short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def table(rows: list[list[str]]) -> list[str]:
    """Aligned lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]
        ).rstrip()
        for row in rows
    ]
