"""WikiText-2 by words: the official zip or its folder; 2,088,628, 217,646 and 245,569 tokens of 33,278 words.

relaunch prep wikitext2 --source wikitext-2-v1.zip
"""

from relaunch.data_prep.archive import Source
from relaunch.data_prep.text import pack  # noqa: F401  packed like any text

TITLE = "WikiText-2"
NEEDS = "wiki.{train,valid,test}.tokens"
PUBLISHED = {"wikitext-2-v1.zip": "542ccefacc6c27f945fb54453812b3cd"}  # torchtext.datasets.WikiText2
URLS = {
    "wikitext-2-v1.zip": [
        "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip",
        "https://wikitext.smerity.com/wikitext-2-v1.zip",
    ]
}
FILES = {"wiki.train.tokens": "train", "wiki.valid.tokens": "val", "wiki.test.tokens": "test"}


def find(source: Source) -> dict | None:
    """File name -> split, if one folder has all three files. Failure 65 if several have."""
    found = source.together(FILES)
    source.only_one(found)  # WikiText-103 has the same file names
    return next(iter(found.values()), None)
