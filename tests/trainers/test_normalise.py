"""How images are normalised and framed: as in the weights' training, never as this set happens to be."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import open_packed
from relaunch.trainers import diff, evaluate
from relaunch.trainers.build import make_batches, make_model
from relaunch.trainers.compare import predictions
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.tasks.image_batches import framed
from relaunch.trainers.tasks.images import NORMALISE, normalisation, statistics, written
from relaunch.trainers.weights.source import open_source
from rigs.foreign import IMAGENET, foreign
from rigs.predicted import scored as rows
from rigs.predicted import write
from rigs.runs import steps
from rigs.sets import pack_labelled, pictures


@pytest.fixture
def photographs(tmp_path):
    """A packed set of 24 photographs of 40x40, and the same as PNG files, in order."""
    images = pictures(24, (40, 40, 3))
    folder = pack_labelled(tmp_path / "photographs", images, ["a", "b", "c"] * 8, ["a", "b", "c"])
    files = [tmp_path / f"{i:02}.png" for i in range(len(images))]
    for file, image in zip(files, images):
        Image.fromarray(image).save(file)
    return folder, files


def scored(words: str, data, *flags) -> predictions.Predictions:
    workload, *rest = words.split()
    described = ["--workload", workload, *rest, "--data", str(data), "--threads", "1"]
    assert evaluate.run(["model.pth", *described, "--out", "out", *flags])[0] == 0
    (path,) = Path("out").glob("*.parquet")
    return predictions.read(path)


# the words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, mean, std",
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("half", (0.5,) * 3, (0.5,) * 3),
        ("0.1307:0.3081", (0.1307,) * 3, (0.3081,) * 3),
        ("0.4,0.5,0.6:0.25", (0.4, 0.5, 0.6), (0.25,) * 3),
        ("0:0.00392156862745098", (0.0,) * 3, (1 / 255,) * 3),
    ],
)
def test_the_ways_to_say_it(sets, text, mean, std):
    sizes = open_packed("cifar10", sets).sizes
    config = parse(["cifar10", "--normalise", text]).config
    assert normalisation(config, sizes) == (mean, std)
    assert statistics(written(mean, std)) == (mean, std)
    assert parse(["cifar10", "--normalize", text]).config == config
    assert normalisation(parse(["cifar10"]).config, sizes) == (sizes.mean, sizes.std)


@pytest.mark.parametrize(
    "text, said",
    [
        ("imagnet", "is not one of the four ways; use data (this set's own mean and deviation) | imagenet"),
        ("0.5", "is not one of the four ways"),
        ("0.5:0", "deviations above 0"),
        ("123.675,116.28,103.53:58.395,57.12,57.375", "divide those of 0..255 by 255"),
        ("nan:1", "means lie in 0..1"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(Failure) as failure:
        parse(["cifar10", "--normalise", text])
    assert failure.value.code == 64 and said in failure.value.line()


def test_channels_that_differ(sets):
    config = parse(["mnist", "--normalise", "imagenet"]).config
    with pytest.raises(Failure, match="is of 3 channels, and the images of mnist have 1") as failure:
        normalisation(config, open_packed("mnist", sets).sizes)
    assert failure.value.code == 64


# training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, mean, std",
    [
        ("cifar10 --preset tutorial", (0.5,) * 3, (0.5,) * 3),
        ("mnist --preset example", (0.1307,), (0.3081,)),
        ("tiny_imagenet --preset example", *NORMALISE["imagenet"]),
    ],
)
def test_a_preset_named_after_a_source_has_the_sources(sets, words, mean, std):
    config = parse([*words.split(), "--batch-size", "8"]).config
    config = dataclasses.replace(config, options=dataclasses.replace(config.options, flip=False))
    packed = open_packed(config.data, sets)
    x, labels = make_batches(config, packed, torch.device("cpu")).batch(0, 0)
    raw = torch.from_numpy(packed.images("train")).permute(0, 3, 1, 2) / 255
    expected = transforms.Normalize(mean, std)(raw)
    assert all((expected - image).abs().amax((1, 2, 3)).min() < 1e-5 for image in x)


def test_an_old_run_goes_on_as_it_was():
    """Its config has no such field; `--preset tutorial` has gained one since."""
    old = parse("cifar10 --preset tutorial --normalise data".split()).config.to_json()
    for name in ("normalise", "eval_resize", "eval_crop"):
        del old["options"][name]
    assert RunConfig.from_json(old).options.normalise == "data"


def test_evaluation_frames_are_not_for_training(sets):
    config = parse("cifar10 --eval-resize 40 --eval-crop 32".split()).config
    with pytest.raises(Failure, match="--eval-resize is for scoring alone"):
        make_batches(config, open_packed("cifar10", sets), torch.device("cpu"))


def test_a_run_is_scored_as_it_was_trained(train, sets, photographs, capsys):
    """Its own normalisation, also on another set; what was used is printed and kept."""
    small = [*"cifar10 --arch net --batch-size 8 --max-steps 1".split()]
    names = [f"class {i}" for i in range(10)]
    other = pack_labelled(photographs[0].parent / "other", pictures(20, (32, 32, 3), 7), names * 2, names)
    for run, flags in (("own", []), ("half", ["--normalise", "half"])):
        assert train(*small, *flags, "--run", f"./{run}") == 0
        capsys.readouterr()
        again = ["--resume", f"./{run}", "--evaluate", "--data", other, "--out", f"{run}-out"]
        assert train("cifar10", *again) == 0
        said = capsys.readouterr()
        (path,) = (photographs[0].parent / f"{run}-out").glob("*.parquet")
        found = predictions.read(path)
        mine = open_packed("cifar10", sets)
        mean, std = (mine.mean, mine.std) if run == "own" else ([0.5] * 3, [0.5] * 3)
        assert (found.facts["inputs"]["mean"], found.facts["inputs"]["std"]) == (mean, std)
        assert f"normalised by mean {mean[0]:.4g}" in said.out
        source = open_source(f"./{run}")
        model = make_model(source.config, mine.sizes).eval()
        model.load_state_dict(source.weights())
        x = torch.from_numpy(pictures(20, (32, 32, 3), 7)).permute(0, 3, 1, 2) / 255
        x = transforms.Normalize(mean, std)(x)
        with torch.no_grad():
            assert (model(x).argmax(1).numpy() == found.pred).all()
    assert steps(photographs[0].parent / "own") == [1]


# foreign weights ----------------------------------------------------------------------------------


def test_foreign_weights_need_to_be_told(train, photographs, capsys):
    folder, _ = photographs
    foreign("tiny_imagenet", folder)
    ways = (
        "add --normalise data (this set's own mean and deviation) | imagenet (torchvision's) | half (0.5:0.5)"
    )
    flags = ["--workload", "tiny_imagenet", "--data", str(folder)]
    for command in (
        lambda: evaluate.run(["model.pth", *flags, "--out", "out"]),
        lambda: diff.run(["model.pth", "model.pth", *flags]),
    ):
        with pytest.raises(Failure) as failure:
            command()
        assert failure.value.code == 64
        assert (
            f"model.pth does not say how its images were normalised; {ways} | MEAN:STD"
            in failure.value.line()
        )
        assert "--eval-resize 256 --eval-crop 224" in failure.value.line()
    resumed = ["tiny_imagenet", "--data", folder, "--resume", "model.pth", "--evaluate", "--out", "out"]
    assert train(*resumed) == 64
    assert train(*resumed, "--normalise", "imagenet") == 0


@pytest.mark.parametrize(
    "words", ["tiny_imagenet", "tiny_imagenet --stem small", "cifar10 --arch resnet18"], ids=str
)
def test_main_py_of_pytorch_examples_to_the_sample(train, photographs, words):
    """Its chain of an evaluation, on the images as they are, by torchvision's own transforms."""
    folder, files = photographs
    model = foreign(words, folder)
    found = scored(words, folder, "--normalise", "imagenet", "--outputs")
    chain = transforms.Compose([transforms.ToTensor(), IMAGENET])
    with torch.no_grad():
        outputs = model(torch.stack([chain(Image.open(f)) for f in files]))
    assert (found.pred == outputs.argmax(1).numpy()).all() and len(set(found.pred)) > 1
    own = np.load(next(Path("out").glob("*.outputs.npy")))
    assert own == pytest.approx(outputs.numpy(), rel=1e-3, abs=1e-4)
    assert found.facts["inputs"] == {
        "shape": [3, 40, 40],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


@pytest.mark.parametrize("arch", ["net", "net_bn", "simple_cnn"])
def test_resized_and_cropped_as_main_py_does(train, photographs, capsys, arch):
    folder, files = photographs
    model = foreign(f"cifar10 --arch {arch}", folder)
    frame = ["--eval-resize", "37", "--eval-crop", "32"]
    found = scored(f"cifar10 --arch {arch}", folder, "--normalise", "imagenet", *frame)
    chain = transforms.Compose(
        [transforms.Resize(37), transforms.CenterCrop(32), transforms.ToTensor(), IMAGENET]
    )
    with torch.no_grad():
        outputs = model(torch.stack([chain(Image.open(f)) for f in files]))
    assert (found.pred == outputs.argmax(1).numpy()).all()
    assert found.confidence == pytest.approx(outputs.softmax(1).amax(1).numpy(), rel=1e-3)
    assert (found.facts["inputs"]["resize"], found.facts["inputs"]["crop"]) == (37, 32)
    said = "scored on 32x32, made of the packed 40x40 images by --eval-resize 37 and --eval-crop 32"
    assert said in capsys.readouterr().err


def test_256_and_224(train, photographs):
    folder, files = photographs
    model = foreign("tiny_imagenet", folder)
    frame = ["--eval-resize", "256", "--eval-crop", "224", "--eval-batch-size", "8"]
    found = scored("tiny_imagenet", folder, "--normalise", "imagenet", *frame)
    chain = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), IMAGENET]
    )
    with torch.no_grad():
        outputs = torch.cat([model(chain(Image.open(f))[None]) for f in files])
    assert (found.pred == outputs.argmax(1).numpy()).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(40, 40), (31, 50), (64, 33)])
@pytest.mark.parametrize("resize, crop", [(48, 33), (20, 0), (0, 29), (0, 61), (24, 37), (40, 40)])
def test_frames_are_torchvisions(channels, size, resize, crop):
    images = pictures(3, (*size, channels), 5)
    steps = [transforms.Resize(resize)] * bool(resize) + [transforms.CenterCrop(crop)] * bool(crop)
    chain = transforms.Compose([transforms.ToPILImage(), *steps])
    expected = [np.asarray(chain(image)).reshape(-1) for image in images]
    assert (framed(torch.from_numpy(images), resize, crop).reshape(3, -1).numpy() == np.stack(expected)).all()


def test_diff_names_both_normalisations(train, photographs, capsys):
    folder, _ = photographs
    foreign("tiny_imagenet", folder)
    files = []
    for way in ("imagenet", "data"):
        flags = ["--workload", "tiny_imagenet", "--data", str(folder), "--threads", "1", "--normalise", way]
        evaluate.run(["model.pth", *flags, "--out", way])
        files += map(str, (folder.parent / way).glob("*.parquet"))
    capsys.readouterr()
    assert diff.run([*files, "--out", "d"]) == (0, None)
    said = capsys.readouterr().out
    assert "normalised by mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225" in said
    assert said.count("normalised by mean") == 2
    sides = json.loads((folder.parent / "d/diff.json").read_text())
    assert sides["a"]["inputs"]["mean"] != sides["b"]["inputs"]["mean"]


def test_predictions_of_a_run_of_0_2_were_normalised_by_their_own_data(relaunch_env, capsys):
    old = [str(write(relaunch_env / name, rows(seed))) for seed, name in enumerate("ab")]
    assert diff.run(old) == (0, None)
    assert capsys.readouterr().out.count("normalised by the mean and deviation of the data below") == 2


def test_predictions_of_foreign_weights_that_do_not_say_it_are_not_compared(relaunch_env):
    old = write(relaunch_env / "p", rows(1), step=None)
    with pytest.raises(Failure, match="does not say how their images were normalised") as failure:
        diff.run([str(old), str(old)])
    assert failure.value.code == 65
