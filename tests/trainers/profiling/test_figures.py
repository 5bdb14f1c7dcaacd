"""Numbers of recorded events, with events made here: also those of a GPU, which no machine of ours needs."""

from types import SimpleNamespace as Named

import pytest

from relaunch.trainers.profiling import figures, page

MS = 1000.0  # of events, whose times are in us


def event(name, start, end, parent=None, self_ms=None, ours=False, device_ms=0.0, memory=0, thread=1):
    return Named(
        name=name,
        time_range=Named(start=start * MS, end=end * MS),
        cpu_time_total=(end - start) * MS,
        self_cpu_time_total=(end - start if self_ms is None else self_ms) * MS,
        self_device_time_total=device_ms * MS,
        cpu_memory_usage=memory,
        device_memory_usage=0,
        is_user_annotation=ours,
        is_async=False,
        device_type=Named(name="CPU"),
        cpu_parent=parent,
        thread=thread,
    )


def steps(device: float = 0.0) -> list:
    """Two steps of 10 ms; between them an evaluation, which is none of their business."""
    events = []
    for start in (0.0, 100.0):
        step = event("step", start, start + 10, self_ms=1, ours=True)
        parts = [
            event("input", start, start + 1, step, ours=True),
            event("forward", start + 1, start + 4, step, self_ms=1, ours=True),
            event("backward", start + 4, start + 8, step, self_ms=4, ours=True),
            event("optimizer", start + 8, start + 9, step, ours=True),
        ]
        linear = event("aten::linear", start + 1, start + 3, parts[1], self_ms=0.5, memory=3_000_000)
        events += [
            step,
            *parts,
            linear,
            event("aten::mm", start + 1, start + 2.5, linear, device_ms=2 * device),
            event("forward", start + 1, start + 3, parts[1], ours=True),  # a model's own range
            event("aten::mm", start + 5, start + 7, device_ms=3 * device, thread=2),  # autograd's thread
            event("[memory]", start + 5, start + 5),
        ]
    return [*events, event("aten::mm", 50.0, 90.0)]


def test_shares_sum_to_1_and_what_lies_outside_the_steps_does_not_count():
    found = figures.read(steps(), steps=2)
    assert found["profiled_ms"] == pytest.approx(10)
    assert found["phases"] == pytest.approx({"input": 1, "forward": 3, "backward": 4, "optimizer": 1})
    rows = {row["name"]: row for row in found["operators"]}
    assert list(rows) == [figures.OUTSIDE, "aten::mm", "aten::linear"]
    assert (rows["aten::mm"]["self_ms"], rows["aten::mm"]["calls"]) == pytest.approx((3.5, 2))
    assert (rows["aten::linear"]["self_ms"], rows["aten::linear"]["total_ms"]) == pytest.approx((0.5, 2))
    assert rows["aten::linear"]["memory_mb"] == pytest.approx(3)
    assert rows[figures.OUTSIDE]["self_ms"] == pytest.approx(6)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert sum(row["self_ms"] for row in rows.values()) == pytest.approx(found["profiled_ms"])
    assert found["device_phases"] == {}


def test_on_a_gpu_shares_are_of_the_kernels_and_belong_to_the_phase_that_launched_them():
    found = figures.read(steps(device=1.0), steps=2)
    rows = {row["name"]: row for row in found["operators"]}
    assert found["operators"][0]["name"] == "aten::mm" and rows["aten::mm"]["device_ms"] == pytest.approx(5)
    assert rows["aten::mm"]["share"] == pytest.approx(1) and rows[figures.OUTSIDE]["share"] == 0
    on_device = {"input": 0, "forward": 2, "backward": 3, "optimizer": 0}
    assert found["device_phases"] == pytest.approx(on_device)
    assert rows["aten::mm"]["self_ms"] == pytest.approx(3.5)  # the host's time stays apart


def setting(batch: int, found: dict, device: str = "cpu") -> dict:
    about = {"config": "cpu", "device": device, "device_name": "x86_64", "world": 1, "threads": 1}
    times = {"step_ms": 8.0, "sample_us": 8000 / batch, "independent_ms": 10.1, "overhead": 0.25}
    flops = {"flops_per_step": 2_000_000, "flops_per_s": 250e6, "trace": "trace-cpu-b1.json.gz"}
    return {"batch_size": batch, "steps": 2, "inputs": [[batch, 3]], **about, **times, **flops, **found}


def test_the_table_ends_with_all_and_the_page_draws_how_shares_move():
    one = setting(1, figures.read(steps(), 2))
    head, *rows = page.operators(one, limit=1)
    assert [row[0] for row in rows] == ["aten::mm", "1 other operators", figures.OUTSIDE, "all"]
    assert head[1:3] == ["self ms", "share"] and rows[-1][1:3] == ["10.0", "100.0 %"]
    assert "10.1 ms by a timer around them (-1.0 %); profiler overhead +25 %" in page.agreement(one)
    other = setting(16, figures.read(steps()[:8], 1))
    moved = page.moves([one, other])
    assert [sum(column) for column in zip(*moved.values())] == pytest.approx([1, 1])
    charts = [block for block in page.blocks({"workload": "w", "data": "d", "settings": [one, other]})]
    drawn = next(b for b in charts if type(b).__name__ == "Chart")
    assert drawn.data["labels"] == ["batch 1", "batch 16"]
    assert drawn.data["parts"]["mm"][0] == pytest.approx(35)
    assert page.blocks({}) == []


def test_a_gpus_page_has_a_table_by_device_and_one_by_host_time():
    found = page.blocks(
        {"workload": "w", "data": "d", "settings": [setting(1, figures.read(steps(1.0), 2), "cuda")]}
    )
    tables = [b for b in found if type(b).__name__ == "Table" and "operator" in b.head]
    assert [t.caption for t in tables] == ["By device time", "By host time"]
    assert [t.rows[0][0] for t in tables] == ["aten::mm", "aten::mm"]
    assert [t.rows[0][2] for t in tables] == ["100.0 %", "35.0 %"] and tables[0].head[-1] == "device ms"


def test_names_in_a_legend_are_short_and_not_the_same():
    names = ["aten::mm", "aten::" + 30 * "a", "aten::" + 31 * "a", "SumBackward0"]
    names += ["autograd::engine::evaluate_function: SumBackward0"]
    found: list[str] = []
    for name in names:
        found.append(page.brief(name, found))
    assert found == [
        "mm",
        f"{16 * 'a'}…{7 * 'a'}",
        f"{16 * 'a'}…{5 * 'a'} 2",
        "SumBackward0",
        "SumBackward0 2",
    ]
