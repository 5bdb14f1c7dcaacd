"""The English of Python's own documentation topics (`pydoc_data`), word by word. No download.

    python -m data_prep.prep pydoc

The text differs a little between Python versions. Of every ten topics one is val and one is test.
"""
import re
import sys
from collections import Counter

from data_prep.text import write_lines

TITLE = "Python's documentation topics"


def pack(writer) -> dict:
    from pydoc_data.topics import topics
    splits: dict[str, list[list[str]]] = {"train": [], "val": [], "test": []}
    for number, topic in enumerate(sorted(topics)):
        split = {8: "val", 9: "test"}.get(number % 10, "train")
        # a word, or a run of one sign: the rows of * and - under headings are one token
        lines = ([match[0] for match in re.finditer(r"\w+|([^\w\s])\1*", line)] for line in topics[topic].splitlines())
        splits[split] += [words for words in lines if words]
    seen = Counter(word for words in splits["train"] for word in words)
    # a word seen once in train has no second place to be learned from
    write_lines(writer, {split: (" ".join(w if seen[w] > 1 else "<unk>" for w in words) for words in lines)
                         for split, lines in splits.items()})
    return {"package": "pydoc_data of Python {}.{}.{}".format(*sys.version_info[:3])}
