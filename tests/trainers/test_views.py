"""--eval-views: an image's mean output over views of it, and that such figures are told apart from others."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from relaunch.data_prep.errors import Failure
from relaunch.trainers import diff, evaluate
from relaunch.trainers.tasks.image_batches import views

COMMAND = "cifar10 --arch net --batch-size 8 --max-steps 5 --run ./run".split()


def test_the_views_are_those_of_the_paper():
    x = torch.randn(2, 3, 5, 5)
    wide = F.pad(x, (1, 1, 1, 1), mode="reflect")
    six = [x, wide[:, :, :5, :5], wide[:, :, 2:, 2:]]
    six += [view.flip(-1) for view in six]
    assert all(map(torch.equal, views(x, 6), six)) and len(views(x, 6)) == 6
    assert all(map(torch.equal, views(x, 2), [x, x.flip(-1)])) and len(views(x, 2)) == 2


def test_outputs_are_the_mean_over_the_views(train, relaunch_env, capsys):
    assert train(*COMMAND) == 0
    for count in 1, 2:
        assert evaluate.run(f"run --outputs --eval-views {count} --out views{count}".split()) == (0, None)
    said = capsys.readouterr().out
    assert "views 2" in said and "views 1" not in said
    one, two = (np.load(next((relaunch_env / f"views{n}").glob("*.outputs.npy"))) for n in (1, 2))
    assert one.shape == two.shape and not np.allclose(one, two)
    # a diff of the run does not take those of several views for the run's own
    assert evaluate.run("run --eval-views 2".split()) == (0, None)
    assert diff.run("run run --out d".split()) == (0, None)
    assert "views" not in capsys.readouterr().out.partition("written")[2]


@pytest.mark.parametrize(
    "command, said",
    [
        ("cifar10 --eval-views 2", "--eval-views is for scoring alone"),
        ("cifar10 --eval-views 3", "--eval-views 3 is not one of 1, 2, 6"),
        ("mnist --flip-alternating", "--flip-alternating goes with --flip"),
        ("cifar10 --arch net -b 8 --half-size-epochs 1", "leave --half-size-epochs out"),
        ("tiny_imagenet --arch whitened --stem small -b 8", "--stem small is resnet18's"),
        ("cifar10 --ema 1", "its average would never move"),
    ],
)
def test_mistakes(train, capsys, command, said):
    assert train(*command.split()) == 64
    assert said in capsys.readouterr().err


def test_text_has_no_views(train, relaunch_env):
    assert train(*"wikitext2 --emsize 8 --nhid 8 --batch-size 8 --max-steps 2 --run ./text".split()) == 0
    with pytest.raises(Failure, match="--eval-views is for images"):
        evaluate.run("text --eval-views 2".split())
