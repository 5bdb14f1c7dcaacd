"""`relaunch tensorboard`, really started: what its HTTP API says against metrics.jsonl."""

import json
import re
import signal
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from relaunch.launch import tensorboard
from relaunch.trainers import curves
from relaunch.trainers.rundir import RunDir
from rigs.processes import Process
from rigs.runs import records

TRAIN = "mnist --batch-size 8 --epochs 2 --eval-batch-size 20".split()  # 12 steps an epoch
KINDS = ("step", "samples", "epoch", "split")


def drawn(run: RunDir) -> None:
    for split in ("train", "val"):
        (run.tensorboard / split).mkdir(parents=True)
        (run.tensorboard / split / "events.out.tfevents.1700000000.host.1.0").touch()
    run.config.touch()


# without TensorBoard ----------------------------------------------------------------------------------------


@pytest.mark.pure
def test_links_have_the_runs_names_and_lead_to_their_curves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn(RunDir("runs/first"))
    drawn(RunDir("elsewhere/first"))
    chosen = [RunDir("runs/first"), RunDir("elsewhere/first"), RunDir(tmp_path / "runs/first")]
    (tmp_path / "links").mkdir()
    tensorboard.Links(tmp_path / "links", chosen)
    found = {str(p.relative_to(tmp_path / "links")): p.resolve() for p in (tmp_path / "links").glob("*/*")}
    assert found == {
        f"{name}/{split}": tmp_path / folder / "tensorboard" / split
        for name, folder in (("first", "runs/first"), ("first-2", "elsewhere/first"))
        for split in ("train", "val")
    }


@pytest.mark.pure
def test_a_run_that_begins_meanwhile_is_taken_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "links").mkdir()
    links = tensorboard.Links(tmp_path / "links", [])
    RunDir("runs/failed").tensorboard.joinpath("train").mkdir(parents=True)
    drawn(RunDir("runs/later"))
    links.look()
    links.look()
    assert sorted(str(p.relative_to(links.folder)) for p in links.folder.glob("*/*")) == [
        "later/train",
        "later/val",
    ]


# really started ---------------------------------------------------------------------------------------------


class Board:
    """A started `relaunch tensorboard`."""

    def __init__(self, *words: str):
        command = [sys.executable, "-m", "launch", "tensorboard", *words, "--port", "0"]
        self.process = Process(command).until("Ctrl-C ends it")
        self.url = re.search(r"http://\S+", self.process.out)[0]

    def get(self, path: str, body: dict | None = None, **query):
        url = f"{self.url}data/{path}?{urllib.parse.urlencode(query)}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if b"json" in answer.headers["Content-Type"].encode() else content

    def runs(self, count: int) -> list[str]:
        """Once so many are loaded."""
        deadline = time.monotonic() + 60
        while len(found := self.get("runs")) < count and time.monotonic() < deadline:
            time.sleep(0.2)
        return sorted(found)

    def curve(self, run: str, tag: str) -> list[tuple[int, float]]:
        return [(step, value) for _, step, value in self.get("plugin/scalars/scalars", run=run, tag=tag)]


@pytest.fixture
def board():
    started = []

    def start(*words: str) -> Board:
        started.append(Board(*words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_shows_what_the_metrics_say(train, fault, relaunch_env, monkeypatch, board, capsys):
    """Train and validation in pairs; a run that was resumed after the clock went back is one curve."""
    ahead = SimpleNamespace(time=lambda: time.time() + 86_400)
    with monkeypatch.context() as patch:
        patch.setattr(curves, "time", ahead)
        fault("step=11,do=raise")  # beyond its checkpoint, and the line of step 9
        with pytest.raises(RuntimeError):
            train(*TRAIN, "--save-every", 7, "--run", "first")
    fault("step=8,do=raise")  # a start that comes to nothing
    with pytest.raises(RuntimeError):
        train(*TRAIN, "--run", "first", "--resume", "auto")
    files = len(list((relaunch_env / "runs/first/tensorboard").rglob("*tfevents*")))
    fault("step=1,do=raise")
    with pytest.raises(RuntimeError):
        train(*TRAIN, "--run", "failed")
    fault("")
    assert train(*TRAIN, "--run", "first", "--resume", "auto", "--log-interval", 4) == 0
    assert train(*TRAIN, "--run", "second", "--lr", 0.5) == 0
    assert files == 2 and not list((relaunch_env / "runs/failed/tensorboard").rglob("*tfevents*"))
    trace = relaunch_env / "runs/first/profile-5-9/trace-cpu-b8.json.gz"
    trace.parent.mkdir()
    trace.touch()

    shown = board()
    assert shown.runs(5) == ["first/profile", "first/train", "first/val", "second/train", "second/val"]
    assert "no curves yet: failed" in shown.process.err and "127.0.0.1" in shown.url

    for run in ("first", "second"):
        logged = records(relaunch_env / "runs" / run)
        for split in ("train", "val"):
            expected: dict = {}
            for row in (row for row in logged if row["split"] == split):
                for tag in row.keys() - set(KINDS):
                    for name in (tag, f"epoch_{tag}") if split == "val" else (tag,):
                        expected.setdefault(name, []).append((row["step"], pytest.approx(row[tag], rel=1e-5)))
            assert {tag: shown.curve(f"{run}/{split}", tag) for tag in expected} == expected
            assert shown.get("plugin/scalars/tags")[f"{run}/{split}"].keys() == expected.keys()
    scalars = shown.get("plugin/scalars/tags")
    for tag in ("loss", "top1", "top5", "epoch_loss", "epoch_top1", "epoch_top5"):
        assert tag in scalars["first/train"] and tag in scalars["first/val"]
    moments = [wall for wall, _, _ in shown.get("plugin/scalars/scalars", run="first/train", tag="loss")]
    assert moments == sorted(moments)

    for run in ("first/train", "second/train"):
        assert b"node" in shown.get("plugin/graphs/graph", run=run)
        tag = min(shown.get("plugin/images/tags")[run])
        (image, *_) = shown.get("plugin/images/images", run=run, tag=tag, sample=0)
        assert tag.startswith("training images")
        picture = shown.get("plugin/images/individualImage", **dict(urllib.parse.parse_qsl(image["query"])))
        assert picture.startswith(b"\x89PNG")
    texts = {
        (run, tag.removesuffix("/text_summary")): "".join(row["text"] for row in rows)
        for run, tags in shown.get("plugin/text/tags").items()
        for tag in tags
        for rows in [shown.get("plugin/text/text", run=run, tag=tag)]
    }
    assert "batch_size 8" in texts["first/train", "config"] and texts["first/train", "layers"]
    command = texts["first/train", "command"]
    assert "relaunch train mnist" in command and "--log-interval 4" in command
    assert (
        str(trace) in texts["first/profile", "traces"]
        and "ui.perfetto.dev" in texts["first/profile", "traces"]
    )

    found = shown.get("plugin/hparams/experiment", body={"experimentName": ""})
    hparams = {info["name"]: info for info in found["hparamInfos"]}
    assert hparams["lr"]["differs"] and "batch_size" in hparams and "code" not in hparams
    names = [info["name"] for info in found["metricInfos"]]
    asked = {
        "allowedStatuses": ["STATUS_SUCCESS"],
        "sliceSize": 9,
        "colParams": [{"metric": n} for n in names],
    }
    groups = shown.get("plugin/hparams/session_groups", body=asked)["sessionGroups"]
    assert {group["hparams"]["lr"] for group in groups} == {0.5, 1.0}
    for group in groups:
        run = "first" if group["hparams"]["lr"] == 1.0 else "second"
        last = records(relaunch_env / "runs" / run)[-1]
        values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        assert values["top1"] == pytest.approx(last["top1"]) and values["loss"] == pytest.approx(last["loss"])

    children = shown.process.children()
    assert shown.process.signal(signal.SIGTERM).end().code == 0
    assert "Traceback" not in shown.process.err and not any(Path(f"/proc/{pid}").exists() for pid in children)
