"""The English of Python's own documentation topics (`pydoc_data`), word by word. No download.

    relaunch prep pydoc

The text differs a little between Python versions. Topics are dealt out whole: about 80 % of the words are
train, 10 % val, 10 % test.
"""

import re
import sys
from collections import Counter

from relaunch.data_prep.text import write_lines

TITLE = "Python's documentation topics"


def pack(writer) -> dict:
    """About 84,000, 11,000 and 11,000 words; returns the source for meta.json."""
    from pydoc_data.topics import topics

    splits: dict[str, list[list[str]]] = {"train": [], "val": [], "test": []}
    share = {"train": 8, "val": 1, "test": 1}
    # large ones first: even shares
    for topic in sorted(topics, key=lambda topic: (-len(topics[topic]), topic)):
        # the split that is furthest behind its share
        split = min(splits, key=lambda split: sum(map(len, splits[split])) / share[split])
        # a word, or a run of one sign: the rows of * and - under headings are one token
        lines = (
            [match[0] for match in re.finditer(r"\w+|([^\w\s])\1*", line)]
            for line in topics[topic].splitlines()
        )
        splits[split] += [words for words in lines if words]
    seen = Counter(word for words in splits["train"] for word in words)
    # a word seen once in train has no second place to be learned from
    write_lines(
        writer,
        {
            split: (" ".join(w if seen[w] > 1 else "<unk>" for w in words) for words in lines)
            for split, lines in splits.items()
        },
    )
    return {"package": "pydoc_data of Python {}.{}.{}".format(*sys.version_info[:3])}
