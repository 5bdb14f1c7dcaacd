"""The numbers that experts ask for, against other people's formulas; what says nothing is left out."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers.compare import causes, predictions, words
from relaunch.trainers.config import parse
from rigs.predicted import CLASSES, N, scored, write

pytestmark = pytest.mark.pure


def read(folder: Path, seed: int, **facts) -> predictions.Predictions:
    return predictions.read(write(folder, scored(seed), **facts))


@pytest.mark.parametrize("seed", range(3))
def test_each_number_is_its_published_formula(tmp_path, seed):
    a, b = read(tmp_path / "a", seed), read(tmp_path / "b", seed + 10)
    found = words.of_classes(a, b, None)
    pairs = [(p == t, q == t, p != q) for t, p, q in zip(a.label, a.pred, b.pred)]
    assert found["negative_flip_rate"] == pytest.approx(100 * sum(x and not y for x, y, _ in pairs) / N)
    assert found["churn"] == pytest.approx(100 * sum(d for *_, d in pairs) / N)
    both = sum(x and y for x, y, _ in pairs)
    assert found["trust_compatibility"] == pytest.approx(100 * both / sum(x for x, *_ in pairs))
    wrong = sum(not x and not y for x, y, _ in pairs)
    assert found["error_compatibility"] == pytest.approx(100 * wrong / sum(not y for _, y, _ in pairs))
    assert "kl" not in found


def textbook_ece(sure, right, bins=15) -> float:
    """As in the code beside Guo et al., 2017: a loop over bins (l, u]."""
    edges, error = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            error += abs(sure[inside].mean() - right[inside].mean()) * inside.mean()
    return 100 * error


def test_calibration_error_is_the_textbooks(tmp_path):
    a, b = read(tmp_path / "a", 1), read(tmp_path / "b", 2)
    found = words.of_classes(a, b, None)
    errors = [textbook_ece(p.confidence.astype(float), p.pred == p.label) for p in (a, b)]
    assert [found["calibration_error_a"], found["calibration_error_b"]] == pytest.approx(errors)
    assert found["calibration_change"] == pytest.approx(errors[1] - errors[0])
    edges = np.array([0.0, 1 / 15, 1.0, 1.0], np.float32)  # the outermost are in a bin, too
    assert words.calibration_error(edges, np.array([1, 1, 1, 0], bool)) == pytest.approx(
        100 * (abs(2 - 1 / 15) + 1) / 4, rel=1e-6
    )


def test_kl_is_scipys_and_of_that_direction():
    random = np.random.default_rng(0)
    a, b = (random.normal(0, 3, (5000, CLASSES)).astype(np.float32) for _ in "ab")
    expected = rel_entr(softmax(a.astype(float), 1), softmax(b.astype(float), 1)).sum(1).mean()
    assert words.kl(a, b) == pytest.approx(expected)
    assert words.kl(b, a) != pytest.approx(expected) and words.kl(a, a) == 0
    a[:, 0], b[:, 0] = -np.inf, -np.inf  # classes that are no answers
    assert words.kl(a, b) > 0
    a[:, 0] = 0
    assert words.kl(a, b) is None  # infinite: JSON has no number for it


def test_nothing_is_said_of_what_there_is_none_of(tmp_path):
    rows = scored(1)
    rows["pred"] = (rows["label"] + 1) % CLASSES
    none = predictions.read(write(tmp_path, rows))
    found = words.of_classes(none, none, None)
    assert "trust_compatibility" not in found and found["error_compatibility"] == 100
    rows["confidence"][0] = np.nan
    broken = predictions.read(write(tmp_path / "b", rows))
    assert not any(name.startswith("calibration_error_b") for name in words.of_classes(none, broken, None))


def test_every_number_has_a_label_and_a_question():
    asked = [name for names in words.QUESTIONS.values() for name in names]
    assert sorted(asked) == sorted(words.LABELS) and len(
        {label for label, _ in words.LABELS.values()}
    ) == len(asked)
    result = {
        "mcnemar_p": 0.5,
        "right_to_wrong": 1,
        "wrong_to_right": 2,
        "churn": 3.0,
        "negative_flip_rate": 1.0,
        "twin": {"name": "t", "churn": 4.0, "accuracy_change": -0.5},
        "settings": {"lr": {"a": 0.1, "b": 0.2}},
    }
    told = dict(words.asked(result))
    assert list(told) == [words.BETTER, words.USERS, words.CHANCE, words.CAUSES]
    assert list(told[words.CHANCE].values()) == ["t", "4.00 %", "-0.50 points", "3.00 %"]
    assert told[words.CAUSES] == {"settings": "lr 0.1 -> 0.2"}


# what differs in the two themselves ----------------------------------------------------------------


def flat(*argv: str) -> dict:
    config = parse(["mnist", *argv]).config
    return causes.settings_of(SimpleNamespace(config=config), None)


def test_settings_that_differ_are_named_with_both_values():
    found = causes.settings_that_differ(flat("--lr", "0.5"), flat("--crop", "2"))
    assert found == {"lr": {"a": 0.5, "b": 1.0}, "crop": {"a": 0, "b": 2}}


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--seed", "2"], None),
        (["--seed", "2", "--log-interval", "7", "--keep", "9"], None),
        (["--seed", "2", "--lr", "0.5"], "--lr is 0.5, in A 1.0"),
        (["--seed", "2", "--epochs", "3"], "--epochs is 3, in A 14"),
        (["--seed", "2", "--flip"], "--flip is True, in A False"),
        ([], "has A's seed, 1"),
    ],
)
def test_a_twin_differs_in_its_seed_alone(argv, said):
    if said is None:
        return causes.check_twin("twin", flat(), flat(*argv))
    with pytest.raises(Failure) as refused:
        causes.check_twin("twin", flat(), flat(*argv))
    assert refused.value.code == USAGE and said in refused.value.what
