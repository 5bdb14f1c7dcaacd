"""What people read most, as it was agreed: every --help, and what the common mistakes are answered with.

make snapshots    # after a change of words: writes tests/snapshots anew; read the difference, then commit
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from relaunch.data_prep.packed import open_packed
from rigs import REPOSITORY, stand_in
from rigs.sets import SHAPES, pack_images

FOLDER = Path(__file__).parent / "snapshots"
HELP = {
    f"help-{name.replace(' ', '-') or 'relaunch'}": f"{name} --help".strip()
    for name in (
        *("", "train", "train mnist", "prep", "evaluate", "diff", "export", "generate", "summary", "report"),
        *(
            "doctor",
            "compare",
            "drill",
            "lab",
            "runs",
            "checkpoints",
            "bundle",
            "unbundle",
            "tensorboard",
            "stop",
            "submit",
            "submit slurm",
            "submit kubernetes",
        ),
        "submit sheet",
        *("profile", "status", "logs", "cancel"),
    )
}
REFUSALS = {
    "no-verb": "",
    "unknown-verb": "trian mnist",
    "no-workload": "train",
    "unknown-workload": "train mnits",
    "unknown-flag": "train mnist --epoch 3",
    "not-a-number": "train mnist --epochs many",
    "unknown-config": "train mnist --config 9gpu",
    "no-gpus": "train mnist --config 8gpu",
    "unknown-preset": "train cifar10 --preset tutorail",
    "unknown-arch": "train cifar10 --arch resnet17",
    "unknown-data": "train mnist --data nothing",
    "batch-does-not-divide": "train mnist --config cpu2 -b 9",
    "batch-does-not-divide-by-shards": "train mnist --config cpu2 -b 60 --elastic-exact",
    "batch-larger-than-the-data": "train mnist --config cpu -b 1000",
    "empty-run": "train mnist --run ''",
    "run-exists": "train mnist --run first",
    "resume-without-run": "train mnist --resume auto",
    "resume-of-nothing": "train mnist --run second --resume nothing",
    "resume-with-another-lr": "train mnist --run first --resume auto --lr 5",
    "evaluate-unknown-run": "evaluate nothing",
    "evaluate-unknown-step": "evaluate first@999",
    "evaluate-unknown-split": "evaluate first --split validation",
    "diff-unknown-run": "diff first nothing",
    "export-unknown-run": "export nothing",
    "generate-from-images": "generate first",
    "profile-of-no-list": "profile mnist -b 1,many",
    "profile-without-a-gpu": "profile mnist --config 1gpu",
    "profile-steps-beyond": "train mnist --max-steps 10 --profile-steps 100:110",
    "summary-unknown-workload": "summary mnits",
    "compare-without-a-grid": "compare mnist",
    "drill-of-more-kills-than-steps": "drill mnist --max-steps 3 --config cpu",
    "runs-show-unknown-run": "runs show nothing",
    "checkpoints-unknown-run": "checkpoints nothing",
    "checkpoints-unknown-step": "checkpoints first restore 11",
    "checkpoints-prune-of-how-many": "checkpoints first prune",
    "bundle-unknown-run": "bundle nothing",
    "unbundle-of-nothing": "unbundle first.tar",
    "unbundle-of-no-bundle": "unbundle runs/first/config.json",
    "stop-not-running": "stop first",
    "tensorboard-unknown-run": "tensorboard nothing",
    "tensorboard-no-curves": "tensorboard first",
    "prep-without-its-source": "prep mnist --source nowhere",
    "submit-unknown-kind": "submit pbs mnist",
    "submit-without-time": "submit slurm mnist --config cpu",
    "status-without-slurm": "status 12",
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with a small data/mnist and the run runs/first, which has one checkpoint."""
    folder = tmp_path_factory.mktemp("desk")
    pack_images(folder / "data/mnist", SHAPES["mnist"])
    (folder / "runs").mkdir()
    run, _, _ = stand_in.commit(folder / "runs/first", "mnist", open_packed("mnist", folder / "data"))
    run.write_status("done", 0, 12, "trained to the end")
    return folder


def said(words: list[str], desk: Path) -> str:
    """What the command prints and the code it ends with, on a machine without GPUs and schedulers."""
    bare = {
        "PATH": str(Path(sys.executable).parent),
        "HOME": str(desk),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.environ["PYTHONPATH"],
    }
    done = subprocess.run(
        [sys.executable, "-m", "launch", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=desk,
        env=bare,
        timeout=120,
    )
    text = done.stdout.replace(str(desk), "DESK").replace(str(REPOSITORY), "REPOSITORY")
    return f"$ relaunch {shlex.join(words)}\n{text}(exit code {done.returncode})\n"


@pytest.mark.parametrize("name", [*HELP, *REFUSALS])
def test_it_says_what_was_agreed(name, desk, request):
    if name in HELP and sys.version_info >= (3, 13):
        pytest.skip("argparse lays help out differently from Python 3.13 on")
    text = said(shlex.split((HELP | REFUSALS)[name]), desk)
    assert "Traceback" not in text and (name in HELP) == text.endswith("(exit code 0)\n"), text
    if request.config.getoption("--snapshot-update"):
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.txt").write_text(text)
    assert text == (FOLDER / f"{name}.txt").read_text(), "if this is meant: make snapshots"


def test_no_snapshot_is_left_over():
    assert {path.stem for path in FOLDER.iterdir()} == {*HELP, *REFUSALS}
