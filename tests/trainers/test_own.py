"""A workload of somebody's own: trained, resumed and judged as ours are, its mistakes one line."""

import json
import shutil
import sys

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import diff, evaluate, export, generate, workloads
from relaunch.trainers.config import parse
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights.source import open_source
from relaunch.trainers.workloads import own
from rigs.own import PETALS, write
from rigs.runs import outcome, records


@pytest.fixture(autouse=True)
def nothing_is_left():
    """A process of its own would end here: nothing is registered, imported or on sys.path."""
    yield
    own.forget()
    workloads._own.clear()
    sys.dont_write_bytecode = False


@pytest.fixture
def flowers(relaunch_env):
    return write(relaunch_env / "work")


def refused(*words) -> str:
    """The line with which a command line is refused, code 64."""
    with pytest.raises(Failure) as caught:
        parse([*map(str, words)])
    assert caught.value.code == 64
    return caught.value.line()


# trained like ours ----------------------------------------------------------------------------------------


def test_a_run_of_it_stopped_and_resumed_ends_in_the_same_bits(train, flowers, relaunch_env):
    assert train(flowers, "--run", "whole") == 0
    assert train(flowers, "--run", "parts", "--stop-after", 5) == 75
    assert train(flowers, "--run", "parts", "--resume", "auto") == 0
    whole, parts = outcome(relaunch_env / "runs/whole"), outcome(relaunch_env / "runs/parts")
    assert whole == parts
    assert records(relaunch_env / "runs/whole")[-1]["split"] == "val"


def test_its_options_defaults_and_presets_are_flags(flowers):
    assert parse([str(flowers)]).config.options.width == 4
    config = parse([str(flowers), "--preset", "wide", "--sharp", "2"]).config
    assert (config.workload, config.options.width, config.lr, config.options.sharp) == (
        "flowers",
        16,
        0.1,
        2.0,
    )
    assert config.batch_size == 16 and config.code["entry"] == "flowers.py"


def test_a_new_run_is_named_after_the_workload(train, flowers, relaunch_env):
    assert train(flowers, "--max-steps", 1) == 0
    [run] = (relaunch_env / "runs").iterdir()
    assert run.name.startswith("flowers-")


# the run keeps it -------------------------------------------------------------------------------------------


@pytest.fixture
def moved(train, flowers, relaunch_env):
    """A run that was stopped, moved elsewhere, and whose workload's files are gone."""
    train(flowers, "--run", "first", "--stop-after", 5, "--save-every", 3)
    shutil.move(relaunch_env / "runs/first", relaunch_env / "elsewhere")
    shutil.rmtree(flowers.parent)
    own.forget()
    workloads._own.clear()
    return relaunch_env / "elsewhere"


def test_the_run_alone_is_enough_to_go_on(moved, train, flowers, capfd):
    assert sorted(p.name for p in (moved / "code").iterdir()) == ["flowers.py", "petals.py"]
    assert train(flowers, "--run", moved, "--resume", "auto") == 0
    assert f"running code of {moved}/code/flowers.py" in capfd.readouterr().err


def test_the_run_alone_is_enough_to_score_and_export(moved, capfd):
    assert evaluate.run([str(moved)])[0] == 0
    assert capfd.readouterr().err.count(f"running code of {moved}/code/flowers.py") == 1
    assert (moved / "predictions/test-000000005.parquet").exists()
    assert export.run([str(moved)])[0] == 0
    assert (moved / "export/flowers-net-000000005.pth").exists()


def test_a_diff_of_scored_checkpoints_executes_nothing(moved, monkeypatch, capfd):
    for step in (3, 5):
        evaluate.run([f"{moved}@{step}"])
    own.forget()
    workloads._own.clear()
    (moved / "code/flowers.py").write_text("raise SystemExit('executed')")
    assert diff.run([f"{moved}@3", f"{moved}@5"])[0] == 0
    source = open_source(str(moved))
    assert (source.config.workload, source.config.options.width) == ("flowers", 4)


def test_a_resume_with_a_changed_file_says_which(train, flowers, capfd):
    train(flowers, "--run", "first", "--stop-after", 2)
    (flowers.parent / "petals.py").write_text(PETALS + "# better\n")
    assert train(flowers, "--run", "first", "--resume", "auto") == 64
    assert f"64 {flowers.parent}/petals.py has changed since this run began" in capfd.readouterr().err
    write(flowers.parent, ("from petals import Head", "from petals import Head\nimport extra"), extra="")
    assert train(flowers, "--run", "first", "--resume", "auto") == 64
    write(flowers.parent, ('name="flowers"', 'name="roses"'))
    assert train(flowers, "--run", "first", "--resume", "auto") == 64
    assert "this run trains flowers, not roses" in capfd.readouterr().err


def test_a_run_whose_kept_file_was_changed_is_not_executed(moved):
    (moved / "code/petals.py").write_text("raise SystemExit('executed')")
    with pytest.raises(Failure) as caught:
        evaluate.run([str(moved)])
    assert (
        caught.value.code == 65 and "code/petals.py is not what the run was trained with" in caught.value.what
    )


def test_other_weights_are_taken_without_their_code(moved, train, relaunch_env):
    """A run of ours may begin with anybody's weights: none of their files is executed for that."""
    (moved / "code/flowers.py").write_text("raise SystemExit('executed')")
    other = write(relaunch_env / "other", ('name="flowers"', 'name="roses"'))
    assert train(other, "--run", "second", "--resume", moved, "--max-steps", 1) == 0


def test_a_config_carries_its_code_to_a_rank_that_lacks_it(flowers):
    import pickle

    config = parse([str(flowers)]).config
    sent = pickle.dumps(config)
    own.forget()
    workloads._own.clear()
    shutil.rmtree(flowers.parent)
    assert pickle.loads(sent).to_json() == config.to_json()
    assert workloads.load("flowers").model(pickle.loads(sent), type("S", (), dict(shape=(1,), outputs=3)))


def test_two_workloads_with_neighbours_of_one_name_are_not_mixed_up(flowers, relaunch_env):
    parse([str(flowers)])
    other = write(relaunch_env / "other", ('name="flowers"', 'name="roses"'), petals=PETALS + "OTHER = 1\n")
    parse([str(other)])
    assert sys.modules["petals"].OTHER == 1 and str(flowers.parent) not in sys.path


def test_packages_beside_the_file_are_kept_whole(relaunch_env, train):
    file = write(relaunch_env / "work", ("from petals import Head", "from garden.beds import Head"))
    for name, text in (
        ("__init__", ""),
        ("beds", "from .soil import Head\n"),
        ("soil", PETALS),
        ("shed", ""),
    ):
        path = file.parent / "garden" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert train(file, "--run", "first", "--max-steps", 1) == 0
    kept = relaunch_env / "runs/first/code"
    names = {str(p.relative_to(kept)) for p in kept.rglob("*.py")}
    assert names == {"flowers.py", "garden/__init__.py", "garden/beds.py", "garden/soil.py"}
    assert set(json.loads(RunDir("runs/first").config.read_text())["code"]["files"]) == names


def test_weights_alone_are_scored_by_the_workload_that_is_named(moved, relaunch_env):
    export.run([str(moved)])
    own.forget()
    workloads._own.clear()
    file = write(relaunch_env / "work")
    weights = moved / "export/flowers-net-000000005.pth"
    assert evaluate.run([str(weights), "--workload", str(file), "--width", "4", "--out", "scored"])[0] == 0
    [scored] = (relaunch_env / "scored").glob("*.parquet")
    evaluate.run([str(moved)])
    from relaunch.trainers.compare import predictions

    theirs, its = predictions.read(scored), predictions.read(moved / "predictions/test-000000005.parquet")
    assert (theirs.columns["nll"] == its.columns["nll"]).all()


TEXT = """
from relaunch.models.transformer import TransformerLM
from relaunch.trainers.tasks.text import TextOptions, TextTask
from relaunch.trainers.workloads import Workload

WORKLOAD = Workload(
    name="tales",
    about="a small language model of somebody's own",
    task=TextTask(),
    data="wikitext2",
    archs=("small",),
    options=TextOptions,
    model=lambda config, sizes: TransformerLM(sizes.outputs, 8, 2, 8, 1, 0.1, False),
    defaults=dict(batch_size=4, bptt=5, eval_batch_size=10),
)
"""


def test_a_language_model_of_ones_own_writes(train, relaunch_env, capfd):
    (relaunch_env / "tales.py").write_text(TEXT)
    assert train("tales.py", "--run", "first", "--max-steps", 3) == 0
    (relaunch_env / "tales.py").unlink()
    workloads._own.clear()
    capfd.readouterr()
    assert generate.run(["first", "--words", "7"])[0] == 0
    said = capfd.readouterr()
    assert len(said.out.split()) >= 7 and "running code of runs/first/code/tales.py" in said.err


# mistakes ---------------------------------------------------------------------------------------------------

MISTAKES = {
    "syntax": (("def model(config, sizes):", "def model(config, sizes)"), "expected ':'"),
    "no workload": (("WORKLOAD = W", "WORK = W"), "defines no WORKLOAD"),
    "not a workload": (("WORKLOAD = W", "WORKLOAD = dict\nother = W"), "WORKLOAD is type, not a Workload"),
    "no model": (("    model=model,\n", ""), "missing 1 required keyword-only argument: 'model'"),
    "an option of ours": (
        ("width: int", "batch_size: int"),
        "the option batch_size hides our own --batch-size",
    ),
    "an option of this start": (("width: int", "run: int"), "the option run hides our own --run"),
    "an option without help": (("sharp: float = setting(1.0, ", "sharp: float = (1.0, "), "no line of help"),
    "an option without a type": (("sharp: float", "sharp: list"), "of a type that no flag has"),
    "a default of nothing": (("epochs=2", "epoch=2"), "no setting 'epoch'; did you mean epochs?"),
    "a wrong default": (("epochs=2", "epochs='two'"), "--epochs 'two' is not int"),
    "a wrong preset": (("lr=0.1)", "lr=-1.0)"), "wide: --lr -1.0 is negative"),
    "a name of ours": (('name="flowers"', 'name="mnist"'), "name='mnist' is a workload of ours"),
    "a name that is none": (('name="flowers"', 'name="a/b"'), "cannot name a run's folder"),
    "a task's class": (("task=Task()", "task=Task"), "task=Task is a class"),
    "no such module": (("from petals", "from petal"), "No module named 'petal'"),
    "an exit": (('print("flowers', 'raise SystemExit("flowers'), "ends the program while it is imported"),
    "an error": (('print("flowers is', 'print(1 / 0, "is'), "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_file_is_one_line(mistake, relaunch_env):
    change, words = MISTAKES[mistake]
    line = refused(write(relaunch_env / "work", change))
    assert words in line and str(relaunch_env / "work/flowers.py") in line
    assert "line " in line or "defines no WORKLOAD" in line
    assert not workloads._own


def test_an_error_in_a_neighbour_names_the_neighbour(relaunch_env):
    line = refused(write(relaunch_env / "work", petals="import math\nHead = math.sqrt(-1)\n"))
    assert f"{relaunch_env}/work/petals.py, line 2: ValueError: " in line


@pytest.mark.parametrize(
    "change, words",
    [
        (("sizes.outputs,", "3,"), "net makes [1, 3] of one input of mnist, and should make [1, 10]"),
        (("self.conv(x)", "self.conf(x)"), "AttributeError: 'Net' object has no attribute 'conf'"),
        (("return Net(", "return sizes.nothing or Net("), "AttributeError"),
        (("return Net(", "return lambda: Net("), "the model is function, and no nn.Module"),
        (("random(1)[", "random(1, 2)["), "TypeError"),
        (("cross_entropy(outputs, labels)", "cross_entropy(outputs, labels).item()"), "AttributeError"),
        (("* cross_entropy(outputs, labels)", "* outputs.exp()"), "the loss of a micro-batch is [16, 10]"),
        (("return Net(", "import importlib; importlib.import_module('extra'); return Net("), "does not see"),
    ],
)
def test_a_mistake_in_model_or_hooks_is_one_line_before_the_run_is_written(
    change, words, relaunch_env, train, capfd
):
    file = write(relaunch_env / "work", change, extra="")
    assert train(file, "--run", "first") == 64
    said = capfd.readouterr().err.splitlines()[-1]
    assert words in said and str(file.parent) in said
    assert not (relaunch_env / "runs/first/config.json").exists()


def test_scored_rows_that_are_not_what_facts_say_are_found_before_the_first_step(relaunch_env, train, capfd):
    hook = "    def columns(self, config, outputs, labels):\n        return {'nll': outputs.sum(1)}\n\n"
    hook += "    def loss("
    assert train(write(relaunch_env / "work", ("    def loss(", hook)), "--run", "first") == 64
    assert "Task.columns returns ['nll'], and its facts say" in capfd.readouterr().err


@pytest.mark.parametrize(
    "name, other", [("random", "Python's own"), ("torchvision", "torchvision/__init__.py")]
)
def test_a_neighbour_that_another_module_hides_is_refused(name, other, relaunch_env):
    change = ("from petals import Head", f"from petals import Head\nimport {name}")
    line = refused(write(relaunch_env / "work", change, **{name: "raise SystemExit('executed')"}))
    assert other in line and f"the {name}.py beside it" in line and f"rename {name}.py" in line


def test_neighbours_that_nobody_imports_hide_nothing(relaunch_env, train):
    others = ("models", "trainers", "launch", "random", "numpy", "types", "logging")
    file = write(relaunch_env / "work", **{name: "raise SystemExit('executed')" for name in others})
    assert train(file, "--run", "first", "--max-steps", 2) == 0


def test_what_is_no_file_is_said(relaunch_env):
    assert "./none.py is not there" in refused("./none.py")
    (relaunch_env / "folder").mkdir()
    assert "./folder is a folder" in refused("./folder")
    assert "no module 'nobodys.work' is installed" in refused("nobodys.work:WORKLOAD")
    assert "is not module:NAME" in refused("a b:c")
    assert "unknown workload 'flowrs'" in refused("flowrs")
    write(relaunch_env)
    assert "did you mean ./flowers.py?" in refused("flowers")


# installed ones ---------------------------------------------------------------------------------------------


@pytest.fixture
def garden(relaunch_env, monkeypatch):
    """An installed package with a workload and its entry point."""
    site = relaunch_env / "site"
    write(site / "garden", ("from petals", "from garden.petals"))
    (site / "garden/__init__.py").write_text("")
    (site / "torch").mkdir()  # as beside every installed package
    (site / "torch/nn.py").write_text("")
    (site / "garden-1.0.dist-info").mkdir()
    (site / "garden-1.0.dist-info/METADATA").write_text("Name: garden\nVersion: 1.0\n")
    points = "[relaunch.workloads]\nflowers = garden.flowers:WORKLOAD\n"
    (site / "garden-1.0.dist-info/entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(site)
    yield site
    for name in [name for name in sys.modules if name.split(".")[0] == "garden"]:
        del sys.modules[name]


@pytest.mark.parametrize("word", ["garden.flowers:WORKLOAD", "flowers"])
def test_a_workload_of_an_installed_package(word, garden, train, relaunch_env):
    assert train(word, "--run", "first", "--stop-after", 2) == 75
    assert train(word, "--run", "first", "--resume", "auto", "--max-steps", 3) == 0
    kept = (relaunch_env / "runs/first/code").rglob("*.py")
    assert sorted(p.name for p in kept) == ["__init__.py", "flowers.py", "petals.py"]
    assert evaluate.run(["first"])[0] == 0


def test_an_installed_package_that_changed_is_not_taken_for_the_runs(garden, train, capfd):
    train("flowers", "--run", "first", "--stop-after", 2)
    workloads._own.clear()
    (garden / "garden/petals.py").write_text(PETALS + "# better\n")
    assert train("flowers", "--run", "first", "--resume", "auto") == 64
    assert "garden/petals.py has changed since this run began" in capfd.readouterr().err
    workloads._own.clear()
    with pytest.raises(Failure) as caught:
        evaluate.run(["first"])
    assert caught.value.code == 65 and "garden/petals.py has changed" in caught.value.what
