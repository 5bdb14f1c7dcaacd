"""README.md and docs/ tell the truth: every command in a ```bash block is run, tables are the code's.

A ```python block begins with the name of its file, which lies in the reader's folder.

Downloads get `--source` with a small archive made here, GPU configs go as far as the check of the hardware,
and trainings on anything but the digits end after two steps. A command that this file cannot run fails.
"""

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from relaunch.data_prep import errors, prep
from relaunch.data_prep.errors import HARDWARE, PREEMPTED, USAGE
from relaunch.launch import __main__ as launch
from relaunch.launch import accelerate_config, command
from relaunch.trainers import config
from rigs import prep_sources
from rigs.processes import Process

ROOT = Path(__file__).resolve().parents[1]
LABS = ("mnist", "cifar10", "tiny_imagenet", "wikitext2")
CONCEPTS = (
    *("checkpoints-and-resume", "predictions-and-diff", "data", "configs", "fine-tuning", "own-model"),
    *("time", "watching", "profiling", "comparing", "reports"),
)
CHINESE = "docs/zh.md"
PAGES = (
    "README.md",
    *(f"docs/labs/{name}.md" for name in LABS),
    *(f"docs/{name}.md" for name in (*CONCEPTS, "labs/README")),
    CHINESE,
)
ARCHIVES = {
    "mnist": "mnist-files",
    "cifar10": "cifar-10-python.tar.gz",
    "tiny_imagenet": "tiny-imagenet-200.zip",
    "wikitext2": "wikitext-2-v1.zip",
}


@dataclass
class Step:
    """How a command is run here, the exit code it must have, and what its output must contain."""

    words: list[str]
    code: int = 0
    says: str = ""


def commands(page: str) -> list[list[str]]:
    """The commands of a page's ```bash and ```sh blocks, as words; a backslash continues a line."""
    blocks = re.findall(
        r"^ *```(?:bash|sh|shell|console)\n(.*?)^ *```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    )
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def write_files(page: str, folder: Path) -> None:
    """The files that a page shows, and our examples, as they lie where its commands are typed."""
    (folder / "examples").symlink_to(ROOT / "examples")
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name, f"a block of {page} does not begin with the name of its file"
        (folder / name[1]).write_text(block)


def step(words: list[str]) -> Step | None:
    """How to run a command of a page; None where nothing can be run."""
    match words:
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text()
            known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
            variables = [word for word in targets if "=" in word]
            assert set(targets) - set(variables) <= known and len(targets) > len(variables), words
            assert all(f"\n{word.split('=')[0]} ?=" in makefile for word in variables), words
            return None
        case ["source", ".venv/bin/activate"]:
            return None
        case ["python", path]:
            return Step([sys.executable, path])
        case ["sha256sum", *_]:
            return Step(words)
        case ["relaunch", "tensorboard", *rest]:
            return relaunch("tensorboard", *rest, "--port", "0")
        case ["relaunch", "prep", name, *rest]:
            if hub := [word for word in rest if word.startswith("hub:")]:
                rest[rest.index(hub[0])] = "tables"
                rest += (
                    [] if "--columns" in rest else ["--columns", "image=photo,label=species", "--size", "28"]
                )
            if name in ARCHIVES and "--source" not in rest and "--verify" not in rest:
                rest += ["--source", ARCHIVES[name]]
            return relaunch("prep", name, *rest)
        case ["relaunch", "train", *rest]:
            named = rest[rest.index("--config") + 1] if "--config" in rest else "cpu"
            if needs_gpus(named) and not {"--emulate", "--dry-run"} & set(rest):
                return relaunch("train", *rest, code=HARDWARE, says="relaunch: 69")
            return relaunch("train", *shortened(rest), code=PREEMPTED if "--stop-after" in rest else 0)
        case ["relaunch", "compare", *rest] if "--runs" not in rest:
            short = ["--repeats", "1", "--warmup", "0", "--threads", "1"]
            return relaunch("compare", *rest, *(short if "digits" in rest else ["--dry-run"]))
        case ["relaunch", "stop", run]:
            return relaunch("stop", run, code=USAGE, says="not running")  # its training has ended by then
        case ["relaunch", "lab" as verb, *rest]:  # really run by its own tests
            return relaunch(verb, *rest, *([] if "--dry-run" in rest else ["--dry-run"]))
        case ["relaunch", verb, *rest] if verb in launch.VERBS:
            return relaunch(verb, *rest)
        case ["accelerate", "launch", "--config_file", path, "-m", "trainers.train", *rest]:
            missing = needs_gpus(str(ROOT / path))
            return Step(
                [
                    sys.executable,
                    "-m",
                    "accelerate.commands.launch",
                    "--config_file",
                    path,
                    "-m",
                    "trainers.train",
                    *shortened(rest),
                ],
                int(missing),
                "relaunch: 69" if missing else "",
            )
    pytest.fail(f"this test does not know how to run: {shlex.join(words)}")


def relaunch(*words: str, **outcome) -> Step:
    return Step([sys.executable, "-m", "launch", *words], **outcome)


def shortened(rest: list[str]) -> list[str]:
    """Two steps on the archives made here, all on the digits; one thread, as other tests run too."""
    whole = {"digits", "--max-steps", "--stop-after", "--evaluate", "--dry-run"}
    return [
        *rest,
        *([] if whole & set(rest) else ["--max-steps", "2"]),
        *([] if "--threads" in rest else ["--threads", "1"]),
    ]


def needs_gpus(name: str) -> bool:
    return not accelerate_config.read(name).use_cpu


# the pages against the code -----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_known_and_parse(page, tmp_path, monkeypatch):
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = commands(page)
    assert found
    for words in found:
        step(words)
        match words:
            case ["relaunch", "prep", *rest]:
                prep._parser().parse_args(rest)
            case ["relaunch", "train", *rest]:
                config.parse(command.split(rest)[1])
            case ["accelerate", *_]:
                config.parse(words[words.index("trainers.train") + 1 :])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_readme_names_every_page_config_verb_and_code():
    text = (ROOT / "README.md").read_text()
    for page in PAGES[1:]:
        assert f"({page})" in text
    for name in accelerate_config.names():
        assert f"`{name}`" in text
    for verb in launch.VERBS:
        assert re.search(rf"relaunch {verb}\b|`{verb}`", text), verb
    codes = {value for value in vars(errors).values() if isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == codes | {0, 1}


# the commands -------------------------------------------------------------------------------------


@pytest.fixture
def reader(tmp_path):
    """The folder of one who follows a page: the configs, archives under their official names, own data."""
    (tmp_path / "accelerate_configs").symlink_to(ROOT / "accelerate_configs")
    prep_sources.mnist(tmp_path / ARCHIVES["mnist"], train=200, test=50)
    prep_sources.cifar10(tmp_path / ARCHIVES["cifar10"], rows=60)
    prep_sources.zip_of(tmp_path / ARCHIVES["tiny_imagenet"], prep_sources.tiny_imagenet_files(train=80))
    texts = {name: 200 * text for name, text in prep_sources.wikitext_files().items()}
    prep_sources.zip_of(tmp_path / ARCHIVES["wikitext2"], texts)
    prep_sources.tree_of(tmp_path / "photos", prep_sources.image_folder_files(count=80, size=(70, 64)))
    prep_sources.tree_of(
        tmp_path / "texts", {Path(name).name.split(".")[1] + ".txt": text for name, text in texts.items()}
    )
    tables(tmp_path / "tables")
    random = np.random.default_rng(0)
    np.savez(tmp_path / "table.npz", inputs=random.random((200, 6)), labels=random.integers(0, 3, 200))
    return tmp_path


def tables(folder: Path, rows: int = 160) -> None:
    """Parquet files with the columns photo, species and age."""
    import datasets

    folder.mkdir()
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "species": datasets.ClassLabel(names=["ant", "bee", "cat"]),
            "age": datasets.Value("float32"),
        }
    )
    columns = {
        "photo": [{"bytes": prep_sources.picture(size=(40, 36))} for _ in range(rows)],
        "species": [i % 3 for i in range(rows)],
        "age": [i / 7 for i in range(rows)],
    }
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")


def test_the_chinese_page_has_the_commands_of_the_others():
    others = {tuple(words) for page in PAGES if page != CHINESE for words in commands(page)}
    for words in commands(CHINESE):
        assert words[1] == "lab" or tuple(words) in others, words


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in PAGES if page != CHINESE])
def test_every_command_runs(page, reader, monkeypatch, signals):
    """In the order of the page, in one folder, as a reader would type them.

    For README.md each in its own process, for docs/ in this one where possible: 80 imports of torch less.
    """
    import torch

    monkeypatch.chdir(reader)
    write_files(page, reader)
    for name in [n for n in os.environ if n.startswith(("RELAUNCH_", "ACCELERATE_"))]:
        monkeypatch.delenv(name)
    for name, value in {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    for words in commands(page):
        todo = step(words)
        if todo and not (page != "README.md" and here(todo)):
            process(words, todo)
    torch.set_num_threads(threads)


def here(todo: Step) -> bool:
    """Run a command in this process; False if it needs one of its own."""
    match todo.words[2:]:
        case ["launch", "prep", *rest]:
            code = prep.main(rest)
        case [
            "launch",
            "train" | "evaluate" | "diff" | "export" | "generate" | "profile" | "summary" as verb,
            *rest,
        ] if not {"--config", "--dry-run"} & set(rest):
            try:
                code, _ = importlib.import_module(f"relaunch.trainers.{verb}").run(rest)
            except errors.Failure as failure:
                print(failure.line())
                code = failure.code
        case _:
            return False
    assert code == todo.code, todo
    return True


def process(words: list[str], todo: Step) -> None:
    if words[:2] == ["relaunch", "tensorboard"]:  # which a reader ends with Ctrl-C
        assert Process(todo.words).until("Ctrl-C ends it").signal(signal.SIGINT).end().code == 0
        return
    done = subprocess.run(
        todo.words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    shown = (
        f"$ {shlex.join(words)}\nrun as {shlex.join(todo.words)}, exit code {done.returncode}\n{done.stdout}"
    )
    assert (done.returncode, "Traceback" in done.stdout) == (todo.code, todo.code == 1), shown
    assert todo.says in done.stdout, shown
    if words[0] == "sha256sum":  # shown where files are equal
        assert len({line.split()[0] for line in done.stdout.splitlines()}) == 1, shown
