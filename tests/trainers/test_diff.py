"""diff: its numbers against numpy and scipy, what it refuses, what it shows, and two real checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from relaunch.data_prep.errors import DATA, PREEMPTED, USAGE, Failure
from relaunch.trainers import diff, evaluate
from relaunch.trainers.compare import predictions, sides, words
from relaunch.trainers.group import process
from rigs.predicted import N, scored, write
from rigs.runs import sha256
from rigs.sets import TEST


@pytest.fixture
def pair(relaunch_env) -> tuple[str, str]:
    """Two predictions files of the same samples, which belong to no data set that is here."""
    return str(write(Path("p"), scored(1), step=1)), str(write(Path("p"), scored(2), step=2))


def failure(*argv) -> Failure:
    with pytest.raises(Failure) as raised:
        diff.run([*map(str, argv)])
    assert "\n" not in raised.value.line()
    return raised.value


# numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_those_of_a_direct_computation(pair, seed, capsys):
    rows_a, rows_b = scored(10 + seed), scored(20 + seed)
    a, b = write(Path("a"), rows_a), write(Path("b"), rows_b)
    assert diff.run([str(a), str(b), "--out", "out"]) == (0, None)
    result = json.loads(Path("out/diff.json").read_text(), parse_constant=pytest.fail)

    label, pa, pb = rows_a["label"], rows_a["pred"], rows_b["pred"]
    lost, gained = np.sum((pa == label) & (pb != label)), np.sum((pa != label) & (pb == label))
    assert (result["n"], result["agree"], result["right_to_wrong"], result["wrong_to_right"]) == (
        N,
        np.sum(pa == pb),
        lost,
        gained,
    )
    assert result["wrong_to_other_wrong"] == np.sum((pa != label) & (pb != label) & (pa != pb))
    assert result["both_right"] == np.sum((pa == label) & (pb == label))
    assert result["agreement"] == pytest.approx(100 * np.mean(pa == pb))
    assert result["mcnemar_p"] == pytest.approx(binomtest(int(lost), int(lost + gained)).pvalue, rel=1e-9)
    for side, rows in (("a", rows_a), ("b", rows_b)):
        assert result[side]["top1"] == pytest.approx(100 * np.mean(rows["pred"] == label))
        assert result[side]["top5"] == pytest.approx(
            100 * np.mean([t in top for t, top in zip(label, rows["top5"])])
        )
        assert result[side]["loss"] == pytest.approx(rows["nll"].mean(dtype=float))
    for c in result["classes"]:
        of = label == c["class"]
        assert (
            c["n"] == of.sum()
            and c["right_a"] == np.sum(pa[of] == label[of])
            and c["right_b"] == np.sum(pb[of] == label[of])
        )
        assert c["right_to_wrong"] == np.sum((pa == label)[of] & (pb != label)[of])
    assert (
        sum(c["right_to_wrong"] + c["wrong_to_right"] + c["wrong_to_other_wrong"] for c in result["classes"])
        == N - result["agree"]
    )

    sure = (rows_a["confidence"].astype(float) + rows_b["confidence"]) / 2
    assert result["changed"] == sorted(np.flatnonzero(pa != pb), key=lambda i: (-sure[i], i))
    table = pq.read_table("out/changed.parquet").to_pydict()
    assert table["id"] == result["changed"] and table["nll_b"] == [rows_b["nll"][i] for i in table["id"]]
    shown = capsys.readouterr().out
    assert f"{result['agreement']:.2f} %" in shown and f"#{result['changed'][0]} " in shown


def test_equal_inputs_have_no_differences(pair, capsys):
    copy = str(write(Path("copy"), scored(1), world=2))
    assert diff.run([pair[0], copy, "--fail-under", "100"]) == (0, None)
    assert "no differences" in capsys.readouterr().out
    assert (
        json.loads(Path("diffs/p-test-000000001-vs-copy-test-000001200/diff.json").read_text())["identical"]
        is True
    )


def test_the_same_verdicts_with_other_losses_are_told_apart_from_equal_ones(pair, capsys):
    rows = scored(1)
    rows["nll"] = rows["nll"] + np.float32(0.25)
    assert diff.run([pair[0], str(write(Path("q"), rows)), "--fail-under", "100", "--out", "out"]) == (
        0,
        None,
    )
    out = capsys.readouterr().out
    assert (
        "no differences" not in out
        and "both are right on the same samples" in out
        and "by more than 0.25 nats" in out
    )


def test_a_loss_that_is_not_finite_still_makes_strict_json(pair):
    rows = scored(2)
    rows["nll"][3], rows["confidence"][4] = np.nan, np.nan
    diff.run([pair[0], str(write(Path("q"), rows)), "--out", "out"])
    result = json.loads(Path("out/diff.json").read_text(), parse_constant=pytest.fail)
    assert result["b"]["loss"] is None and result["largest_loss_change"] is None


def test_experts_numbers_with_a_twin_and_outputs_beside_the_files(pair, capsys):
    outputs = []
    for seed, rows in ((1, scored(1)), (2, scored(2))):
        said = np.random.default_rng(seed).random((N, 10), dtype=np.float32)
        said[np.arange(N), rows["pred"]] = 2
        outputs.append(said)
    a, b = (write(Path("o"), scored(i + 1), said, step=i) for i, said in enumerate(outputs))
    twin = write(Path("t"), scored(3), settings=("--seed", "2"))
    assert diff.run([str(a), str(b), "--twin", str(twin), "--out", "out"]) == (0, None)
    result = json.loads(Path("out/diff.json").read_text(), parse_constant=pytest.fail)
    p, q = (np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(1, keepdims=True) for x in outputs)
    assert result["kl"] == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert result["negative_flip_rate"] == pytest.approx(100 * result["right_to_wrong"] / N)
    assert result["twin"]["churn"] == pytest.approx(100 * np.mean(scored(1)["pred"] != scored(3)["pred"]))
    assert result["weights"] == {"identical": True, "differ": [], "only_a": [], "only_b": []}
    assert result["settings"] == {}
    out = capsys.readouterr().out
    assert all(question in out for question in (*words.QUESTIONS, words.BETTER, words.CAUSES))
    np.save(b.with_suffix(".outputs.npy"), outputs[0])  # of other predictions
    diff.run([str(a), str(b), "--out", "out"])
    assert "kl" not in json.loads(Path("out/diff.json").read_text())
    other = write(Path("t"), scored(3), settings=("--seed", "2", "--lr", "0.5"))
    assert "--lr is 0.5, in A 1.0" in failure(a, b, "--twin", other).line()


def test_the_negative_flip_rate_is_a_gate(pair):
    rows = [scored(1), scored(2)]
    lost = np.sum((rows[0]["pred"] == rows[0]["label"]) & (rows[1]["pred"] != rows[0]["label"]))
    rate = 100 * lost / N
    assert diff.run([*pair, "--max-nfr", str(rate)]) == (0, None)
    refused = failure(*pair, "--max-nfr", str(rate - 0.01))
    assert refused.code == 1 and f"{lost:,} of {N:,} are right in A and wrong in B" in refused.what
    assert failure(*pair, "--max-nfr", "101").code == USAGE


def test_fail_under_is_a_gate(pair, capsys):
    agreement = 100 * np.mean(scored(1)["pred"] == scored(2)["pred"])
    assert diff.run([*pair, "--fail-under", str(agreement)]) == (0, None)
    gate = failure(*pair, "--fail-under", agreement + 0.01)
    assert gate.code == 1 and "--fail-under" in gate.line()
    assert Path("diffs/p-test-000000001-vs-p-test-000000002/diff.json").exists(), (
        "what failed can be looked at"
    )


# what is refused ----------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused(pair, capsys):
    def other(**facts):
        return write(Path("other"), scored(2), **facts)

    assert (
        failure(pair[0], other(data="cifar10", data_hash="e" * 64))
        .line()
        .startswith("relaunch: 64 A is about mnist, B about cifar10;")
    )
    assert "two different sets named mnist" in failure(pair[0], other(data_hash="e" * 64)).what
    split = failure(pair[0], other(split="train"))
    assert split.code == USAGE and "B is about the split train, not test" in split.what
    assert failure(*pair, "--split", "train").code == USAGE
    rows = scored(2)
    rows["label"] = rows["label"][::-1]
    assert failure(pair[0], write(Path("other"), rows)).code == DATA
    assert not Path("diffs").exists()


@pytest.mark.parametrize(
    "argv, code, words",
    [
        (["--fail-under", "101"], USAGE, "not a percentage"),
        (["--top", "0"], USAGE, "at least 1"),
        (["--fail_undr", "9"], USAGE, "unknown argument"),
        (["--workload", "minst"], USAGE, "mnist"),
        (["--out", "file/x"], 73, "cannot write"),
    ],
)
def test_mistakes_are_one_line(pair, argv, code, words):
    Path("file").write_text("")
    mistake = failure(*pair, *argv)
    assert mistake.code == code and words in mistake.line()


def test_a_damaged_file_and_a_missing_run_are_65(pair):
    Path("bad.parquet").write_bytes(Path(pair[1]).read_bytes()[:-100])
    assert failure(pair[0], "bad.parquet").code == DATA
    assert failure(pair[0], "nosuchrun").code == DATA
    assert "B" in failure(pair[0]).what


# what is shown ------------------------------------------------------------------------------------


def test_without_the_data_it_says_so_and_goes_on(pair, capsys):
    Path("out").mkdir()
    Path("out/changed.png").write_bytes(b"of an earlier comparison")
    diff.run([*pair, "--out", "out"])
    assert (
        "no changed.png: the data set mnist (hash dddddddddddd) is not here; add --data-root FOLDER"
        in capsys.readouterr().out
    )
    assert sorted(os.listdir("out")) == ["changed.parquet", "diff.html", "diff.json"]


# real checkpoints ---------------------------------------------------------------------------------


def test_two_checkpoints_of_a_training(train, capfd, monkeypatch):
    """Predictions of these very checkpoints are used; others are not, and what lacks is evaluated."""
    assert train("mnist", "--run", "first", "--epochs", 1, "-b", 8, "--save-every", 6) == 0
    for source in ("first@6", "first"):
        evaluate.run([source, "--threads", "1"])
    made = sorted(Path("runs/first/predictions").glob("*.parquet"))
    assert [p.name for p in made] == ["test-000000006.parquet", "test-000000012.parquet"]
    capfd.readouterr()
    assert diff.run(["first@6", "first", "--fail-under", "0"]) == (0, None)
    out = capfd.readouterr().out
    assert (
        "evaluating" not in out
        and "written: diff.json, changed.parquet, changed.png, diff.html in diffs/first-6-vs-first" in out
    )
    result = json.loads(Path("diffs/first-6-vs-first/diff.json").read_text())
    assert result["n"] == TEST and result["a"]["model_sha256"] == sha256(
        Path("runs/first/checkpoints/step-000000006/model.safetensors")
    )
    whole = predictions.read(made[0]), predictions.read(made[1])
    assert result["changed"] and set(result["changed"]) == set(np.flatnonzero(whole[0].pred != whole[1].pred))

    content = made[0].read_bytes()
    made[1].write_bytes(content)  # whole, and of another checkpoint
    with monkeypatch.context() as patch:
        asked = []
        patch.setattr(sides, "wait", lambda command, name: asked.append(command) or 75)
        assert diff.run(["first@6", "first"]) == (75, None)
    assert len(asked) == 1 and asked[0][3].endswith("step-000000012")

    Path("copy.parquet").write_bytes(content)
    made[0].write_bytes(content[:-50])
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as on a read-only disk
    assert diff.run(["first@6", "copy.parquet", "--out", "out"]) == (0, None)
    shown = capfd.readouterr()
    assert (
        "is not a whole predictions file" in shown.err
        and shown.out.count("evaluating") == 1
        and "no differences" in shown.out
    )
    assert (
        Path("out/a/test-000000006.parquet").read_bytes() == content and made[0].read_bytes() == content[:-50]
    )


def test_a_foreign_file_against_a_run(train, capfd):
    """A state dict of the very same weights: no differences."""
    import torch
    from safetensors.torch import load_file

    assert train("mnist", "--run", "first", "--epochs", 1, "-b", 48) == 0
    evaluate.run(["first", "--threads", "1"])
    torch.save(load_file("runs/first/checkpoints/step-000000002/model.safetensors"), "mine.pth")
    assert "--workload" in failure("first", "mine.pth").fix
    described = ["--workload", "mnist", "--threads", "1", "first", "mine.pth"]
    assert "mine.pth does not say how its images were normalised; add --normalise data" in (
        failure(*described).line()
    )
    capfd.readouterr()
    assert diff.run([*described, "--normalise", "data"]) == (0, None)
    out = capfd.readouterr().out
    assert "no differences" in out and out.count("normalised by mean") == 3  # once by the evaluation
    assert len(list(Path("diffs/first-vs-mine.pth/b").glob("test-*.parquet"))) == 1


def test_a_failed_evaluation_says_why_once_and_gives_its_code(train, capfd):
    import torch

    assert train("mnist", "--run", "first", "--epochs", 1, "-b", 48) == 0
    torch.save({"fc.weight": torch.zeros(3)}, "mine.pth")
    capfd.readouterr()
    assert diff.run(["mine.pth", "first", "--workload", "mnist", "--normalise", "data"]) == (DATA, None)
    err = capfd.readouterr().err
    assert (
        err.count("relaunch:") == 1 and "mine.pth does not fit this model" in err and "Traceback" not in err
    )


def test_a_stop_reaches_the_evaluation(monkeypatch):
    monkeypatch.setattr(process, "_asked", "SIGTERM")
    with pytest.raises(Failure) as stopped:
        sides.wait([sys.executable, "-c", "import time; time.sleep(60)"], "first")
    assert stopped.value.code == PREEMPTED


def test_it_never_imports_torch(pair):
    code = (
        f"import sys; from relaunch.trainers import diff; diff.run({[*pair]!r}); "
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
