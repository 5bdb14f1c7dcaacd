"""FLAG=A,B,C of `compare --grid` and `submit --sweep`: keys are train's flags, values their words."""

import pytest

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.launch import grid


def points(*words: str, workload: str = "mnist"):
    return grid.points(grid.axes(words, grid.known(workload), "--grid"))


def test_all_combinations_in_order_the_first_is_the_baseline():
    found = points("batch_size=4,16", "precision=no,bf16", "config=cpu")
    assert [point.label for point in found][:2] == ["batch_size4-precisionno-configcpu"] + [
        "batch_size4-precisionbf16-configcpu"
    ]
    assert len(found) == 4 and found[0].name == "batch_size=4 precision=no config=cpu"
    assert found[3].words == ("--batch-size", "16", "--mixed-precision", "bf16", "--config", "cpu")
    assert points() == ()


def test_hyphens_short_names_and_switches():
    (one,) = points("batch-size=4")
    assert (
        one.words == ("--batch-size", "4") and one.label == "batch-size4"
    )  # as sweeps have always been named
    yes, no = points("deterministic=yes,no")
    assert (yes.words, no.words) == (("--deterministic",), ("--no-deterministic",))
    tied, not_tied = points("tied=yes,no", workload="wikitext2")
    assert (tied.words, not_tied.words) == (("--tied",), ())


@pytest.mark.parametrize(
    "words, says",
    [
        (["batch_sise=4"], "did you mean batch_size?"),
        (["lr"], "FLAG=A,B,C"),
        (["lr=1,,2"], "FLAG=A,B,C"),
        (["lr=1,1"], "holds a value twice"),
        (["batch_size=4", "batch-size=8"], "names batch_size twice"),
        (["precision=no", "mixed_precision=bf16"], "twice"),
        (["deterministic=perhaps"], "neither yes nor no"),
        (["run=a,b"], "no --run"),
    ],
)
def test_mistakes_are_one_line(words, says):
    with pytest.raises(Failure) as caught:
        points(*words)
    assert caught.value.code == USAGE and says in caught.value.line() and "\n" not in caught.value.line()
