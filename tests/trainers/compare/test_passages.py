"""The page of passages whose words' loss moved most."""

from pathlib import Path

import numpy as np

from relaunch.data_prep.packed import open_packed
from relaunch.trainers import diff
from relaunch.trainers.compare import passages
from rigs.predicted import scored, write
from rigs.sets import pack_text


def test_passages_show_the_words_whose_loss_moved_most(relaunch_env, capsys):
    pack_text(Path("data/book"))
    packed = open_packed("data/book", "data")
    tokens = packed.tokens("val").astype(np.int32)
    rows = [scored(1, len(tokens) - 1, top5=False) | {"label": tokens[1:]} for _ in "ab"]
    rows[1]["nll"] = rows[1]["nll"] + np.float32(0.01)
    rows[1]["nll"][100:110] += np.float32(3)
    rows[1]["nll"][200] = 0
    rows[0]["nll"][200] = 9
    files = [
        str(write(Path(name), r, kind="text", split="val", data="book", data_hash=packed.hash))
        for name, r in zip("ab", rows)
    ]
    diff.run([*files, "--out", "out", "--top", "1", "--data-root", "data"])
    assert "perplexity" in capsys.readouterr().out
    page = Path("out/passages.md").read_text()
    worse, better = page.split("## ")[1:]
    words = [packed.vocab()[t] for t in tokens]
    assert (
        worse.startswith("B is worse")
        and all(word in worse for word in words[101:111])
        and worse.count("+3.01") == 10
    )
    assert better.startswith("B is better") and words[201] in better and "-9.00" in better
    blocks = [line for line in page.splitlines() if line.startswith(("A  ", "B  "))]
    assert blocks and max(map(len, page.split("~~~~")[1].splitlines())) <= passages.WIDTH + 4


def test_passages_do_not_overlap_and_short_texts_have_one():
    change = np.zeros(1000)
    change[[100, 105, 500]] = 5, 5, 3
    first, second = passages.moved(change, 5)
    assert first in range(86, 101) and second in range(481, 501)
    assert passages.moved(np.ones(3), 5) == [0] and passages.moved(np.zeros(50), 5) == []
