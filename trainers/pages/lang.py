"""What pages say, in the languages that there are: English is written in the code, the others lie here.

say = lang.of("zh")
say("{n} of {total} classes", n=20, total=200)
"""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[..., str]


def of(code: str) -> Say:
    """From an English text, and what its {fields} hold, to the text in that language. ValueError."""
    if code not in ("en", *TEXTS):
        raise ValueError(f"no texts in {code!r}; there are en, {', '.join(TEXTS)}")
    texts = TEXTS.get(code, {})

    def say(text: str, /, **values) -> str:
        found = texts.get(text, text)
        return found.format(**values) if values else found

    return say


TEXTS: dict[str, dict[str, str]] = {"zh": {}}
