"""Pages as a browser shows them: nothing is fetched, nothing complains, and what can be clicked works."""

import time
from pathlib import Path

import pytest

from relaunch.trainers import diff, report
from rigs import pages
from rigs.pages import EVIL
from rigs.predicted import scored, write

pytestmark = pytest.mark.slow


@pytest.fixture
def chromium(tmp_path):
    with pages.browser(tmp_path / "profile") as driver:
        yield driver


def look(driver, path: Path) -> float:
    """Open a page; returns the seconds that it took. It fetches nothing and complains of nothing."""
    pages.requests(driver)
    start = time.monotonic()
    driver.get(path.resolve().as_uri())
    took = time.monotonic() - start
    assert pages.requests(driver) == [path.resolve().as_uri()]
    assert [entry for entry in driver.get_log("browser") if "favicon" not in entry["message"]] == []
    assert not driver.execute_script(
        "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
    )
    return took


def tiles(driver) -> list[str]:
    """The titles of what a gallery shows, in order."""
    script = """return Array.from(document.querySelectorAll(".tiles li")).filter(li => li.offsetParent)
                .map(li => li.querySelector("strong").textContent)"""
    return driver.execute_script(script)


def choose(driver, select: str, value: str) -> None:
    driver.execute_script(
        """const s = document.querySelectorAll(".tools label"); const [name, value] = arguments;
        const found = Array.from(s).find(l => l.textContent.trim().startsWith(name)).querySelector("select");
        found.value = Array.from(found.options).find(o => o.textContent === value).value;
        found.dispatchEvent(new Event("change", {bubbles: true}));""",
        select,
        value,
    )


def test_a_diff_of_10000_samples_opens_at_once_filters_and_sorts(relaunch_env, chromium):
    data = pages.packed(relaunch_env / "data", 10_000, side=32)
    where = {"data": data.name, "data_hash": data.hash, "data_path": data.path}
    rows = scored(1, 10_000), scored(2, 10_000)
    a, b = (str(write(Path("p"), r, step=i, sha=f"{i:064}", **where)) for i, r in enumerate(rows))
    assert diff.run([a, b, "--out", "out"]) == (0, None)
    assert look(chromium, Path("out/diff.html")) < 2
    everything = tiles(chromium)
    assert len(everything) == 240

    choose(chromium, "change", "right -> wrong")
    lost = tiles(chromium)
    ids = [int(title.split()[0].removeprefix("#")) for title in lost]
    truth, said = rows[0]["label"], (rows[0]["pred"], rows[1]["pred"])
    assert len(lost) >= 80 and all(said[0][i] == truth[i] != said[1][i] for i in ids)
    assert f"{len(lost)} of 240 shown" in chromium.page_source
    choose(chromium, "truth", EVIL)
    assert set(tiles(chromium)) <= {f"#{i} {EVIL}" for i in ids} and tiles(chromium)

    choose(chromium, "change", "all"), choose(chromium, "truth", "all")
    choose(chromium, "order", "confidence of B ↑")
    ids = [int(title.split()[0].removeprefix("#")) for title in tiles(chromium)]
    sure = rows[1]["confidence"][ids].tolist()
    assert len(ids) == 240 and sure == sorted(sure)
    choose(chromium, "order", "as listed")
    assert tiles(chromium) == everything


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_fits_its_window_in_either_light(relaunch_env, chromium, width, scheme):
    data = pages.packed(relaunch_env / "data", 400)
    for i, name in enumerate(("first", "second")):
        pages.run(relaunch_env / "runs" / name, data, scored(i), seed=i)
    assert report.run(["first", "second"]) == (0, None)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    look(chromium, Path("report.html"))
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    paper, ink, axis = chromium.execute_script(
        """const of = (e, p) => getComputedStyle(document.querySelector(e))[p];
        return [of("body", "backgroundColor"), of("body", "color"), of(".chart svg text", "fill")]"""
    )
    light = [sum(map(int, colour.strip("rgb()").split(","))) for colour in (paper, ink, axis)]
    assert (light[0] > 700) == (scheme == "light")
    assert all(abs(light[0] - other) > 300 for other in light[1:])  # dark on light, or light on dark


def test_a_table_is_sorted_by_its_heads(relaunch_env, chromium):
    data = pages.packed(relaunch_env / "data", 400)
    pages.run(relaunch_env / "runs/first", data, scored(1))
    assert report.run(["first"]) == (0, None)
    look(chromium, Path("report.html"))
    sort = """const t = Array.from(document.querySelectorAll("table.sortable")).at(-1);
        const i = Array.from(t.tHead.rows[0].cells).findIndex(c => c.textContent.trim() === arguments[0]);
        t.tHead.rows[0].cells[i].querySelector("button").click();
        return Array.from(t.tBodies[0].rows, r => r.cells[i].textContent)"""
    falling = [float(cell.rstrip(" %")) for cell in chromium.execute_script(sort, "accuracy")]
    assert falling == sorted(falling, reverse=True)
    rising = [float(cell.rstrip(" %")) for cell in chromium.execute_script(sort, "accuracy")]
    assert rising == sorted(rising)
    names = chromium.execute_script(sort, "class")
    assert EVIL in names and "猫" in names  # as text
