"""What experts ask of two models beside who is better: the numbers, and their labels for terminal and page.

    numbers = of_classes(a, b, outputs)        # into diff.json, beside changes.compare's
    for question, answers in asked(result):    # answers: label -> value, as people read it

Negative flip rate: Yan et al., CVPR 2021. Churn: Milani Fard et al., NeurIPS 2016. Backward trust
compatibility: Bansal et al., AAAI 2019; of errors: Srivastava et al., KDD 2020. Expected calibration error:
Guo et al., ICML 2017.
"""

from __future__ import annotations

import math

import numpy as np

from relaunch.data_prep.names import listed
from relaunch.trainers.compare.predictions import Predictions

BINS = 15  # of confidence, equally wide
PERCENT, POINTS, NATS, LOSS = "{:.2f} %", "{:+.2f} points", "{:.4g} nats", "{:+.4g}"

# field of diff.json (of its `twin`: twin.field) -> what people read, and how the number is written
LABELS = {
    "negative_flip_rate": ("negative flip rate: right in A, wrong in B", PERCENT),
    "churn": ("churn: predicted otherwise", PERCENT),
    "trust_compatibility": ("backward trust compatibility: of what A has right, B has right", PERCENT),
    "error_compatibility": ("backward error compatibility: of what B has wrong, A has wrong", PERCENT),
    "kl": ("mean KL(A || B) of the outputs", NATS),
    "calibration_error_a": (f"A's expected calibration error, {BINS} equal bins", PERCENT),
    "calibration_error_b": (f"B's expected calibration error, {BINS} equal bins", PERCENT),
    "calibration_change": ("its change, B - A (below 0: B knows better how sure to be)", POINTS),
    "twin.churn": ("churn of chance: A and its twin", PERCENT),
    "twin.negative_flip_rate": ("negative flip rate of chance: right in A, wrong in its twin", PERCENT),
    "twin.accuracy_change": ("accuracy, twin - A", POINTS),
    "twin.mean_loss_change": ("mean loss, twin - A", LOSS),
}
BETTER = "Is one of these two checkpoints the better one?"
USERS = "What changes for those who rely on A?"
OUTPUTS = "Are the outputs as sure as they are right?"
CHANCE = "How much would another seed alone change?"
CAUSES = "What differs between the two models?"
TESTS = {"mcnemar_p": "McNemar's exact p", "sign_p": "exact p of the sign test"}
QUESTIONS = {
    USERS: ("negative_flip_rate", "churn", "trust_compatibility", "error_compatibility"),
    OUTPUTS: ("kl", "calibration_error_a", "calibration_error_b", "calibration_change"),
    CHANCE: tuple(name for name in LABELS if name.startswith("twin.")),
}


def of_classes(a: Predictions, b: Predictions, outputs: tuple[np.ndarray, np.ndarray] | None) -> dict:
    """diff.json's fields of LABELS, in percent (points, nats); what cannot be said is not in it.

    `outputs`: what both models said, logits [N,classes] each.
    """
    right_a, right_b = a.guess == a.truth, b.guess == b.truth
    found = {
        "negative_flip_rate": share(right_a & ~right_b, len(a)),
        "churn": share(a.guess != b.guess, len(a)),
        "trust_compatibility": share(right_a & right_b, int(right_a.sum())),
        "error_compatibility": share(~right_a & ~right_b, int((~right_b).sum())),
        "kl": kl(*outputs) if outputs else None,
    }
    if a.sure is not None and b.sure is not None:
        errors = calibration_error(a.sure, right_a), calibration_error(b.sure, right_b)
        found |= {"calibration_error_a": errors[0], "calibration_error_b": errors[1]}
        if None not in errors:
            found["calibration_change"] = errors[1] - errors[0]
    return {name: value for name, value in found.items() if value is not None}


def share(chosen: np.ndarray, whole: int) -> float | None:
    """Percent; None of nothing."""
    return 100 * int(chosen.sum()) / whole if whole else None


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float | None:
    """Percent: |share that is right - mean confidence| in each of BINS bins (l, u], weighted by its samples.

    None where a confidence is not finite.
    """
    if not np.isfinite(sure).all():
        return None
    bins = np.clip(np.ceil(sure.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.bincount(bins, right - sure.astype(np.float64), BINS)  # of sums: the counts cancel
    return 100 * float(np.abs(gap).sum()) / len(sure)


def kl(a: np.ndarray, b: np.ndarray, at_a_time: int = 4096) -> float | None:
    """The mean over samples of sum p_A (log p_A - log p_B), nats, of logits [N,classes]; None if infinite."""
    total = 0.0
    for first in range(0, len(a), at_a_time):
        p, q = (log_softmax(x[first : first + at_a_time].astype(np.float64)) for x in (a, b))
        with np.errstate(invalid="ignore"):
            terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))  # what A rules out costs nothing
        total += float(terms.sum())
    return total / len(a) if math.isfinite(total) else None


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def of_twin(name: str, a: Predictions, twin: Predictions) -> dict:
    """diff.json's `twin`: what another seed of A's recipe alone changes."""
    found = {"name": name, "predictions": str(twin.path), "step": twin.facts["step"], "n": len(a)}
    if a.roles.classes:
        right, theirs = a.guess == a.truth, twin.guess == twin.truth
        found["churn"] = share(a.guess != twin.guess, len(a))
        found["negative_flip_rate"] = share(right & ~theirs, len(a))
        found["accuracy_change"] = 100 * (int(theirs.sum()) - int(right.sum())) / len(a)
    else:
        change = float((twin.loss.astype(np.float64) - a.loss).mean())
        found |= {"mean_loss_change": change} if math.isfinite(change) else {}
    return found


# for people ---------------------------------------------------------------------------------------


def asked(result: dict) -> list[tuple[str, dict[str, str]]]:
    """(question, label -> answer) of what diff.json holds, in the order of reading; no empty ones."""
    values = result | {f"twin.{name}": value for name, value in result.get("twin", {}).items()}
    found = [(BETTER, better(result))]
    for question, names in QUESTIONS.items():
        answers = {LABELS[n][0]: LABELS[n][1].format(values[n]) for n in names if n in values}
        if question == CHANCE and answers:
            answers = {"the twin": values["twin.name"]} | answers
        if question == CHANCE and answers and "churn" in values:
            answers["churn: A and B, beside it"] = PERCENT.format(values["churn"])
        found.append((question, answers))
    found.append((CAUSES, {"weights": of_weights(result), "settings": of_settings(result)}))
    kept = [(question, {k: v for k, v in answers.items() if v}) for question, answers in found]
    return [(question, answers) for question, answers in kept if answers]


def better(result: dict) -> dict[str, str]:
    """The exact test of chance."""
    name, p = next((TESTS[key], result[key]) for key in TESTS if key in result)
    return {name: f"{f'{p:.3g}' if p else 'below 1e-300'}: {verdict(result)}"}


def verdict(result: dict) -> str:
    if "sign_p" in result:
        lost, gained, p, more = result["worse"], result["better"], result["sign_p"], "has the lower loss"
    else:
        lost, gained, p = result["right_to_wrong"], result["wrong_to_right"], result["mcnemar_p"]
        more = "is right"
    if lost + gained == 0:
        return "both are right on the same samples" if "mcnemar_p" in result else "no loss rose or fell"
    if p >= 0.05:  # the customary level
        return "fair coins would often differ as much"
    return f"{'B' if gained > lost else 'A'} {more} more often, beyond chance"


def of_weights(result: dict, shown: int = 3) -> str:
    """Whose tensors differ, in a line; empty if that is not known."""
    w = result.get("weights")
    if w is None:
        return ""
    if w["identical"]:
        return "identical"
    said = []
    if w["differ"]:
        order = "" if w["order"] == "model" else ", by name"
        by = (
            "another shape" if t["largest"] is None else f"by up to {t['largest']:.3g}" for t in w["differ"]
        )
        first = listed((f"{t['name']} ({how})" for t, how in zip(w["differ"], by)), shown)
        said.append(f"{len(w['differ']):,} of {w['tensors']:,} tensors differ{order}: {first}")
    for letter in "ab":
        if names := w[f"only_{letter}"]:
            said.append(f"only in {letter.upper()}: {listed(names, shown)}")
    return "; ".join(said)


def of_settings(result: dict) -> str:
    """What differs in how they were trained, in a line; empty if that is not known."""
    changed = result.get("settings")
    if changed is None:
        return ""
    return ", ".join(f"{n} {v['a']} -> {v['b']}" for n, v in changed.items()) or "the same"
