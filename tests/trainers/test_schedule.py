"""The learning rate, against PyTorch's own schedulers."""

import pytest
import torch
from torch.optim import lr_scheduler

from relaunch.trainers.config import parse
from relaunch.trainers.schedule import due, learning_rate, log_interval


def theirs(make, steps: int, lr: float = 0.4) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    scheduler = make(optimizer)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def ours(flags: str, steps: int, per_epoch: int = 10) -> list[float]:
    config = parse(["mnist", "--lr", "0.4", *flags.split()]).config
    return [learning_rate(config, step, per_epoch, steps) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 1234])
def test_one_cycle(steps):
    expected = theirs(lambda o: lr_scheduler.OneCycleLR(o, 0.4, total_steps=steps), steps)
    assert ours("--schedule one-cycle", steps) == pytest.approx(expected)


@pytest.mark.parametrize("size, gamma", [(1, 0.7), (3, 0.1)])
def test_step(size, gamma):
    def per_epoch(optimizer):
        return lr_scheduler.LambdaLR(optimizer, lambda step: gamma ** (step // 10 // size))

    assert ours(f"--schedule step --step-size {size} --gamma {gamma}", 95) == pytest.approx(
        theirs(per_epoch, 95)
    )
    by_epoch = theirs(lambda o: lr_scheduler.StepLR(o, size, gamma), 10)
    assert ours(f"--schedule step --step-size {size} --gamma {gamma}", 95)[::10] == pytest.approx(by_epoch)


def test_cosine():
    assert ours("--schedule cosine", 95) == pytest.approx(
        theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, 95), 95)
    )


def test_warm_up_then_cosine():
    rates = ours("--schedule cosine --warmup-steps 20", 95)
    assert rates[:20] == pytest.approx([0.4 * (i + 1) / 20 for i in range(20)])
    assert rates[20:] == pytest.approx(theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, 75), 75))


def test_warm_up_goes_with_one_cycle():
    rates, plain = ours("--schedule one-cycle --warmup-steps 20", 95), ours("--schedule one-cycle", 95)
    assert rates == pytest.approx([rate * min(1, (i + 1) / 20) for i, rate in enumerate(plain)])


def test_a_warm_up_longer_than_the_run():
    assert ours("--schedule cosine --warmup-steps 200", 5) == pytest.approx(
        [0.4 * (i + 1) / 200 for i in range(5)]
    )


def test_constant():
    assert ours("--schedule constant", 5) == [0.4] * 5


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_schedules_that_can_be_extended_do_not_depend_on_the_length(schedule):
    assert ours(f"--schedule {schedule} --warmup-steps 3", 95)[:40] == ours(
        f"--schedule {schedule} --warmup-steps 3", 40
    )


def test_due():
    assert [step for step in range(1, 24) if due(step, 5, 23)] == [5, 10, 15, 20, 23]
    assert [step for step in range(1, 24) if due(step, 5, 23, within=9)] == [5, 9, 14, 18, 23]


@pytest.mark.parametrize("flags, steps, every", [("", 4690, 100), ("", 11, 3), ("", 1, 1)])
def test_an_epoch_has_several_lines(flags, steps, every):
    assert log_interval(parse(["mnist", *flags.split()]).config, steps) == every


def test_linear_falls_to_nothing_after_the_warm_up():
    rates = ours("--schedule linear", 8)
    assert rates == pytest.approx([0.4 * (1 - step / 8) for step in range(8)])
    assert ours("--schedule linear --warmup-steps 4", 8) == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.4, 0.3, 0.2, 0.1]
    )
