import pytest
import torch

from relaunch.data_prep.errors import Failure
from relaunch.data_prep.packed import open_packed
from relaunch.trainers import generate
from relaunch.trainers.build import make_model
from relaunch.trainers.config import parse
from relaunch.trainers.tasks.text_batches import sample_text
from rigs import stand_in
from rigs.stand_in import WORDS, commit, small_set

COMMAND = "wikitext2 --emsize 16 --nhid 16 --nhead 2 --bptt 8"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    commit(root / "run", COMMAND, small_set(root, "wikitext2"))
    commit(root / "pictures", "mnist", small_set(root, "mnist"))
    return root


@pytest.fixture(scope="module")
def model(root):
    return make_model(parse(COMMAND.split()).config, small_text(root).sizes)


def small_text(root):
    return open_packed("wikitext2", root)


def write(root, *flags, run="run"):
    return generate.run([str(root / run), "--data-root", str(root), *flags])


def test_text_is_a_function_of_its_arguments(root, model):
    packed, before = small_text(root), torch.get_rng_state()
    model.train()
    text = sample_text(model, packed, 40, 0.8, 1, bptt=8)
    assert text == sample_text(model, packed, 40, 0.8, 1, bptt=8)
    assert text != sample_text(model, packed, 40, 0.8, 2, bptt=8) and text != sample_text(
        model, packed, 40, 2.0, 1, bptt=8
    )
    assert model.training and torch.equal(before, torch.get_rng_state())
    assert len(text.replace("\n", " <eos> ").split()) == 40 and set(text.split()) <= set(WORDS)


def test_only_the_last_bptt_words_are_read(root):
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(1))

        def forward(self, words, last):
            seen.append(words[:, 0].tolist())
            return torch.nn.functional.one_hot((words + 1) % len(WORDS), len(WORDS)) * 100.0

    text = sample_text(Model(), small_text(root), 6, 0.8, 1, prompt="mat log elephant", bptt=3)
    mat, log = WORDS.index("mat"), WORDS.index("log")
    assert seen[:3] == [[mat, log, 1], [log, 1, 2], [1, 2, 3]] and max(map(len, seen)) == 3
    assert text == "mat log <unk> the a cat dog sat ran"
    assert sample_text(Model(), small_text(root), 3, 0.8, 1, prompt=". ,", bptt=3) == ". ,\n<unk> the"


def test_a_cold_model_says_the_likeliest(root, model):
    packed = small_text(root)
    assert sample_text(model, packed, 20, 1e-300, 1, bptt=8) == sample_text(
        model, packed, 20, 1e-9, 5, bptt=8
    )


def test_command(root, capsys):
    assert write(root, "--words", "12", "--prompt", "the zebra sat")[0] == 0
    out, err = capsys.readouterr()
    assert out.startswith("the <unk> sat ") and len(out.replace("\n", " <eos> ").split()) == 12 + 3 + 1
    assert "does not know 'zebra'; read as <unk>" in err
    write(root, "--words", "12", "--prompt", "the zebra sat")
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    "flags,run,code,line",
    [
        (("--temperature", "0"), "run", 64, "--temperature 0.0"),
        (("--temperature", "nan"), "run", 64, "--temperature nan"),
        (("--words", "0"), "run", 64, "--words 0"),
        ((), "pictures", 64, "only language models"),
        ((), "nothing", 65, "no run"),
    ],
)
def test_mistakes(root, flags, run, code, line):
    with pytest.raises(Failure, match=line) as failure:
        write(root, *flags, run=run)
    assert failure.value.code == code


def test_other_data_and_no_unk(root, tmp_path, monkeypatch):
    monkeypatch.setattr(stand_in, "WORDS", ["<eos>", *WORDS[2:]])
    commit(tmp_path / "run", COMMAND, small_set(tmp_path, "wikitext2"))
    with pytest.raises(Failure, match="does not know 'zebra'") as failure:
        write(tmp_path, "--prompt", "zebra")
    assert failure.value.code == 64
    with pytest.raises(Failure, match="not the data") as failure:
        generate.run([str(root / "run"), "--data-root", str(tmp_path)])
    assert failure.value.code == 65
