"""Whoever starts it, wherever: all of Relaunch is the tree that was started, and nothing is the folder's.

A wheel in an environment of its own; a copy of the tree beside its dependencies alone; and a copy where
a wheel is installed too. Each is used from a folder whose files would end the program if one were imported.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from rigs import REPOSITORY
from rigs.own import write
from rigs.runs import status

PARTS = ("launch", "trainers", "models", "data_prep", "accelerate_configs")
TRAIN = ("mnist", "--data", "digits", "--max-steps", "2", "--threads", "1")
IN_THE_WAY = (
    *("models/__init__.py", "trainers/__init__.py", "relaunch/runs/notes.py"),
    *("models.py", "launch.py", "random.py", "text.py", "profile.py", "config.py", "accelerate.py"),
)
# Each process of an environment writes down, at its end, where our modules came from, and its path.
MARKER = """
import atexit, json, os, sys
@atexit.register
def mark():
    ours = {name: module.__file__ for name, module in list(sys.modules.items())
            if name.split(".")[0] in ("relaunch", "trainers", "launch", "models", "data_prep")
            and getattr(module, "__file__", None)}
    if ours and "MARKS" in os.environ:
        with open(os.path.join(os.environ["MARKS"], f"{os.getpid()}.json"), "w") as file:
            json.dump({"modules": ours, "path": sys.path}, file)
"""


@dataclass
class Place:
    """A tree of Relaunch, and an environment that it is used in."""

    tree: Path
    bin: Path


def ways(place: Place, verb: str, *rest: str) -> dict[str, tuple[Path | None, list[str]]]:
    """Every way to start a verb of a tree: the folder that it must be typed in (None: any), and the words."""
    tree, python = place.tree, str(place.bin / "python")
    config = tree / "accelerate_configs/{config}.yaml"
    accelerate = [str(place.bin / "accelerate"), "launch", "--config_file", str(config)]
    launch, trainers = str(tree / "launch/__main__.py"), str(tree / "trainers/__main__.py")
    module, own = f"trainers.{verb}", ["--config", "{config}"]
    if tree.name == "relaunch":
        return {
            "relaunch": (None, [str(place.bin / "relaunch"), verb, *rest, *own]),
            "launch": (None, [python, "-umrelaunch.launch", verb, *rest, *own]),
            "accelerate": (None, [*accelerate, "-m", f"relaunch.{module}", *rest]),
            "python": (None, [python, "-m", f"relaunch.{module}", *rest]),
        }
    return {
        "launch": (tree, [python, "-m", "launch", verb, *rest, *own]),
        "launch by path": (None, [python, launch, verb, *rest, *own]),
        "accelerate": (tree, [*accelerate, "-m", module, *rest]),
        "accelerate by path": (None, [*accelerate, trainers, verb, *rest]),
        "python": (tree, [python, f"-m{module}", *rest]),
        "python by path": (None, [python, trainers, verb, *rest]),
    }


def every(*names: str) -> list[tuple[str, str]]:
    """(place, way) of a test, for these ways or all."""
    trees = {"wheel": "relaunch", "copy": "code", "beside": "code"}
    of = {name: ways(Place(Path(tree), Path()), "train") for name, tree in trees.items()}
    return [(name, way) for name in of for way in of[name] if not names or way in names]


# two processes: not for python alone, and a copy is as one beside another
TRAININGS = [(name, way, "cpu") for name, way in every()] + [
    (name, way, "cpu2") for name, way in every() if name != "copy" and not way.startswith("python")
]


def run(words: list, where: Path, code: int = 0, **variables: str) -> str:
    """What a program says that ends with this code. It sees no variable of ours, accelerate's or Python's."""
    theirs = ("PYTHON", "RELAUNCH_", "ACCELERATE_", "VIRTUAL_ENV", "OMP_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(theirs)}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=where,
        env=inherited | {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, f"{shlex.join(map(str, words))}\n{done.stdout}"
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def environment(folder: Path) -> Path:
    """An environment with the dependencies, which are those of this interpreter, and without Relaunch."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "marker.py").write_text(MARKER)
    dependencies = [path for path in sys.path if path.endswith("-packages")]
    (packages / "dependencies.pth").write_text("\n".join(["import marker", *dependencies]))
    program = "from accelerate.commands.accelerate_cli import main; main()"
    (folder / "bin/accelerate").write_text(f"#!{folder}/bin/python\n{program}\n")
    (folder / "bin/accelerate").chmod(0o755)
    return folder / "bin"


@pytest.fixture(scope="session")
def tracked() -> list[str]:
    listed = subprocess.check_output(["git", "ls-files"], cwd=REPOSITORY, text=True).split()
    return [name for name in listed if (REPOSITORY / name).is_file()]


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="session")
def copy(home, tracked) -> Path:
    """What git knows of this tree, as it is now: an archive of it, uninstalled."""
    for name in tracked:
        (home / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, home / "code" / name)
    return home / "code"


@pytest.fixture(scope="session")
def wheel(home, copy) -> Path:
    source = shutil.copytree(copy, home / "source")  # building writes into it
    words = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", home / "wheels", source)
    run([sys.executable, "-m", "pip", *words], home)
    [made] = (home / "wheels").glob("*.whl")
    return made


@pytest.fixture(scope="session")
def places(home, copy, wheel) -> dict[str, Place]:
    bare, full = environment(home / "bare"), environment(home / "full")
    words = ("install", "--no-deps", "--no-index", "--quiet", wheel)
    run([sys.executable, "-m", "pip", "--python", full / "python", *words], home)
    [packages] = (home / "full").glob("lib/python*/site-packages")
    installed = Place(packages / "relaunch", full)
    return {"wheel": installed, "copy": Place(copy, bare), "beside": Place(copy, full)}


@pytest.fixture(scope="session")
def data(places, home) -> Path:
    run([places["copy"].bin / "python", places["copy"].tree / "launch/__main__.py", "prep", "digits"], home)
    return home / "data"


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A folder of somebody who has other plans with our names, and with Python's."""
    for name in IN_THE_WAY:
        (tmp_path / "elsewhere" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "elsewhere" / name).write_text(
            f"raise SystemExit('imported {name} of the current folder')\n"
        )
    return tmp_path / "elsewhere"


@pytest.fixture
def use(places, elsewhere, tmp_path, data, monkeypatch):
    """use("wheel", "relaunch", "train", …): every module of ours must come from that place's tree."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def start(name: str, way: str, *words: str, config: str = "cpu", **variables: str) -> str:
        folder, line = ways(places[name], *words)[way]
        line = [word.replace("{config}", config) for word in line]
        said = run(line, folder or elsewhere, RELAUNCH_DATA=str(data), **variables)
        came_from(places[name].tree)
        return said

    def came_from(tree: Path) -> None:
        found = [json.loads(path.read_text()) for path in marks.iterdir()]
        assert found
        for process in found:
            for module, file in process["modules"].items():
                assert Path(file).is_relative_to(tree), (module, file)
            for entry in map(Path, process["path"]):
                assert entry.resolve() not in (tree.resolve() / part for part in PARTS)

    monkeypatch.setenv("MARKS", str(marks))
    start.came_from = came_from
    return start


# the wheel --------------------------------------------------------------------------------------------------


def test_the_wheel_holds_what_the_tree_holds(wheel, tracked):
    held = set(zipfile.ZipFile(wheel).namelist())
    folders = tuple(f"{part}/" for part in PARTS)
    listed = {f"relaunch/{name}" for name in tracked if name.startswith(folders)}
    assert {name for name in held if ".dist-info/" not in name} == listed
    assert any(re.search(r"\.dist-info/.*LICENSE$", name) for name in held)


def test_relaunch_is_installed_only_where_it_is_said_to_be(places):
    program = "from importlib.util import find_spec as f; print(bool(f('relaunch')), bool(f('torch')))"
    for name in places:
        said = run([places[name].bin / "python", "-c", program], Path("/"))
        assert said == f"{name != 'copy'} True\n"


# which tree, and what of the current folder -----------------------------------------------------------------


@pytest.mark.parametrize("name, way", every("relaunch", "launch", "launch by path"))
def test_the_command_line_uses_its_own_tree(name, way, use):
    assert "cd /code" in use(name, way, "submit", "sheet", "mnist", "--user", "anna")


@pytest.mark.parametrize(
    "line, variables",
    [
        ("-c 'import trainers; import relaunch.trainers.config'", {}),
        ("-c 'import launch; import relaunch.launch.facts'", {}),
        ("-m trainers.diff --help", {"PYTHONPATH": "."}),
        ("-m trainers.diff --help", {"PYTHONPATH": "../code:"}),
        ("-Bm trainers diff --help", {}),
        ("-X utf8 -m launch --help", {}),
        ("trainers diff --help", {}),
        ("launch --help", {}),
        ("-I launch/__main__.py --help", {}),
        ("-P launch/__main__.py --help", {}),
        ("trainers/__main__.py diff --help", {"PYTHONSAFEPATH": "1"}),
    ],
)
def test_a_checkout_is_itself_beside_an_installed_one(line, variables, places, use):
    python, tree = places["beside"].bin / "python", places["beside"].tree
    run([python, *shlex.split(line)], tree, **variables)
    use.came_from(tree)


@pytest.mark.parametrize("program", ["launch/__main__.py --help", "trainers/__main__.py diff --help"])
def test_a_tree_is_itself_behind_a_link(program, places, use, tmp_path, elsewhere):
    """Python puts the folder that a link leads to on its path, not the one that was typed."""
    (tmp_path / "link").symlink_to(places["copy"].tree)
    run([places["copy"].bin / "python", *shlex.split(f"{tmp_path}/link/{program}")], elsewhere)
    use.came_from(tmp_path / "link")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name, way, config", TRAININGS)
def test_a_training_uses_its_own_tree(name, way, config, use, tmp_path):
    use(name, way, "train", *TRAIN, "--run", str(tmp_path / "run"), config=config)
    assert status(tmp_path / "run")["state"] == "done"
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["world"] == {"cpu": 1, "cpu2": 2}[config]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name, way", every("relaunch", "launch by path"))
def test_what_follows_a_training_uses_its_own_tree(name, way, use, places, elsewhere, tmp_path):
    """Each of these starts others: diff an evaluation, that one a process or two."""
    program = ways(places[name], "train", *TRAIN)[way][1]
    program = program[: program.index("train")]
    for line in (
        "prep digits --out made",
        "train mnist --data made/digits --max-steps 4 --save-every 2 --threads 1 --config cpu2 --run a",
        "evaluate a --config cpu2 --threads 1",
        "diff a@2 a",
        "summary mnist",
        "runs show a",
    ):
        run([*program, *shlex.split(line)], elsewhere)
    use.came_from(places[name].tree)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_workload_of_ones_own_runs_as_ours_do_from_a_wheel(places, elsewhere, data, tmp_path):
    """On one process, two and eight, started by relaunch and by accelerate; then the run alone is moved."""
    write(elsewhere)
    bin, tree = places["wheel"].bin, places["wheel"].tree
    relaunch, few = bin / "relaunch", "--data digits --threads 1 --max-steps 6".split()
    own = ["train", "flowers.py", *few]

    def start(*words, code: int = 0, where: Path = elsewhere) -> str:
        return run(words, where, code, RELAUNCH_DATA=str(data))

    start(relaunch, *own, "--config", "cpu2", "--run", "pair", "--stop-after", "3", code=75)
    start(relaunch, *own, "--config", "cpu2", "--run", "pair", "--resume", "auto")
    start(relaunch, *own, "--config", "8gpu", "--emulate", "--run", "eight", "--stop-after", "3", code=75)
    start(relaunch, *own, "--config", "8gpu", "--emulate", "--run", "eight", "--resume", "auto")
    config = tree / "accelerate_configs/cpu.yaml"
    module = "relaunch.trainers.train"
    start(bin / "accelerate", "launch", "--config_file", config, "-m", module, *own[1:], "--run", "plain")
    start(relaunch, "submit", "sheet", *own[1:], "--config", "cpu", "--user", "anna")
    for name, world in (("pair", 2), ("eight", 8), ("plain", 1)):
        assert status(elsewhere / "runs" / name)["state"] == "done"
        assert json.loads((elsewhere / "runs" / name / "plan.json").read_text())["world"] == world
    (tmp_path / "moved").mkdir()
    for name in ("pair", "plain"):
        shutil.move(elsewhere / "runs" / name, tmp_path / "moved")
    shutil.rmtree(elsewhere)
    moved = tmp_path / "moved"
    start(relaunch, "evaluate", "./pair", "--config", "cpu2", "--threads", "1", where=moved)
    start(relaunch, "diff", "./pair", "./plain", where=moved)
    start(relaunch, "export", "./plain", where=moved)
    start(relaunch, "summary", "./plain/code/flowers.py", where=moved)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["copy", "beside"])
def test_the_line_of_a_sheet_uses_its_own_tree(name, use, places, data, tmp_path):
    """The paths of the platform become folders here; python3 is the environment's."""
    sheet = use(name, "launch by path", "submit", "sheet", *TRAIN, "--user", "anna", "--run", "r")
    [line] = re.findall(r"^Start command:\n(.*)$", sheet, re.MULTILINE)
    for theirs, here in (("/code", places[name].tree), ("/output", tmp_path), ("/data/anna", data)):
        line = line.replace(theirs, str(here))
    run(["bash", "-c", line], Path("/"), PATH=f"{places[name].bin}:{os.environ['PATH']}")
    assert status(tmp_path / "r")["state"] == "done"
    use.came_from(places[name].tree)
