"""What a plan says, emulation, room, restarts and the doctor: pure functions given invented machines."""

import dataclasses

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.sizes import Sizes, published
from relaunch.launch import (
    accelerate_config,
    command,
    draft,
    estimate,
    machine,
    plan,
    preflight,
    restart,
    show,
)
from relaunch.launch.facts import Facts
from relaunch.launch.restart import Crash
from relaunch.trainers import workloads
from relaunch.trainers.config import parse

EIGHT = Facts(
    gpus=8,
    gpus_installed=8,
    gpu_names=("NVIDIA H100",) * 8,
    cores=64,
    memory=10**12,
    shared_memory=10**10,
    host="n1",
)
LAPTOP = Facts(cores=2, memory=8 * 10**9, shared_memory=None, host="lap")
DIGITS = plan.Data(name="digits", where="data/digits", hash="c7ee25dc49d286c8", sizes=published("digits"))
PHOTOGRAPHS = plan.Data(name="cifar10", where="data/cifar10", sizes=published("cifar10"))
WORDS = Sizes(data="pydoc", kind="text", counts={"train": 10001}, shape=(), outputs=50)
PYDOC = plan.Data(name="pydoc", where="data/pydoc", hash="ab", sizes=WORDS)
VERSIONS = {"python": "3.11.7", "torch": "2.15.0", "accelerate": "1.15.0"}
LAYERS = {
    "layers": [
        {"name": "conv1", "type": "Conv2d", "output": [1, 32, 26, 26], "parameters": 320, "flops": 389376},
        {
            "name": "conv2",
            "type": "Conv2d",
            "output": [1, 64, 24, 24],
            "parameters": 18496,
            "flops": 21233664,
        },
    ],
    "parameters": 18816,
    "trained": 18816,
    "flops": 21623040,
}


def planned(
    here: Facts, name: str, line: str = "mnist", data=DIGITS, place=plan.Place(run="runs/x")
) -> plan.Plan:
    typed, rest = command.split(line.split())
    emulate = typed.pop("emulate", False)
    asked = accelerate_config.read(name)
    return plan.make(
        "train",
        rest,
        asked,
        accelerate_config.override(asked, **typed),
        here,
        draft.beginning(command.job(rest), 0).config,
        data,
        place,
        emulate,
    )


def test_the_table_says_it_all():
    text = show.table(
        planned(
            EIGHT,
            "8gpu_fp16",
            "mnist --epochs 3 --warmup-steps 5 --grad-accum-steps 2",
            place=plan.Place(run="runs/x", step=1200),
        )
    )
    for words in (
        "mnist cnn",
        "digits in data/digits: 1,437 train, 360 test, hash c7ee25dc49d2",
        "8 processes on 8 GPUs",
        "n1: 64 cores, 8 x NVIDIA H100",
        "8 a process",
        "fp16",
        "64 = 8 processes x 2 micro-batches x 4",
        "22 an epoch, 66 in all",
        "1, step, 5 steps of warm-up; adadelta",
        "runs/x, goes on from its checkpoint of step 1,200",
        "accelerate launch --config_file",
        "-m trainers.train mnist --epochs 3",
    ):
        assert words in text, words
    two = show.table(planned(EIGHT, "2x8gpu", "mnist --main-process-ip n0 --machine-rank 1"))
    assert "16 processes on 2 machines x 8 GPUs" in two and "the first is n0:29500; this is number 1" in two


@pytest.mark.parametrize(
    "name, flags, said",
    [
        ("8gpu", "", "fp32, TF32 in convolutions on GPUs from Ampere on (--tf32)"),
        (
            "8gpu",
            "--tf32 all",
            "fp32, TF32 in convolutions and matrix products on GPUs from Ampere on (--tf32)",
        ),
        ("8gpu", "--tf32 none", "fp32"),
        (
            "8gpu_fp16",
            "",
            "fp16: matrix products and convolutions, its gradients scaled against underflow; weights, their "
            "gradients, the optimizer and the loss in fp32",
        ),
        (
            "cpu",
            "--mixed-precision bf16",
            "bf16: matrix products and convolutions; weights, their gradients, the optimizer and the loss in "
            "fp32",
        ),
        ("cpu", "", "fp32"),
    ],
)
def test_what_is_computed_in_what_is_said(name, flags, said):
    rows = show.table(planned(EIGHT, name, f"mnist {flags}")).splitlines()
    assert f"{'precision':14}{said}" in rows


def test_the_line_on_top_of_a_start():
    assert (
        show.line(planned(LAPTOP, "cpu2"))
        == "relaunch train: 2 processes on the CPU (cpu2), fp32; batch 64 = 2 processes x 32; runs/x"
    )


@pytest.mark.parametrize(
    "line, data, epoch, total",
    [
        ("mnist", DIGITS, 22, 308),
        ("mnist --max-steps 5", DIGITS, 22, 5),
        ("mnist --time 5m", DIGITS, 22, None),
        ("mnist --max-steps 5", plan.Data(name="d", where="d"), None, 5),
        (
            "wikitext2 --epochs 2",
            PYDOC,
            15,
            30,
        ),  # 20 columns of 500 words hold 499 targets: 14 x 35 and a shorter one
    ],
)
def test_steps(line, data, epoch, total):
    todo = planned(LAPTOP, "cpu", line, data)
    assert (todo.epoch_steps, todo.total_steps) == (epoch, total)


def test_micro_batches_that_are_chosen_at_the_start():
    todo = dataclasses.replace(planned(LAPTOP, "cpu2", "mnist --micro-batch auto"), fits=True)
    assert show.batch(todo) == "64 = 2 processes x 32, or in as few micro-batches as fit its memory"
    assert plan.with_smallest_micro_batches(todo).micro_batch == 2
    odd = dataclasses.replace(todo, config=dataclasses.replace(todo.config, batch_size=2))
    assert plan.with_smallest_micro_batches(odd).micro_batch == 1


def test_emulation_keeps_the_processes_and_their_shares():
    todo = planned(LAPTOP, "2x8gpu", "mnist --emulate")
    preflight.check(todo)
    assert (todo.accelerate.processes, todo.accelerate.machines, todo.local, todo.micro_batch) == (
        16,
        1,
        16,
        4,
    )
    assert todo.command[5:10] == ("--gpu_ids=-1,-1", "--num_machines", "1", "--main_process_port", "0")
    assert planned(LAPTOP, "8gpu_fp16", "mnist --emulate").accelerate.precision == "no"
    alone = planned(EIGHT, "1gpu", "mnist --emulate")
    assert (
        alone.direct
        and alone.variables["ACCELERATE_USE_CPU"] == "True"
        and "--cpu" in alone.accelerate_command
    )


@pytest.mark.parametrize(
    "facts, line, data, code",
    [
        (dict(writable=False), "mnist", DIGITS, 73),
        (dict(free=10**6), "mnist", DIGITS, 73),
        ({}, "mnist -b 2000", DIGITS, 64),
        ({}, "mnist --threads 3", DIGITS, 64),
        ({}, "mnist --crop 28", DIGITS, 64),
        ({}, "cifar10 --arch net", DIGITS, 64),
        ({}, "mnist", PHOTOGRAPHS, 64),
    ],
)
def test_what_the_place_or_the_data_cannot_bear_is_refused(facts, line, data, code):
    with pytest.raises(Failure) as caught:
        preflight.check(planned(dataclasses.replace(LAPTOP, **facts), "cpu", line, data))
    assert caught.value.code == code and caught.value.fix


def test_a_run_that_was_begun_keeps_its_threads():
    """With others it would train other bits."""
    place = plan.Place(run="runs/x", resumes=True)
    assert not preflight.problems(planned(LAPTOP, "cpu", "mnist --threads 3 --crop 28", place=place))


def test_data_of_another_size_say_whose_they_are():
    assert "relaunch train cifar10" in preflight.fits(planned(LAPTOP, "cpu", "mnist", PHOTOGRAPHS)).fix
    assert preflight.fits(planned(LAPTOP, "cpu", "cifar10 --arch resnet18", DIGITS)) is None


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_sides_of_an_architecture_are_those_that_its_network_takes(name):
    torch = pytest.importorskip("torch")
    work = workloads.load(name)
    for arch, sides in work.sides.items():
        for side in range(sides[0] - 2, sides[-1] + 3):
            sizes = dataclasses.replace(published(name), shape=(*published(name).shape[:1], side, side))
            model = work.model(dataclasses.replace(parse([name]).config, arch=arch), sizes).eval()
            try:
                assert model(torch.zeros(1, *sizes.shape)).shape == (1, 10)
                takes = True
            except RuntimeError:
                takes = False
            assert takes == (side in sides), (arch, side)


def test_memory_is_estimated_from_the_models_layers():
    size = estimate.size(LAYERS, planned(LAPTOP, "cpu2"))
    assert (size.parameters, size.state, size.checkpoint) == (18816, 4 * 18816 * 5, 4 * 18816 * 3)
    assert size.activations == 4 * (32 * 26 * 26 + 64 * 24 * 24) * 250  # scored at a time: more than 2 x 32
    assert "18,816 parameters, " in estimate.say(size)
    frozen = estimate.size(LAYERS | {"trained": 320}, planned(LAPTOP, "cpu2"))
    assert frozen.state == 4 * (18816 + 320 * 4) and frozen.checkpoint == 4 * (18816 + 320 * 2)
    assert "18,816 parameters (320 of them trained), " in estimate.say(frozen)
    averaged = planned(LAPTOP, "cpu2", "mnist --ema 0.9 --optimizer muon")
    assert estimate.size(LAYERS, averaged).state == 4 * 18816 * 6


@pytest.mark.parametrize(
    "crashes, limit, why",
    [
        ([Crash("a", None, 10)], 3, ""),
        ([Crash("a", None, None)], 3, "before the first checkpoint"),
        ([Crash("a", 12, 10), Crash("a", 12, 10)], 3, "the same failure twice, at step 12"),
        ([Crash("a", 12, 10), Crash("a", 13, 10)], 3, ""),
        ([Crash("a", None, 10)] * 3, 3, ""),
        ([Crash("a", None, 10)] * 4, 3, "3 restarts brought no new checkpoint"),
        ([Crash("a", None, 10)] * 3 + [Crash("a", None, 20)], 3, ""),  # refilled
        ([Crash("a", None, 10)], 0, "not restarted"),
    ],
)
def test_when_to_start_again(crashes, limit, why):
    assert restart.verdict(crashes, limit).startswith(why) and bool(restart.verdict(crashes, limit)) == bool(
        why
    )


def failures(here: Facts, name: str, versions=VERSIONS, line="mnist") -> dict[str, int]:
    made = machine.checks(planned(here, name, line), versions)
    assert all("fix: " in c.lines() for c in made if c.failure)
    return {c.name: c.failure.code for c in made if c.failure}


@pytest.mark.parametrize(
    "here, name, wrong",
    [
        (EIGHT, "8gpu", {}),
        (LAPTOP, "cpu", {}),
        (LAPTOP, "cpu2", {}),
        (LAPTOP, "8gpu", {"devices": 69, "/dev/shm": 69}),
        (dataclasses.replace(EIGHT, gpus=4, gpus_installed=4), "8gpu", {"devices": 69}),
        (dataclasses.replace(EIGHT, shared_memory=64 * 2**20), "8gpu", {"/dev/shm": 69}),
        (dataclasses.replace(EIGHT, shared_memory=64 * 2**20), "1gpu", {}),
        (dataclasses.replace(LAPTOP, open_files=256), "cpu", {"open files": 69}),
        (dataclasses.replace(LAPTOP, free=10**6), "cpu", {"disk": 73}),
        (dataclasses.replace(LAPTOP, writable=False), "cpu", {"disk": 73}),
    ],
)
def test_the_doctor_finds_what_is_wrong(here, name, wrong):
    assert failures(here, name) == wrong


def test_the_doctor_looks_at_versions():
    assert failures(LAPTOP, "cpu", {"python": "3.11", "accelerate": "1.15"}) == {"software": 64}
    assert failures(LAPTOP, "cpu", VERSIONS | {"torch": "2.6.0"}) == {"software": 64}
    assert failures(EIGHT, "8gpu", VERSIONS | {"torch": "2.15.0+cpu"}) == {"software": 69}
    assert failures(LAPTOP, "cpu", VERSIONS, "mnist -b 63 --num-processes 2") == {"batch": 64}


def test_flags_can_be_typed_again():
    typed, _ = command.split("mnist --num_processes=3 --config cpu2 --emulate --mixed-precision bf16".split())
    assert command.split(["mnist", *command.words(typed)]) == (typed, ["mnist"])
