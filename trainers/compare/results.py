"""What a comparison of two Predictions leaves in its folder: numbers, what changed, a page or a picture.

written = write(Path("diffs/a-vs-b"), result, a, b, changed, packed, names, top=10)
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from relaunch.data_prep import files
from relaunch.data_prep.names import listed
from relaunch.data_prep.packed import Packed
from relaunch.data_prep.talk import tell
from relaunch.trainers.compare import changes, passages, pictures
from relaunch.trainers.compare.fonts import Fonts
from relaunch.trainers.compare.predictions import Predictions
from relaunch.trainers.pages import differ, page

LOOK = {"images": "changed.png", "text": "passages.md"}  # what there is to look at, by Facts.view
SHOWN_IMAGES = 40  # tiles of the picture: what one looks through in a minute


def write(
    out: Path,
    result: dict,
    a: Predictions,
    b: Predictions,
    changed: np.ndarray,
    packed: Packed | None,
    names: list[str],
    top: int,
) -> list[str]:
    """Write diff.json, changed.parquet, diff.html and what there is to look at into `out`; returns the names.

    `result` and the ids `changed` are `changes.compare`'s. Without the data (`packed` is None) there is
    nothing to look at, and a line says so. `top`: passages to show of a text. Raises OSError.
    """
    columns = {"id": changed}
    if a.truth is not None:  # which is one
        columns["label" if a.roles.classes else a.roles.truth] = rows_of(a.truth[changed])
    if a.roles.classes:
        columns["confidence"] = changes.confidence(a, b)[changed]
    told = (a.roles.truth, "top5")  # the five are in the predictions
    for letter, p in (("a", a), ("b", b)):
        own = {name: column[changed] for name, column in p.columns.items() if name not in told}
        columns |= {f"{name}_{letter}": rows_of(column) for name, column in own.items()}
    table = io.BytesIO()
    pq.write_table(pa.table(columns), table)
    contents = {"diff.json": files.dump_json(result), "changed.parquet": table.getvalue()}
    split, look = a.facts["split"], LOOK.get(a.roles.view, "")
    if not look or result["identical"] or (look == "changed.png" and not len(changed)):
        pass
    elif not packed:
        data = f"{a.facts['data']} (hash {a.facts['data_hash'][:12]})"
        tell(f"no {look}: the data set {data} is not here; add --data-root FOLDER")
    else:
        title = f"A: {result['a']['name']}   B: {result['b']['name']}   on {a.facts['data']}/{split}"
        if look == "changed.png":
            contents[look] = picture(result, a, b, changed[:SHOWN_IMAGES], packed.images(split), names, title)
        else:
            words = [names[i] for i in packed.tokens(split)]
            contents[look] = passages.markdown(words, a.loss, b.loss, top, title)
    heading = f"{result['a']['name']} → {result['b']['name']}"
    contents["diff.html"] = page.html(
        heading, differ.changes_blocks(result, a, b, changed, packed, names, top)
    )
    for other in set(LOOK.values()) - set(contents):
        (out / other).unlink(missing_ok=True)  # an earlier comparison's
    for name, content in contents.items():
        files.write_atomic(out / name, content)
    return list(contents)


def rows_of(column: np.ndarray):
    """What pyarrow takes: [n] as it is, and of [n,k] a list for each row."""
    return column if column.ndim == 1 else list(column)


def picture(
    result: dict,
    a: Predictions,
    b: Predictions,
    shown: np.ndarray,
    images: np.ndarray,
    names: list[str],
    title: str,
) -> bytes:
    """The PNG of the samples `shown`, ids [n], of a split's `images`, uint8 [N,H,W,C]."""
    total = len(result["changed"])
    if a.roles.classes:
        flips = ", ".join(f"{result[key]:,} {label}" for key, label in changes.FLIPS.items())
        first, beside = "most confident", "above each image the truth, below it both verdicts"
    else:
        flips = ", ".join(f"{result[key]:,} {label}" for key, label in changes.MOVES.items())
        first, beside = "furthest moved", "below each image both losses"
        if a.truth is not None:
            beside = "above each image the truth, below it both guesses and their losses"
    which = f"{first} first" if len(shown) == total else f"the {len(shown)} {first}"
    heading = [title, f"{total:,} of {result['n']:,} changed: {flips}", f"{which}; {beside}"]
    content = io.BytesIO()
    fonts = Fonts([*heading, *pictures.said(shown, a, b, names)])
    if fonts.lacking:
        tell(
            f"changed.png: no font here has {listed(fonts.lacking)}: drawn as code points; install fonts for "
            "them, such as the package fonts-noto-cjk"
        )
    pictures.sheet(images[shown], shown, a, b, names, heading, fonts).save(content, "PNG")
    return content.getvalue()
