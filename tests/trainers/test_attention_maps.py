"""`trainers.attention`: the maps of a trained run as JSON, and whose maps it does not draw."""

import json

from relaunch.data_prep.errors import USAGE, Failure
from relaunch.trainers import attention


def test_the_maps_of_a_run(train, tmp_path):
    small = ("--emsize", 8, "--nhid", 8, "--nhead", 2, "--nlayers", 2, "--bptt", 12)
    assert train("wikitext2", *small, "--max-steps", 2, "--run", "words") == 0
    assert attention.run(["words", "--out", "maps/attention.json"])[0] == 0
    found = json.loads((tmp_path / "maps/attention.json").read_text())
    assert len(found["words"]) == found["bptt"] == 12 and found["windows"] == 25
    for layer in found["layers"]:
        assert [len(head) for head in layer["maps"]] == [12, 12]
        assert all(abs(sum(weights) - 1) < 1e-5 for weights in layer["distance"])


def test_a_cnn_attends_to_nothing(train):
    assert train("mnist", "--max-steps", 1, "--run", "digits") == 0
    try:
        attention.run(["digits", "--out", "maps.json"])
    except Failure as failure:
        assert failure.code == USAGE and "no Transformer" in failure.what
    else:
        raise AssertionError("it drew something")
