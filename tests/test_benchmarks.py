"""The programs in benchmarks/: that they measure in turns, and that their page says what was missed."""

import json
import sys
from dataclasses import asdict, replace

import pytest

from rigs import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))
import table

from rows import Block, Row, faster, row_of, spread, times
from side_by_side import Child, alternate

SETTING = {
    "date": "2026-11-26",
    "machine": {"cpu": "Some CPU", "cpus": 2},
    "versions": {"torch": "2.15.0"},
    "threads": 1,
    "rounds": 3,
    "command": "python benchmarks/some.py",
}


def counting(turns, log, name: str, operations: int) -> None:
    """A side whose every unit is so many operations, which it counts and writes down with its process."""
    import os

    done = 0

    def work(units: int) -> float:
        nonlocal done
        for _ in range(units * operations):
            done += 1
        with open(log, "a") as file:
            file.write(f"{name} {units} {done} {os.getpid()}\n")
        return float(done)

    turns(steps=work)


def test_sides_take_turns_in_processes_of_their_own_and_do_as_many_units(tmp_path):
    log = tmp_path / "log"
    with Child(counting, log, "a", 30) as a, Child(counting, log, "b", 10) as b:
        blocks = alternate({"a": a.side(), "b": b.side()}, rounds=3, seconds=1, units=5)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [name for name, *_ in lines] == [*"abab", *"ba", *"ab", *"ba"]  # two that warm up, then ABBA
    assert [units for _, units, *_ in lines[4:]] == ["5"] * 6
    assert len({process for *_, process in lines}) == 2
    counted = row_of(blocks, lambda x, y: {"operations": x.loss / y.loss}, 0, **fields())
    assert counted.ratios == {"operations": (3.0, 3.0, 3.0)}
    assert all(
        block.units == 5 and block.cpu > 0 and block.peak_mb > 1 for of in blocks.values() for block in of
    )


def failing(turns) -> None:
    sys.exit(3)


def test_a_side_that_ends_ends_the_program():
    with Child(failing) as child, pytest.raises(SystemExit, match="ended with 3"):
        child.side()(1)


def fields(**changed) -> dict:
    row = dict(
        program="some", what="work", bound=0.5, least=False, before="0.9", unit="step", setting=SETTING
    )
    return row | changed


def row(ratio: float, cpu: float = 1.0, **changed) -> Row:
    """`cpu`: the share of the time that a side had."""
    ours, theirs = Block(10, ratio, cpu * ratio, 100, 50.0, 2.5), Block(10, 1.0, cpu, 200, 60.0, float("nan"))
    figure = faster if changed.get("least") else times
    return row_of({"ours": [ours] * 3, "theirs": [theirs] * 3}, figure, 64, **fields(**changed))


def test_a_bound_is_met_only_by_both_times():
    assert row(0.5).met and not row(0.51).met
    assert row(0.05, least=True, bound=17).met and not row(0.06, least=True, bound=17).met
    assert row(0.5, bound=None).met is None
    assert not replace(row(0.4), ratios={"CPU": (0.4,) * 3, "wall": (0.5, 0.6, 0.7)}).met
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_the_page_says_what_was_missed_and_keeps_what_was_written_by_hand(tmp_path, monkeypatch):
    results, page = tmp_path / "bench.jsonl", tmp_path / "performance.md"

    def write(*records: dict, run: float = 0) -> str:
        with open(results, "a") as file:
            file.writelines(json.dumps({"run": run} | record) + "\n" for record in records)
        monkeypatch.setattr(sys, "argv", ["table.py", str(results), str(page)])
        table.main()
        return page.read_text()

    missed, met = asdict(row(0.744, what="batch 4")), asdict(row(0.05, least=True, bound=17, what="input"))
    assert "other work during: some work. Their" in write(asdict(row(0.4, cpu=0.8)))
    text = write(missed, met, {"program": "other", "what": "", "skipped": "no packed data set"}, run=1)
    assert "other work" not in text
    assert "**1 of 2 bounds are met.**" in text
    assert "- Missed: some batch 4 is at 0.744, and should be at most 0.5." in text
    assert "| CPU **0.744** (0.744-0.744); wall **0.744** (0.744-0.744) | 3 | 0.9 | ≤ 0.5 | **no** |" in text
    assert "| CPU **20** (20-20); wall **20** (20-20) | 3 | 0.9 | ≥ 17 | yes |" in text
    assert "| some | batch 4 | ours | step | 74.4 | 74.4 | 860 | 10 | 50 | 2.5000 |" in text
    assert "Not measured:\n\n- other: no packed data set\n" in text
    assert "Some CPU, 2 cores, 1 thread a side; torch 2.15.0" in text
    assert text.endswith(f"{table.MARK}\n\n{table.BY_HAND}")

    page.write_text(
        text.replace("Nothing is recorded yet.", "torch.compile: slower.\n\n| a | b |\n|---|---|")
    )
    times = dict(cpu=[14.0, 13.0, 20.0], wall=[15.0] * 3, peer={"cpu": 140.0}, setting=SETTING)
    goal = dict(program="time", what="to 62 %", goal=62.0, bound=15.0, top1=[62.5, 63.5, 64.5]) | times
    again = write(goal, goal | {"what": "to 63 %", "goal": 63.0}, run=2)
    assert "| to 62 % | 3 | 63.50 ± 1.00 % | 62.50 % | 14.0 | 15.0 | ≤ 15 s | 140 | yes |" in again
    assert "- Missed: time to 63 %: 62.50 % at the least, 14.0 s of CPU." in again
    results.write_text("".join(line for line in results.read_text().splitlines(True) if '"time"' not in line))
    again = write(met, run=2)
    assert "- other: no packed" in again and "batch 4" not in again and "**1 of 1 bounds are met.**" in again
    assert again.endswith("did not help\n\ntorch.compile: slower.\n\n| a | b |\n|---|---|\n")
    assert write(met, run=3) == again
