"""Weights on a set that they were not trained on: classes by their names, words by their vocabulary."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import open_packed
from relaunch.trainers import diff, evaluate, export
from relaunch.trainers.build import make_model
from relaunch.trainers.compare import predictions
from relaunch.trainers.config import parse
from relaunch.trainers.weights.source import open_source
from rigs import stand_in
from rigs.sets import pack_labelled, pictures

CLASSES = [f"class {i}" for i in range(10)]
IMAGES = pictures(30, (32, 32, 3), 3)
NAMES = [CLASSES[i % 10] for i in range(30)]


@pytest.fixture
def run(train, relaunch_env):
    """A run of a few steps on `classes`, whose images are those of the other sets here."""
    pack_labelled(relaunch_env / "classes", IMAGES, NAMES, CLASSES)
    flags = "--arch net_bn --batch-size 10 --max-steps 24 --optimizer adam --lr 0.01 --schedule constant"
    assert train("cifar10", *flags.split(), "--data", "./classes", "--run", "./run") == 0
    return relaunch_env / "run"


def scored(source, *flags, out="out") -> predictions.Predictions:
    assert evaluate.run([str(source), "--threads", "1", "--out", out, *map(str, flags)])[0] == 0
    (path,) = Path(out).glob("*.parquet")
    return predictions.read(path)


def outputs(run, names):
    """What the run's model says of IMAGES, [N] of each of these classes."""
    source = open_source(str(run))
    packed = open_packed("./classes", ".")
    model = make_model(source.config, packed.sizes).eval()
    model.load_state_dict(source.weights())
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (packed.mean, packed.std))
    with torch.no_grad():
        said = model((torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - mean) / std)
    return said[:, [CLASSES.index(name) for name in names]]


def test_the_same_classes_in_another_order(run, capsys):
    """The same images, names and accuracy; labels and predictions are numbered as the set's."""
    order = CLASSES[5:] + CLASSES[:5]
    other = pack_labelled(run.parent / "turned", IMAGES, NAMES, order)
    own, turned = scored(run, out="own"), scored(run, "--data", other)
    assert turned.facts["metrics"]["top1"] == own.facts["metrics"]["top1"] > 20
    assert turned.facts["metrics"]["loss"] == pytest.approx(own.facts["metrics"]["loss"])
    for column in ("label", "pred"):
        ours, theirs = getattr(own, column), getattr(turned, column)
        assert [CLASSES[i] for i in ours] == [order[i] for i in theirs]
    assert [order[i] for i in turned.label] == NAMES
    assert "the classes of turned stand in another order: matched by name" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["class 3", "class 7"], ["class 7", "class 3", "class 1"]], ids=len)
def test_a_subset_is_scored_and_said(run, capsys, names):
    rows = [i for i, name in enumerate(NAMES) if name in names]
    other = pack_labelled(run.parent / "few", IMAGES[rows], [NAMES[i] for i in rows], names)
    found = scored(run, "--data", other)
    expected = outputs(run, names)[rows]
    assert (found.pred == expected.argmax(1).numpy()).all()
    assert found.confidence == pytest.approx(expected.softmax(1).amax(1).numpy(), rel=1e-3)
    assert f"few has {len(names)} of its 10 classes, matched by name" in capsys.readouterr().err
    assert found.facts["inputs"]["classes"] == f"{len(names)} of 10"


def test_names_that_it_lacks_are_refused(run):
    german = [f"Klasse {i}" for i in range(9)]
    renamed = dict(zip(CLASSES, [*german, "class 9"]))
    other = pack_labelled(run.parent / "klassen", IMAGES, [renamed[n] for n in NAMES], list(renamed.values()))
    with pytest.raises(Failure) as failure:
        scored(run, "--data", other)
    assert failure.value.code == 64
    line = failure.value.line()
    assert (
        "klassen has classes that" in line
        and "Klasse 0, Klasse 1, Klasse 2" in line
        and "and 1 more;" in line
    )


def test_two_runs_of_differently_numbered_sets_are_compared_on_one(run, train, capsys):
    other = pack_labelled(run.parent / "turned", IMAGES, NAMES, CLASSES[::-1])
    flags = "--arch net --batch-size 6 --max-steps 1".split()
    assert train("cifar10", *flags, "--data", other, "--run", "./b") == 0
    scored("./b", out="b")
    scored(run, "--data", other, out="a")
    a, b = (str(next(Path(name).glob("*.parquet"))) for name in "ab")
    assert diff.run([a, b, "--out", "d"]) == (0, None)
    result = json.loads(Path("d/diff.json").read_text())
    right = outputs(run, CLASSES).argmax(1).numpy() == np.arange(30) % 10
    assert result["a"]["top1"] == pytest.approx(100 * np.mean(right))


def test_a_checkpoint_of_0_1_says_no_classes(relaunch_env, train, capsys):
    pack_labelled(relaunch_env / "classes", IMAGES, NAMES, CLASSES)
    packed = open_packed("./classes", ".")
    stand_in.commit(relaunch_env / "old", "cifar10 --arch net --data ./classes", packed)
    scored("./old", out="own")
    assert "relaunch:" not in capsys.readouterr().err
    other = pack_labelled(relaunch_env / "turned", IMAGES, NAMES, CLASSES[::-1])
    scored("./old", "--data", other)
    said = capsys.readouterr().err
    assert "it does not say its classes: they are matched by number with the 10 of turned" in said
    assert "it does not say how its images were normalised: here by those of turned" in said


def test_a_training_that_begins_with_weights_says_where_they_were_normalised_otherwise(run, train, capsys):
    begun = "cifar10 --arch net_bn --batch-size 10 --max-steps 1 --data ./classes --resume ./run".split()
    capsys.readouterr()
    assert train(*begun, "--run", "./same") == 0
    assert "normalised" not in capsys.readouterr().out
    assert train(*begun, "--normalise", "half", "--run", "./other") == 0
    assert "in its training, and are by 0.5,0.5,0.5:0.5,0.5,0.5 here\n" in capsys.readouterr().out
    weights = {f"backbone.{k}": v for k, v in open_source("./run").weights().items()}
    torch.save({"net": weights}, "net.pt")
    assert train(*begun[:-1], "net.pt", "--run", "./foreign") == 0


# foreign weights ----------------------------------------------------------------------------------


def test_more_outputs_than_classes(relaunch_env, train, capsys):
    """main.py always has 1000: the first N are scored."""
    pack_labelled(relaunch_env / "classes", IMAGES, NAMES, CLASSES)
    sizes = open_packed("./classes", ".").sizes
    config = parse("cifar10 --arch net --data ./classes --normalise half".split()).config
    model = make_model(config, dataclasses.replace(sizes, outputs=1000)).eval()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, "main.pth.tar")
    flags = "--workload cifar10 --arch net --data ./classes --normalise half --outputs".split()
    found = scored("main.pth.tar", *flags)
    with torch.no_grad():
        expected = model((torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)[:, :10]
    assert (found.pred == expected.argmax(1).numpy()).all()
    assert np.load(next(Path("out").glob("*.npy"))) == pytest.approx(expected.numpy(), abs=1e-4)
    said = capsys.readouterr()
    assert "it tells 1,000 classes apart, classes has 10: the first 10" in said.err
    assert "normalised by mean 0.5 0.5 0.5, deviation 0.5 0.5 0.5, classes 10 of 1,000" in said.out


def test_fewer_outputs_are_refused(relaunch_env, train):
    pack_labelled(relaunch_env / "classes", IMAGES, NAMES, CLASSES)
    sizes = open_packed("./classes", ".").sizes
    config = parse("cifar10 --arch net --data ./classes".split()).config
    torch.save(make_model(config, dataclasses.replace(sizes, outputs=4)).state_dict(), "four.pth")
    with pytest.raises(Failure, match="has fc3.weight of shape") as failure:
        scored("four.pth", *"--workload cifar10 --arch net --data ./classes --normalise half".split())
    assert failure.value.code == 65


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_an_export_knows_what_its_run_knew(run, capsys, suffix):
    """Without --normalise: mean, deviation and classes are in the JSON beside it."""
    other = pack_labelled(run.parent / "turned", IMAGES, NAMES, CLASSES[::-1])
    assert export.run([str(run), "--out", "weights"])[0] == 0
    (file,) = Path("weights").glob(f"*.{suffix}")
    described = ["--workload", "cifar10", "--arch", "net_bn", "--data", other]
    of_run, of_file = scored(run, "--data", other, out="a"), scored(file, *described)
    assert all((of_run.columns[name] == of_file.columns[name]).all() for name in of_run.columns)
    assert of_run.facts["inputs"] == of_file.facts["inputs"]
    capsys.readouterr()
    again = scored(file, *described, "--normalise", "imagenet")
    assert again.facts["inputs"] == of_file.facts["inputs"]
    assert "--normalise imagenet is left out, as it says itself how it was trained" in capsys.readouterr().err

    moved = file.rename(file.with_name(f"mine.{suffix}"))
    with pytest.raises(Failure, match="does not say how its images were normalised"):
        scored(moved, *described)
    next(Path("weights").glob("cifar10*.json")).rename("weights/mine.json")
    assert scored(moved, *described).facts["inputs"] == of_file.facts["inputs"]
    torch.save({"epoch": 2, "state_dict": {"w": torch.ones(3)}}, "weights/mine.pth")
    with pytest.raises(
        Failure, match="weights/mine.json is about another file than weights/mine.pth: not used"
    ):
        scored("weights/mine.pth", *described)


# texts --------------------------------------------------------------------------------------------


def text(folder, words, seed):
    from relaunch.data_prep.writer import Writer

    folder.mkdir()
    writer, random = Writer(folder), np.random.default_rng(seed)
    writer.text(words, {split: random.integers(0, len(words), 300) for split in ("train", "val")})
    writer.finish(folder.name, "text", {}, {})
    return folder


def test_words_of_another_vocabulary_are_refused(relaunch_env, train, capsys):
    words = ["<eos>", "<unk>", *"the a cat dog sat ran on under".split()]
    book, other, turned = (
        text(relaunch_env / name, vocab, seed)
        for seed, (name, vocab) in enumerate({"book": words, "other": words, "turned": words[::-1]}.items())
    )
    small = "--emsize 8 --nhid 8 --batch-size 4 --bptt 10 --max-steps 1".split()
    assert train("wikitext2", *small, "--data", book, "--run", "./run") == 0
    capsys.readouterr()
    assert len(scored("./run", "--data", other)) == 299
    assert "relaunch:" not in capsys.readouterr().err
    with pytest.raises(Failure, match="turned has another vocabulary than the one that ./run") as failure:
        scored("./run", "--data", turned)
    assert failure.value.code == 64
    export.run(["./run", "--out", "weights"])
    (file,) = Path("weights").glob("*.pth")
    described = ["--workload", "wikitext2", *small[:4], "--bptt", "10", "--data"]
    with pytest.raises(Failure, match="turned has another vocabulary") as failure:
        scored(file, *described, turned)
    file.with_suffix(".json").unlink()
    scored(file, *described, turned, out="by-line")
    assert "it does not say its vocabulary: words are matched by their line" in capsys.readouterr().err
