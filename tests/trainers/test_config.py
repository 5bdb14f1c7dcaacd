"""The config: parsed once, strict in JSON, every mistake one line with code 64, merged when a run resumes."""

import dataclasses
import json

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import workloads
from relaunch.trainers.config import RunConfig, completed, parse, workload_parser
from relaunch.trainers.resumed import differences, merge_resumed
from relaunch.trainers.tasks.images import ImageOptions

NAMES = workloads.names()


def config(command: str) -> RunConfig:
    return parse(command.split()).config


def refused(command: str) -> str:
    """The line of a refusal."""
    with pytest.raises(Failure) as failure:
        parse(command.split())
    assert failure.value.code == 64
    return failure.value.line()


# flags ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_workloads_defaults_are_its_own(name):
    made, work = config(name), workloads.load(name)
    assert (made.workload, made.data, made.arch) == (name, work.data, work.archs[0])
    values = dataclasses.asdict(made)
    for key, value in work.defaults.items():
        assert {**values, **values["options"]}[key] == value


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_flag_and_its_documentation(name):
    text = workload_parser(name).format_help()
    for f in (*dataclasses.fields(RunConfig), *dataclasses.fields(workloads.load(name).options)):
        assert f.metadata["help"]
        if f.name not in ("workload", "options", "code"):
            assert f"--{f.name.replace('_', '-')} " in text or f"--{f.name.replace('_', '-')}, " in text, (
                f.name
            )
    assert "None" not in text and "''" not in text


def test_flags_may_be_written_with_hyphens_underscores_and_equals_signs():
    expected = config("cifar10 --batch-size 32 --max-steps 7 --label-smoothing 0.1 --no-flip")
    for command in (
        "cifar10 --batch_size 32 --max_steps 7 --label_smoothing 0.1 --no_flip",
        "cifar10 -b 32 --max-steps=7 --label_smoothing=0.1 --no-flip",
    ):
        assert config(command) == expected
    assert config("mnist --data my_set --seed 3").data == "my_set"
    assert parse(["mnist", "--run_name=a_b".replace("_name", "")]).launch.run == "a_b"


def test_what_was_typed_is_known():
    job = parse("cifar10 --preset tutorial --lr 0.01 --run x --stop-after 3".split())
    assert "lr" in job.given and "batch_size" in job.given and not {"run", "stop_after", "seed"} & job.given
    assert (job.launch.run, job.launch.stop_after, job.launch.resume) == ("x", 3, None)


def test_a_preset_is_over_the_defaults_and_under_the_flags():
    made = config("cifar10 --preset tutorial --lr 0.5")
    assert (made.arch, made.batch_size, made.lr, made.momentum, made.options.flip) == (
        "net",
        4,
        0.5,
        0.9,
        False,
    )
    assert config("cifar10").batch_size != 4


@pytest.mark.parametrize("name, preset", [(n, p) for n in NAMES for p in workloads.load(n).presets])
def test_every_preset_is_valid(name, preset):
    config(f"{name} --preset {preset}")


# mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command, words",
    [
        ("minst", "unknown workload 'minst'; did you mean mnist?"),
        ("zebra", "unknown workload 'zebra'; there are cifar10, mnist,"),
        ("--epochs 3 mnist", "the workload comes first"),
        ("mnist --epoch 3", "unknown argument '--epoch'; did you mean --epochs?"),
        ("mnist --colour red", "unknown argument '--colour'"),
        ("mnist extra", "unknown argument 'extra'"),
        ("mnist --emsize 3", "unknown argument '--emsize'"),
        ("mnist --epochs", "--epochs: expected one argument"),
        ("mnist --epochs many", "--epochs 'many' is not a whole number"),
        ("mnist --epochs 2.5", "--epochs '2.5' is not a whole number"),
        ("mnist --epochs 0", "--epochs 0 is too small; it must be at least 1"),
        ("mnist --batch-size -4", "--batch-size -4 is too small"),
        ("mnist --check-every 2 --no-deterministic", "--check-every compares bits, and --no-deterministic"),
        ("mnist --max-steps 0", "--max-steps 0 is too small"),
        ("mnist --stop-after 0", "--stop-after 0 is too small"),
        ("mnist --timeout 19", "--timeout 19 is too small; it must be at least 20"),
        ("mnist --threads 0", "--threads 0 is too small"),
        ("mnist --lr -1", "--lr -1.0 is negative"),
        ("mnist --lr nan", "--lr nan is not a finite number"),
        ("mnist --lr inf", "--lr inf is not a finite number"),
        ("mnist --seed -1", "--seed -1 is negative"),
        ("mnist --optimizer lion", "--optimizer 'lion' is not known; there are sgd, adam,"),
        (
            "mnist --arch resnet18",
            "mnist has no architecture 'resnet18'; there are cnn, whitened_small, torchvision:NAME",
        ),
        ("mnist --preset tutorial", "mnist has no preset 'tutorial'; it has example, fast"),
        ("cifar10 --preset zoo", "cifar10 has no preset 'zoo'; it has fast, airbench, tutorial"),
        (
            "mnist --batch-size 10 --grad-accum-steps 3",
            "--batch-size 10 does not divide by --grad-accum-steps 3",
        ),
        ("cifar10 --label-smoothing 2", "--label-smoothing 2.0 is not between 0 and 1"),
        ("cifar10 --cutmix nan", "--cutmix nan is not"),
        ("cifar10 --crop -1", "--crop -1 is negative"),
        ("tiny_imagenet --stem wide", "--stem 'wide' is not known; there are"),
        ("wikitext2 --emsize 10 --nhead 3", "--emsize 10 does not divide by --nhead 3"),
        ("wikitext2 --dropout 1", "--dropout 1.0 is not between 0 and 1"),
        ("wikitext2 --bptt 6000", "--bptt 6000 is beyond"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(command, words):
    line = refused(command)
    assert line.startswith("relaunch: 64 ") and words in line and "\n" not in line


def test_no_workload_shows_them_all(capsys):
    with pytest.raises(SystemExit) as end:
        parse([])
    text = capsys.readouterr().out
    assert end.value.code == 64 and all(f"\n  {name} " in text for name in NAMES)
    with pytest.raises(SystemExit) as end:
        parse(["--help"])
    assert end.value.code == 0


# JSON -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_json_and_back(name):
    made = config(f"{name} --max-steps 5 --lr 0.1234567890123456789 --seed 9007199254740993")
    assert RunConfig.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("workload"),
        lambda c: c.pop("data"),
        lambda c: c.pop("options"),
        lambda c: c.update(colour=1),
        lambda c: c["options"].update(stem="small"),
        lambda c: c.update(epochs="3"),
        lambda c: c.update(epochs=2.5),
        lambda c: c.update(epochs=True),
        lambda c: c.update(lr=float("nan")),
        lambda c: c.update(batch_size=0),
        lambda c: c.update(optimizer="lion"),
        lambda c: c.update(workload="minst"),
        lambda c: c["options"].update(crop="4"),
        lambda c: c["options"].update(flip=1),
        lambda c: c.update(options=[]),
        lambda c: c.update(deterministic=None),
    ],
)
def test_json_is_strict(change):
    values = json.loads(json.dumps(config("cifar10").to_json()))
    change(values)
    with pytest.raises(Failure) as failure:
        RunConfig.from_json(values)
    assert failure.value.code == 65 and "does not fit this version" in failure.value.line()


def test_what_an_old_config_lacks_is_as_it_was_then():
    """A field's `before`, else its plain default: the workload's own may be a later idea."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(ImageOptions):
        mixup: float = workloads.setting(0.2, "later", before=0.0)
        colour: bool = workloads.setting(False, "later, without a `before`")

    old = config("cifar10 --lr 0.3 --crop 2").to_json()
    assert completed(Later, old["options"]) == old["options"] | {"mixup": 0.0, "colour": False}
    assert completed(Later, {**old["options"], "mixup": 0.1})["mixup"] == 0.1
    for name in ("clip", "weight_decay"):
        del old[name]
    del old["options"]["crop"]
    read = RunConfig.from_json(old)
    assert (read.lr, read.clip, read.weight_decay, read.options.crop) == (0.3, 0.0, 0.0, 0)


def test_unknown_fields_are_named():
    old = config("mnist").to_json()
    with pytest.raises(Failure) as failure:
        RunConfig.from_json(old | {"colour": 1, "brush": 2}, "runs/a/config.json")
    expected = "65 runs/a/config.json does not fit this version of Relaunch (unknown: brush, colour); use the"
    assert expected in failure.value.line()
    with pytest.raises(Failure, match="stem"):
        RunConfig.from_json(old | {"options": old["options"] | {"stem": "small"}})


def test_what_decides_the_training_is_compared_by_field():
    old = config("cifar10 --lr 0.3")
    for changed in ("--save-every 9", "--epochs 99", "--max-steps 7", "--data elsewhere", "--keep 1"):
        assert differences(old, config(f"cifar10 --lr 0.3 {changed}")) == []
    new = config("cifar10 --lr 0.3 --seed 9 --crop 1")
    assert sorted(differences(old, new)) == [("crop", 4, 1), ("seed", 1, 9)]
    assert ("workload", "cifar10", "mnist") in differences(old, config("mnist"))


def test_a_config_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config("mnist").lr = 3


# resuming -------------------------------------------------------------------------------------------------


def resumed(begun: str, command: str) -> RunConfig:
    return merge_resumed(config(begun), parse(command.split()))


def test_a_resumed_run_keeps_what_is_not_typed():
    begun = "cifar10 --preset tutorial --seed 7 --crop 2"
    assert resumed(begun, "cifar10 --run x --resume auto") == config(begun)
    assert resumed(begun, begun) == config(begun)


def test_a_run_that_was_begun_before_its_preset_said_more_goes_on_as_it_was():
    """`--preset tutorial` has a normalisation of its own, which runs of 0.2 were trained without."""
    begun, again = "cifar10 --preset tutorial --normalise data", "cifar10 --preset tutorial"
    assert resumed(begun, again).options.normalise == "data"
    assert resumed(again, again).options.normalise == "half"
    for change in (f"{again} --normalise half", "cifar10 --preset tutorial --normalise imagenet"):
        with pytest.raises(Failure, match="--normalise .* differs from this run's data"):
            resumed(begun, change)


@pytest.mark.parametrize(
    "flags", ["--save-every 9", "--keep 1", "--eval-every 2", "--log-interval 3", "--data elsewhere"]
)
def test_intervals_may_change_and_data_may_move(flags):
    name, value = flags.split()
    was, now = config("mnist"), resumed("mnist", f"mnist {flags}")
    field = name[2:].replace("-", "_")
    assert (
        str(getattr(now, field)) == value and dataclasses.replace(now, **{field: getattr(was, field)}) == was
    )


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_runs_without_an_end_in_their_schedule_may_be_extended(schedule):
    now = resumed(f"mnist --schedule {schedule} --epochs 2", "mnist --epochs 5 --max-steps 99")
    assert (now.epochs, now.max_steps) == (5, 99)


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
@pytest.mark.parametrize("flags", ["--epochs 5", "--max-steps 99"])
def test_runs_with_an_end_in_their_schedule_may_not(schedule, flags):
    with pytest.raises(Failure) as failure:
        resumed(f"mnist --schedule {schedule} --epochs 2", f"mnist {flags}")
    assert failure.value.code == 64 and f"{flags} changes the {schedule} schedule" in failure.value.line()


@pytest.mark.parametrize(
    "flags",
    [
        "--lr 0.3",
        "--arch net",
        "--batch-size 4",
        "--eval-batch-size 9",
        "--optimizer adam",
        "--schedule cosine",
        "--seed 2",
        "--threads 7",
        "--clip 1.0",
        "--grad-accum-steps 2",
        "--weight-decay 0.1",
        "--crop 1",
        "--cutmix 0.2",
    ],
)
def test_anything_else_is_64_and_names_the_field(flags):
    with pytest.raises(Failure) as failure:
        resumed("cifar10", f"cifar10 {flags}")
    assert failure.value.code == 64 and f"{flags} differs from this run's " in failure.value.line()


def test_another_workload():
    with pytest.raises(Failure, match="this run trains mnist, not cifar10"):
        resumed("mnist", "cifar10")
