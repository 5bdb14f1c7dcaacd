"""Blocks as HTML and Markdown: everything that they hold is there, as text and nothing else."""

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from relaunch.trainers.pages import cells, charts, graph, page
from relaunch.trainers.pages.blocks import (
    Code,
    Facts,
    Gallery,
    Heading,
    Item,
    Note,
    Picture,
    Prose,
    Table,
)

EVIL = "<script>alert(1)</script>"
CURVE = [(step, 100 / (step + 1)) for step in range(0, 500, 10)]


def png(colour: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def blocks() -> list:
    tiles = [Item(png("red"), f"#1 {EVIL}", ["✗ dog 93 %"], {"class": EVIL}, {"confidence": 0.9})]
    return [
        Prose(f"{EVIL}\n\nsecond"),
        Facts([("name", EVIL)]),
        Heading("Curves"),
        charts.lines({EVIL: CURVE, "猫 $x$": CURVE}, "step", "loss", f"loss of {EVIL}", [(100, "resumed")]),
        charts.bars(["a", EVIL], [12.5, None], "samples/s", "speed", [0.5, 0]),
        charts.stacked(["a", "b"], {"input": [1, 2], EVIL: [3, 4]}, "s", "time"),
        charts.heat([[1, 0], [0, 2]], ["a", EVIL], ["a", "b"], "confusion"),
        graph.graph([{"name": "a", "label": f"a\n{EVIL}"}, {"name": "b", "label": "b"}], [("a", "b")], "Net"),
        Table(["layer|", "n"], [["conv|1", "1,234"], [EVIL, "–"]], sortable=True),
        Note("relaunch evaluate first"),
        Code("a ``` b"),
        Picture(png("blue"), "a picture", EVIL),
        Gallery(
            [*tiles, Item(b"", "#2 cat", [], {"class": "cat"}, {"confidence": float("nan")})], 7, "mistakes"
        ),
        Heading("Curves"),
    ]


def points(text: str) -> list[dict]:
    """What the charts of a page say that they show."""
    found = re.findall(r'<script type="application/json" class="points"[^>]*>(.*?)</script>', text, re.DOTALL)
    return [json.loads(each) for each in found]


def test_what_a_user_wrote_stays_text(blocks):
    text = page.html(EVIL, blocks)
    assert "<script>alert" not in text
    assert len(re.findall(r"<script\b", text)) == 1 + len(points(text))  # ours, and data
    assert text.count("&lt;script&gt;alert") > 10
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)  # nothing is fetched


def test_charts_hold_what_they_show(blocks):
    lines, bars, stacked, heat, net = points(page.html("t", blocks))
    assert lines["series"][EVIL] == [list(point) for point in CURVE]
    assert lines["marks"] == [[100, "resumed"]]
    assert bars["bars"] == [["a", 12.5, 0.5], [EVIL, None, 0]]
    assert stacked["parts"]["input"] == [1, 2]
    assert heat["matrix"] == [[1, 0], [0, 2]]
    assert net["edges"] == [["a", "b"]]


def test_no_two_elements_have_one_id(blocks):
    text = page.html("t", [*blocks, charts.bars(["b"], [1], "s", "other")])
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"curves", "curves-2"} <= set(ids)


def test_a_chart_follows_the_page_that_it_stands_in(blocks):
    svg = blocks[3].svg
    assert "var(--c1, #0072b2)" in svg and "DejaVu" not in svg and "<style" not in svg
    assert ">猫 $x$</text>" in svg  # as text, which the reader's font draws


def test_equal_charts_are_equal_bytes():
    assert charts.lines({"a": CURVE}, "x", "y", "t") == charts.lines({"a": CURVE}, "x", "y", "t")


def test_columns_of_numbers_stand_to_the_right():
    numbers = [
        "1,234",
        "99.1 %",
        "-0.5",
        "3.2 ± 0.1 s",
        "2.1x",
        "12 / 34",
        "1e-05",
        "955 images/s",
        "2 min 05 s",
        "–",
        "",
    ]
    assert cells.numeric(numbers)
    assert not cells.numeric(["1,234", "64x24x24"]) and not cells.numeric(["–"]) and not cells.numeric(["v1"])


def test_markdown_has_the_same(blocks, tmp_path):
    text = page.markdown("a *title*", blocks, tmp_path / "my pictures")
    assert text.startswith("# a \\*title\\*\n")
    assert "<script" not in text
    linked = re.findall(r"!\[[^\n]*?\]\((my%20pictures/[^)]+)\)", text)
    assert len(linked) == len(list((tmp_path / "my pictures").iterdir())) == 7
    assert all((tmp_path / name.replace("%20", " ")).exists() for name in linked)
    assert "| conv\\|1 | 1,234 |" in text and "|---|---:|" in text
    [chart] = Path(tmp_path / "my pictures").glob("01-*.svg")
    assert chart.read_text().startswith("<svg ")


@pytest.mark.parametrize("length", [5, 12, 24])
def test_a_legend_of_long_names_stays_in_its_chart(length):
    names = [f"{i} {'of a name of words and more'[: length - 2]}" for i in range(8)]
    svg = charts.stacked(["a"], {name: [1] for name in names}, "s", "t").svg
    wide = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    ends = [float(x) + 8 * 0.6 * len(word) for x, word in re.findall(r' x="([\d.]+)"[^>]*>(\d [^<]*)<', svg)]
    assert len(ends) == 8 and max(ends) < wide, (ends, wide)
