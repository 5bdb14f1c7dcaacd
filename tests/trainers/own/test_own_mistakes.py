"""What can be wrong with a workload of somebody's own, or its neighbours: one line, before a run is there."""

import pytest

from relaunch.data_prep.errors import Failure
from relaunch.trainers import workloads
from relaunch.trainers.config import parse
from rigs.own import write


def refused(*words) -> str:
    """The line with which a command line is refused, code 64."""
    with pytest.raises(Failure) as caught:
        parse([*map(str, words)])
    assert caught.value.code == 64
    return caught.value.line()


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
    "a wrong default": (("epochs=2", "epochs='two'"), "--epochs 'two' is not a whole number"),
    "a wrong preset": (("lr=0.1)", "lr=-1.0)"), "wide: --lr -1.0 is negative"),
    "a name of ours": (('name="flowers"', 'name="mnist"'), "name='mnist' is a workload of ours"),
    "a name that is none": (('name="flowers"', 'name="a/b"'), "cannot name a run's folder"),
    "a task's class": (("task=Task()", "task=Task"), "task=Task is a class"),
    "half a task": (
        ("task=Task()", 'task=type("Half", (), {**vars(Task), "kind": "images"})()'),
        "inputs, labels, libraries, no_outputs, output_shape and 6 more; give one made from it",
    ),
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
        (
            ("self.conv(x)", "self.conv(x[:, :0])"),
            "channels instead (on the 1x28x28 images of mnist); correct it, or give it other ones by --data "
            "or, to score a file, --eval-resize",
        ),
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


@pytest.mark.parametrize(
    "trouble, code", [("int('x')", 64), ("open('/nowhere')", 1), ("__import__('torch').zeros(2, 3) @ x", 64)]
)
def test_a_mistake_that_shows_after_steps_is_one_line_below_where_it_came_up(
    trouble, code, relaunch_env, train, capfd
):
    """Not what a disk does: such a training starts again from its checkpoint."""
    late = f"        if training and len(TIMES) > 5:\n            {trouble}\n        TIMES.append(0)\n"
    file = write(
        relaunch_env / "work",
        ("class Net(", "TIMES = []\n\n\nclass Net("),
        ("        if training:\n", f"{late}        if training:\n"),
    )
    if code == 1:
        with pytest.raises(FileNotFoundError):
            train(file, "--run", "first")
        return
    assert train(file, "--run", "first") == 64
    *above, said = capfd.readouterr().err.splitlines()
    frame, line = above[-3 if "^" in above[-1] else -2 :][:2]
    number = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if text.strip() == trouble)
    assert f"{file}, line {number}: " in said and f"line {number}, in prepare" in frame
    assert line.strip() == trouble


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
