"""--freeze and --lr-scale: what is trained and how fast, and the same in plain torch."""

import json

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.sizes import published
from relaunch.trainers import summary
from relaunch.trainers.begin import command_to_go_on
from relaunch.trainers.build import check_step, make_batches, make_model, make_optimizer
from relaunch.trainers.config import RunConfig, parse
from relaunch.trainers.finetune import groups, told
from relaunch.trainers.flags import Parser
from relaunch.trainers.resumed import differences
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint
from relaunch.trainers.weights.source import parse_described
from relaunch.trainers.weights.state import load_optimizer, optimizer_state
from rigs.runs import outcome, records, status

SIZES = published("cifar10")
# of net_bn: 0 and 4 are convolutions, 1 and 5 their BatchNorms, 9, 12 and 15 linear, 10 and 13 BatchNorms
NET = "cifar10 --arch net_bn --batch-size 8".split()
BODY = ["--freeze", "0.*", "--freeze", "[145].*"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def made(*flags: str):
    config = parse([*NET, *flags]).config
    return config, make_model(config, SIZES)


def refused(*flags: str) -> str:
    with pytest.raises(Failure) as failure:
        made(*flags)
    assert failure.value.code == 64
    return failure.value.line()


# the flags --------------------------------------------------------------------------------------------------


def test_a_flag_given_several_times_is_a_tuple_and_stays_one_in_json():
    config = parse([*NET, *BODY, "--lr_scale=9.*=0.1", "--lr-scale", "*.bias=2"]).config
    assert config.freeze == ("0.*", "[145].*") and config.lr_scale == ("9.*=0.1", "*.bias=2")
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_config_from_before_has_neither():
    values = parse(NET).config.to_json()
    assert (values.pop("freeze"), values.pop("lr_scale")) == ((), ())
    assert RunConfig.from_json(values) == parse(NET).config


@pytest.mark.parametrize("value", ["0.*", [3], {"0.*": 1}])
def test_a_config_that_holds_something_else_is_65(value):
    with pytest.raises(Failure) as failure:
        RunConfig.from_json(parse(NET).config.to_json() | {"freeze": value})
    assert failure.value.code == 65


def test_words_that_say_a_command_again_keep_them():
    flags = ["--workload", *NET, *BODY]
    _, config, words = parse_described(Parser(prog="relaunch evaluate"), flags)
    assert config.freeze == ("0.*", "[145].*")
    assert parse_described(Parser(prog="relaunch evaluate"), words)[1] == config
    job = parse([*NET, *BODY])
    assert "--freeze '0.*' --freeze '[145].*'" in command_to_go_on(job.argv, RunDir("runs/first"))


@pytest.mark.parametrize(
    "flags,words",
    [
        ("--freeze=", "--freeze is empty; give it a value, or leave it out"),
        ("--freeze 1.wieght", "--freeze 1.wieght matches no parameter; did you mean '1.weight'?"),
        ("--freeze 4", "--freeze 4 matches no parameter; did you mean '4.*'?"),
        ("--freeze backbone", "--freeze backbone matches no parameter; they are called 0.weight … 15.bias"),
        ("--freeze *", "--freeze * leaves nothing to train; leave the head out of it"),
        ("--lr-scale 15.weigth=2", "--lr-scale 15.weigth matches no parameter; did you mean '15.weight'?"),
        ("--lr-scale 15.*", "--lr-scale '15.*' is not PATTERN=FACTOR with a factor above 0; e.g."),
        ("--lr-scale 15.*=0", "--lr-scale '15.*=0' is not PATTERN=FACTOR with a factor above 0; e.g."),
        ("--lr-scale 15.*=nan", "--lr-scale '15.*=nan' is not PATTERN=FACTOR"),
        ("--lr-scale =2", "--lr-scale '=2' is not PATTERN=FACTOR"),
        ("--freeze 0.* --lr-scale 0.*=2", "--lr-scale 0.*=2 matches frozen parameters only; leave it out"),
        ("--lr-scale 0.*=2 --lr-scale *=3", "--lr-scale 0.*=2 has no effect: later ones match all that it"),
    ],
)
def test_a_pattern_without_effect_is_one_line(flags, words):
    assert words in refused(*flags.split())


# what they do -----------------------------------------------------------------------------------------------


def test_what_is_frozen_and_how_fast_the_rest_learns_is_said():
    assert told(*made()) == []
    assert told(*made(*BODY)) == ["frozen: 2,894 of 62,232 parameters; 2 BatchNorms keep their statistics"]
    assert told(*made("--freeze", "0.weight", "--lr-scale", "*.weight=0.5", "--lr-scale", "15.*=10")) == [
        "frozen: 450 of 62,232 parameters",
        "learning rate: 60,706 parameters at 0.5 x, 226 parameters at 1 x, 850 parameters at 10 x; "
        "several --lr-scale match 840 of them, and the last one counts",
    ]


def test_summary_says_it(relaunch_env, capsys):
    assert summary.run([*NET, *BODY])[0] == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("frozen: 2,894 of 62,232 parameters; 2 Batch")


def test_without_the_flags_there_is_one_group_of_all():
    config, model = made()
    assert [list(g) for g in groups(config, model)] == [["params", "lr_scale"]]
    assert groups(config, model)[0]["params"] == list(model.parameters())


def test_tied_weights_have_both_names():
    command = "wikitext2 --emsize 16 --nhead 2 --nhid 16 --nlayers 1 --tied --freeze decoder.weight".split()
    config = parse(command).config
    model = make_model(config, published("wikitext2"))
    assert not model.input_emb.weight.requires_grad and model.decoder.bias.requires_grad


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adadelta"])
def test_state_has_its_parameters_names_whatever_their_groups(optimizer):
    flags = ["--optimizer", optimizer, "--freeze", "4.*", "--lr-scale", "9.*=0.1", "--lr-scale", "0.*=0.1"]
    config, model = made(*flags)
    one = make_optimizer(config, model)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    one.step()
    state = optimizer_state(one, model)
    named = dict(model.named_parameters())
    assert {key.split("/")[0] for key in state} == {n for n in named if n != "4.weight"}
    assert all(v.shape in ((), named[key.split("/")[0]].shape) for key, v in state.items())
    other = make_optimizer(config, model)
    load_optimizer(other, model, state)
    again = optimizer_state(other, model)
    assert list(again) == list(state) and all(torch.equal(again[k], state[k]) for k in state)


def test_a_batch_of_one_trains_where_every_batchnorm_is_frozen():
    flags = ["--batch-size", "1", *BODY]
    assert "cannot train on one sample" in refusal_of_step(flags)  # 10 and 13 are not
    assert refusal_of_step([*flags, "--freeze", "10.*", "--freeze", "13.*"]) == ""


def refusal_of_step(flags) -> str:
    try:
        check_step(*made(*flags), SIZES)
    except Failure as failure:
        return failure.what
    return ""


def weights_at(run, step):
    return checkpoint.load(RunDir(run).checkpoint(step)).model


def test_frozen_weights_and_statistics_stay_through_evaluations(train, relaunch_env):
    assert train(*NET, *BODY, "--epochs", 2, "--run", "./run") == 0
    first, last = (made(*BODY)[1].state_dict(), weights_at(relaunch_env / "run", 24))
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}
    assert moved == {"9", "10", "12", "13", "15"} and last["1.num_batches_tracked"] == 0
    assert last["10.num_batches_tracked"] == 24


# resuming ---------------------------------------------------------------------------------------------------

BOTH = [*BODY, "--lr-scale", "15.*=10", "--lr-scale", "9.*=0.5"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stopped_and_resumed_is_undisturbed(train, relaunch_env, optimizer):
    command = [*NET, *BOTH, "--optimizer", optimizer, "--lr", 0.01, "--epochs", 2]
    assert train(*command, "--run", "./whole") == 0
    assert train(*command, "--run", "./parts", "--stop-after", 7) == 75
    assert train("cifar10", "--run", "./parts", "--resume", "auto") == 0  # the run's config knows them
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


def test_a_resume_with_other_ones_is_refused(train, relaunch_env, capsys):
    assert train(*NET, *BODY, "--run", "./run", "--stop-after", 1) == 75
    for flags in (["--freeze", "0.*"], ["--lr-scale", "15.*=2"]):
        assert train(*NET, "--run", "./run", "--resume", "auto", *flags) == 64
    err = capsys.readouterr().err
    assert "--freeze 0.* differs from this run's 0.* [145].*" in err
    assert "--lr-scale 15.*=2 differs from this run's none" in err
    one, other = parse([*NET, *BODY]).config, parse(NET).config
    assert differences(one, other) == [("freeze", ("0.*", "[145].*"), ())]


@pytest.mark.slow
def test_two_processes(launch, relaunch_env):
    command = [*NET, *BOTH, "--max-steps", 4, "--lr", 0.01]
    for run, code, more in (
        ("./whole", 0, []),
        ("./parts", 75, ["--stop-after", "2"]),
        ("./parts", 0, ["--resume", "auto"]),
    ):
        done = launch(*command, "--run", run, *more, processes=2, accelerate="accelerate")
        assert status(relaunch_env / run)["code"] == code, done.err
    assert outcome(relaunch_env / "parts") == outcome(relaunch_env / "whole")


# the same in plain torch ------------------------------------------------------------------------------------


def test_plain_torch_trains_the_same_weights_and_top1(train, relaunch_env, sets):
    flags = "--batch-size 16 --epochs 2 --schedule constant --lr 0.002 --weight-decay 0".split()
    command = ["cifar10", "--arch", "torchvision:shufflenet_v2_x0_5", *flags]
    command += ["--freeze", "conv1.*", "--freeze", "stage[23].*", "--lr-scale", "fc.*=5"]
    assert train(*command, "--run", "./run") == 0
    config, packed = parse(command).config, open_packed("cifar10", sets)

    model = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    model.load_state_dict(make_model(config, packed.sizes).state_dict())
    for part in model.conv1, model.stage2, model.stage3:
        part.requires_grad_(False)
    rest = [p for part in (model.stage4, model.conv5) for p in part.parameters()]
    optimizer = torch.optim.SGD(
        [{"params": rest}, {"params": model.fc.parameters(), "lr": 0.01}], 0.002, momentum=0.9, fused=True
    )
    batches = make_batches(config, packed, torch.device("cpu"))
    for step in range(12):
        model.train()
        for part in model.conv1, model.stage2, model.stage3:
            for module in part.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        x, labels = batches.batch(step, 0)
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    ours = weights_at(relaunch_env / "run", 12)
    assert set(ours) == set(model.state_dict())
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())
    model.eval()
    images, mean, std = packed.images("test"), torch.tensor(packed.mean), torch.tensor(packed.std)
    x = (torch.from_numpy(images.copy()).float() / 255 - mean) / std
    with torch.no_grad():
        right = (model(x.permute(0, 3, 1, 2)).argmax(1).numpy() == packed.labels("test")).mean()
    scored = [r for r in records(relaunch_env / "run") if r["split"] == "val"][-1]
    assert scored["top1"] == pytest.approx(100 * right)
