"""What measurements are said to say: no more than their repeats support."""

import csv
import io
import json

import pytest

from relaunch.data_prep.files import dump_json
from relaunch.trainers import records
from relaunch.trainers.bench import measure, page, spread, tables
from relaunch.trainers.bench.comparison import CANNOT, FAILED, MEASURED, Cell, Comparison
from relaunch.trainers.bench.measure import Measure, Target
from relaunch.trainers.bench.reading import reading, with_spread
from relaunch.trainers.rundir import RunDir


def measured(name: str, seconds: list[float], top1: list[float], **more) -> Cell:
    runs = [
        Measure(
            run=f"runs/{name}-{seed}",
            step=10,
            samples=1000,
            epochs=1.0,
            seconds=s,
            samples_per_s=1000 / s,
            metric="top1",
            quality=q,
            seed=seed,
            **more,
        )
        for seed, (s, q) in enumerate(zip(seconds, top1))
    ]
    return Cell(f"b={name}", {"b": name}, MEASURED, "", runs)


def compared(*cells: Cell, **more) -> Comparison:
    return Comparison(
        "mnist", "1,000 samples each", {"b": [c.settings["b"] for c in cells]}, [*cells], 3, **more
    )


SLOW = measured("4", [10.0, 10.2, 9.8], [61.0, 62.0, 63.0])
FAST = measured("32", [5.0, 5.1, 4.9], [61.5, 62.5, 62.2])


def test_the_ratio_carries_both_spreads():
    times, sd = spread.ratio(spread.of([10.0, 10.2, 9.8]), spread.of([5.0, 5.1, 4.9]))
    assert times == pytest.approx(2.0) and sd == pytest.approx(2 * (0.02**2 + 0.02**2) ** 0.5)
    assert spread.ratio(spread.of([10.0]), spread.of([5.0])) == (2.0, None)
    assert spread.of([1.0, None]) is None and spread.of([]) is None


def test_a_difference_is_one_where_repeats_do_not_explain_it():
    of = spread.of
    assert spread.differ(of([10.0, 10.2, 9.8]), of([5.0, 5.1, 4.9])) == spread.BEYOND
    assert spread.differ(of([10.0, 12.0, 11.0]), of([10.5, 11.5, 12.0])) == spread.WITHIN
    assert spread.differ(of([94.4, 95.6]), of([88.3, 90.3])) == spread.OPEN  # two repeats are few
    assert spread.differ(of([10.0]), of([5.0])) == spread.UNKNOWN
    assert spread.differ(of([5.0, 5.0]), of([5.0, 5.0])) == spread.WITHIN


def test_the_best_comes_first_with_how_much_and_how_sure():
    said = reading(compared(SLOW, FAST))
    assert said[0] == (
        "b=32 was the fastest: 5.00 ± 0.10 s for 1,000 samples (200 ± 4 samples/s), "
        "2.00 ± 0.06 times as fast as the baseline b=4."
    )
    assert said[1].startswith(
        "b=32: 2.00 ± 0.06 times the baseline's speed; top1 within its spread (62.1 ± 0.5"
    )
    assert page.than_best(compared(SLOW, FAST, measured("8", [7.0] * 3, [60.0] * 3)))[1] == (
        "2.00 ± 0.06 times faster than b=4"
    )


def test_speed_that_costs_accuracy_says_so_at_once():
    worse = measured("64", [4.0, 4.1, 3.9], [51.0, 51.5, 50.5])
    said = reading(compared(SLOW, worse))
    assert "its top1 is 11.0 points lower (51.0 ± 0.5 against 62.0 ± 1.0 %)" in said[0]
    assert "more than the spread" in said[1]


def test_one_repeat_gives_numbers_and_no_verdict():
    said = " ".join(reading(compared(measured("4", [10.0], [61.0]), measured("32", [5.0], [65.0]))))
    assert "2.00 times the baseline's speed" in said and "without a verdict" in said
    assert "one repeat has no spread" in said and "±" not in said


def test_equal_seeds_say_nothing_of_accuracy():
    """Twice the same training is one training: its accuracy is the same, and that is no spread."""
    cell = measured("4", [10.0, 10.2], [61.0, 61.0])
    for m in cell.measures:
        object.__setattr__(m, "seed", 1)
    assert cell.quality().sd is None and cell.repeats("seconds").sd > 0


def test_what_was_not_measured_is_a_row_with_its_reason():
    no = Cell("b=8", {"b": "8"}, CANNOT, "1gpu needs a GPU")
    nan = Cell("b=16", {"b": "16"}, FAILED, "70 the loss is not finite (seed 1)")
    c = compared(SLOW, no, nan)
    said = reading(c)
    assert said[0].startswith("b=4 is the only one that was measured")
    assert "b=8 cannot be measured here: 1gpu needs a GPU." in said
    assert "b=16 failed: 70 the loss is not finite (seed 1)." in said
    assert "not here" in tables.text(c) and "failed" in tables.text(c)


def test_uneven_threads_and_machines_are_said():
    four, two = {"host": "a", "world": 1, "threads": 4}, {"host": "a", "world": 1, "threads": 2}
    said = " ".join(
        reading(compared(measured("4", [9.0], [1], facts=four), measured("8", [5.0], [1], facts=two)))
    )
    assert "had 2 or 4 threads each: --threads" in said
    other = measured("8", [5.0], [1], facts=two | {"host": "b"})
    said = " ".join(reading(compared(measured("4", [9.0], [1], facts=four), other)))
    assert "threads" not in said and "several machines (a, b)" in said


def test_a_target_compares_the_time_to_it_and_names_who_missed():
    slow, fast = measured("4", [10.0, 11.0], [62, 62], reached=True), measured("32", [5, 5], [40, 41])
    said = reading(compared(slow, fast, target=Target("top1", 60.0)))
    assert said[0].startswith("b=4 is the only one that was measured: 10.5 ± 0.7 s to top1=60")
    assert "b=32: 2 of 2 runs did not reach top1=60 (top1 40.5 ± 0.7 % at the end)." in said


def test_the_csv_begins_as_lab_reports_do():
    rows = list(csv.reader(io.StringIO(tables.csv_text(compared(SLOW, FAST)))))
    assert rows[0][:5] == [
        "Optimization Technique",
        "Training Time (seconds)",
        "Accuracy (%)",
        "Memory Usage (MB)",
        "Epochs",
    ]
    assert (
        rows[1][:3] == ["b=4", "10", "62"] and rows[1][4] == "1" and {len(r) for r in rows} == {len(rows[0])}
    )


def test_a_comparison_is_written_and_read(tmp_path):
    no = Cell("b=<script>", {"b": "<script>"}, CANNOT, "needs a GPU")
    page.write(compared(SLOW, FAST, no), tmp_path)
    found = records.comparison(tmp_path)
    assert found["best"] == "b=32" and found["baseline"] == "b=4" and len(found["cells"]) == 3
    assert found["cells"][1]["seconds"]["values"] == [5.0, 5.1, 4.9]
    assert found["cells"][1]["faster"]["mean"] == pytest.approx(2.0)
    text = (tmp_path / "compare.html").read_text()
    assert "b=<script>" not in text and "b=&lt;script&gt;" in text and "62.0" in text
    assert "Optimization" not in (tmp_path / "compare.md").read_text()
    (tmp_path / "compare.json").write_text(dump_json(found | {"schema": 2}))
    assert records.comparison(tmp_path) == {}
    (tmp_path / "compare.json").write_text("[]")
    assert records.comparison(tmp_path) == {}


def test_numbers_have_as_many_places_as_their_spread():
    assert with_spread(5.2, 0.051, "s") == "5.20 ± 0.05 s" and with_spread(1234.5, 20.0) == "1,234 ± 20"
    assert with_spread(5.0, 0.0004) == "5.000 ± 0.000" and with_spread(12.0, None, "s") == "12.0 s"


# one run's records --------------------------------------------------------------------------------


def run(folder, rows: list[dict], state: str = "done") -> RunDir:
    made = RunDir(folder)
    folder.mkdir()
    made.config.write_text(json.dumps({"workload": "mnist", "seed": 3}))
    made.plan.write_text(json.dumps({"device": "cpu", "host": "here", "threads": 1}))
    made.status.write_text(json.dumps({"state": state}))
    made.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def row(step: int, speed: float | None = None, top1: float | None = None) -> dict:
    found = {"step": step, "samples": 10 * step, "epoch": step / 10}
    if top1 is not None:
        return found | {"split": "val", "top1": top1, "loss": 1.0}
    return found | {
        "split": "train",
        "samples_per_s": speed,
        "data_wait_share": 0.5,
        "peak_memory_mb": 9.0 + step,
    }


ROWS = [row(5, 10), row(10, 100), row(10, top1=50.0), row(15, 50), row(20, 100), row(20, top1=60.0)]


def test_the_first_window_is_warm_up_and_evaluations_are_apart(tmp_path):
    found = measure.of(run(tmp_path / "a", ROWS))
    assert found.samples == 200 and found.samples_per_s == pytest.approx(150 / (0.5 + 1.0 + 0.5))
    assert found.seconds == pytest.approx(200 / 75) and found.quality == 60.0 and found.seed == 3
    assert found.data_wait_share == pytest.approx(0.5) and found.peak_memory_mb == 29.0
    assert found.device_memory_mb is None and found.facts["host"] == "here"


def test_up_to_the_target_and_no_further(tmp_path):
    going = run(tmp_path / "a", ROWS, state="running")
    assert measure.of(going) is None and measure.of(going, Target("top1", 70.0)) is None
    found = measure.of(going, Target("top1", 50.0))
    assert (found.step, found.samples, found.quality, found.reached) == (10, 100, 50.0, True)
    assert found.seconds == pytest.approx(1.0)
    assert measure.of(run(tmp_path / "b", ROWS), Target("top1", 70.0)).reached is False
    assert Target("ppl", 200.0, up=False).reached(150.0) and not Target("top1", 1.0).reached(None)


def test_damaged_records_are_passed_by(tmp_path):
    odd = [{"step": 5, "split": "train", "samples_per_s": "fast", "samples": 50}, {"step": 6, "split": "val"}]
    found = measure.of(run(tmp_path / "a", [*odd, row(10, 0.0)]))
    assert found.seconds is None and found.quality is None
