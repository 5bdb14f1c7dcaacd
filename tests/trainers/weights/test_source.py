"""What a command line says of weights that say nothing themselves; a checkpoint that goes away."""

import shutil

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import diff, evaluate
from relaunch.trainers.weights.source import open_source, parse_described
from rigs.stand_in import commit, small_set


def described(verb, line: str):
    args, config, words = parse_described(verb.parser(), line.split())
    assert parse_described(verb.parser(), [*words, *line.split()])[1] == config, "the words say it again"
    return args, config


@pytest.mark.parametrize(
    "line",
    [
        "model.pth --workload cifar10 --arch net --no-flip --label-smoothing 0.1 --eval-batch-size 7",
        "--workload cifar10 --arch net --no-flip --label-smoothing 0.1 --eval-batch-size 7 model.pth",
        "--arch net --eval-batch-size 7 model.pth --no-flip --label-smoothing 0.1 --workload cifar10",
        "--arch=net --eval_batch_size=7 --label_smoothing=0.1 model.pth --no_flip --workload=cifar10",
    ],
)
def test_flags_of_a_workload_stand_anywhere(line):
    args, config = described(evaluate, line)
    assert args.source == "model.pth" and args.eval_batch_size == config.eval_batch_size == 7
    assert (config.workload, config.arch, config.options.flip) == ("cifar10", "net", False)
    assert config.options.label_smoothing == 0.1


@pytest.mark.parametrize(
    "line",
    [
        "a.pth b.pth --workload wikitext2 --tied --emsize 20 --top 3",
        "--workload wikitext2 --emsize 20 a.pth --tied b.pth --top 3",
        "a.pth --tied --top 3 --emsize=20 --workload wikitext2 b.pth",
    ],
)
def test_also_between_two_sources(line):
    args, config = described(diff, line)
    assert (args.a, args.b, args.top) == ("a.pth", "b.pth", 3)
    assert (config.options.tied, config.options.emsize, config.data) == (True, 20, "wikitext2")


def test_without_a_workload_nothing_is_described():
    args, config, words = parse_described(evaluate.parser(), ["first", "--data", "x"])
    assert (args.source, args.data, config, words) == ("first", "x", None, [])


@pytest.mark.parametrize(
    "line, said",
    [
        ("m --workload cifar10 --arhc net", "64 unknown argument '--arhc'; did you mean --arch?"),
        ("m --workload cifar10 --emsize 20", "64 unknown argument '--emsize'"),
        ("m --arch net", "64 unknown argument '--arch'; see relaunch evaluate --help"),
        ("--arch net m", "64 unknown argument '--arch'"),
        ("m --evl-batch-size 7", "64 unknown argument '--evl-batch-size'; did you mean --eval-batch-size?"),
        ("m --workload cifra10", "64 unknown workload 'cifra10'; did you mean cifar10?"),
        ("m --workload cifar10 --preset h", "64 cifar10 has no preset 'h'"),
        ("m --workload cifar10 --threads 0", "64 --threads 0 is too small"),
        ("m --workload", "64 argument --workload: expected one argument"),
        ("--workload cifar10 --arch net", "64 the following arguments are required: RUN|CHECKPOINT|FILE"),
    ],
)
def test_mistakes(line, said):
    with pytest.raises(Failure) as failure:
        parse_described(evaluate.parser(), line.split())
    assert failure.value.line().startswith(f"relaunch: {said}")


def test_a_checkpoint_that_is_pruned_before_it_is_read(tmp_path):
    run, _, _ = commit(tmp_path / "run", "mnist", small_set(tmp_path, "mnist"))
    source = open_source(str(run.path))
    shutil.rmtree(source.path)
    with pytest.raises(Failure, match="cannot be read any more") as failure:
        source.weights()
    assert failure.value.code == 65 and "\n" not in failure.value.line()
