"""`relaunch drill`: the moments that it draws, what it refuses, whom it kills, and one real drill."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relaunch.data_prep.errors import DATA, USAGE, Failure
from relaunch.launch import PROGRAM, drill, supervise
from relaunch.launch.drill import moments, outcome, training, victims
from relaunch.launch.drill.moments import ENDS_SAVES, HERE, IN_JOBS, OTHER, TREE, Moment
from relaunch.trainers import goodput
from relaunch.trainers.rundir import RunDir
from rigs.processes import Process
from rigs.runs import outcome as outcome_of


def test_moments_are_drawn_from_the_words_alone():
    drawn = moments.draw("drill, seed 1", kills=7, total=71, kinds=HERE)
    assert drawn == moments.draw("drill, seed 1", 7, 71, HERE) != moments.draw("drill, seed 2", 7, 71, HERE)
    for i, moment in enumerate(drawn):  # one in each seventh of the steps, and none behind the last
        assert 10 * i <= moment.step < 10 * (i + 1)
    for kinds in (drawn[:4], drawn[4:]):
        assert len({moment.victim for moment in kinds}) == len(kinds)
    aimed = [moment.victim for moment in drawn if moment.aimed]
    assert len(aimed) == 2 and set(aimed) <= set(ENDS_SAVES)
    assert {moment.victim for moment in moments.draw("jobs", 3, 60, IN_JOBS)} == set(IN_JOBS)


@pytest.mark.parametrize(
    "words, says",
    [
        (["mnits"], "did you mean mnist?"),
        (["mnist", "--kills", "0"], "--kills: 0 is not a whole number from 1 up"),
        (["mnist", "--kills", "-1"], "--kills"),
        (["mnist", "--kills", "x"], "--kills: x is not a whole number"),
        (["mnist", "--kill", "3"], "did you mean --kills?"),
        (["mnist", "--max-steps", "4"], "--kills 5 is more than the 4 steps"),
        (["mnist", "--resume", "auto"], "--resume does not go with a drill"),
        (["mnist", "--evaluate", "--resume", "first"], "does not go with a drill"),
        (["mnist", "--stop-after", "9"], "--stop-after does not go with a drill"),
        (["mnist", "--time", "5m"], "--time does not go with a drill"),
        (["mnist", "--micro-batch", "auto"], "--micro-batch auto does not go with a drill"),
        (["mnist", "--compile", "auto"], "--compile auto does not go with a drill"),
        (["mnist", "--dry-run"], "--dry-run does not go with a drill"),
        (["mnist", "--max-restarts", "2"], "--max-restarts does not go with a drill"),
        (["mnist", "--run", "taken"], "runs/taken exists and is not a drill"),
        (["--kills", "3"], "workload"),
        (["mnist", "--submit", "pbs"], "--submit 'pbs' is not known; there is slurm"),
        (["mnist", "--submit", "slurm"], "needs to know how long it may run"),
        (["mnist", "--submit", "slurm", "--time", "5", "--chain", "2"], "--chain does not go with a drill"),
        (["mnist", "--submit", "slurm", "--time", "5", "--sweep", "lr=1,2"], "--sweep does not go with"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(relaunch_env, words, says):
    Path("runs/taken/notes").mkdir(parents=True)
    with pytest.raises(Failure) as caught:
        drill.main([*words, "--config", "cpu"])
    assert caught.value.code == USAGE and says in caught.value.line()
    assert [path.name for path in Path("runs").iterdir()] == ["taken"]


def test_a_folder_of_another_drill_is_not_gone_on_with(relaunch_env):
    folder = Path("runs/first")
    folder.mkdir(parents=True)
    record = folder / "drill.json"
    record.write_text(json.dumps({"schema": 1, "words": ["mnist", "--lr", "2"], "moments": 3, "kills": []}))
    words = ["mnist", "--config", "cpu", "--kills", "2", "--max-steps", "9", "--run", "first"]
    with pytest.raises(Failure, match="a drill of: mnist --lr 2 --kills 3") as caught:
        drill.main(words)
    assert caught.value.code == USAGE
    record.write_text("{")
    with pytest.raises(Failure, match="damaged") as caught:
        drill.main(words)
    assert caught.value.code == DATA


def test_ranks_are_found_below_our_launcher_and_killed_one_by_one():
    """Processes of others, and helpers of a rank, which inherit its number, are none."""
    rank = "RANK={} sh -c 'sleep 60 & echo $RANK $$; wait' &"
    shell = f"{rank.format(0)} {rank.format(1)} {rank.format(2)} wait"
    with subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE, text=True) as child:
        try:
            told = dict(map(int, child.stdout.readline().split()) for _ in range(3))
            first = told[0]
            assert (found := victims.ranks(child.pid, first)) == told
            assert victims.ranks(child.pid, None) == victims.ranks(child.pid, 1) == {}
            said = victims.strike(child, Moment(0.0, OTHER, False, 0.9), found)
            assert said == f"rank 2 (process {found[2]})"
            end = time.monotonic() + 20  # s: it dies when it has a core
            while 2 in (left := victims.ranks(child.pid, first)) and time.monotonic() < end:
                time.sleep(0.01)
            assert child.poll() is None and sorted(left) == [0, 1]
        finally:
            said = victims.strike(child, Moment(0.0, TREE, False, 0.0), {})
        assert child.wait() == -9 and said.startswith("all ") and victims.ranks(child.pid, first) == {}


def test_the_first_row_that_differs_is_named(tmp_path):
    rows = [{"step": n, "split": "train", "loss": n / 7, "samples_per_s": 1.0} for n in (5, 10)]

    def unlike(*others: dict) -> list[str]:
        for name, found in (("one", rows), ("other", others)):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        return outcome.rows_unlike(RunDir(tmp_path / "one"), RunDir(tmp_path / "other"))

    assert unlike(rows[0] | {"samples_per_s": 9.0}, rows[1]) == []
    assert unlike(rows[0], rows[1] | {"loss": 2.0}) == [
        f"row 2 of metrics.jsonl, train at step 10: loss is 2.0 and not {10 / 7}"
    ]
    assert unlike(rows[0]) == ["metrics.jsonl has 1 rows and not 2"]


class Ending:
    """A start that is at step 9 as one looks, and ends by itself as it is struck."""

    looks = tick = 0.0

    def __init__(self, run: RunDir, *flags: str):
        run.path.mkdir(exist_ok=True)
        run.logs.mkdir()
        run.log(0).write_text(f"\n{run.path}: mnist cnn\n")
        run.plan.write_text('{"starts": [{"step": 0}]}')
        run.metrics.write_text('{"step": 9, "split": "train"}\n')
        run.write_status("running", step=0)
        self.struck, self.run = [], run

    def ended(self) -> bool:
        return bool(self.struck)

    def trains(self, first) -> bool:
        return first is not None

    def strike(self, moment: Moment) -> str:
        self.struck.append(moment)
        return "nobody"

    def gone(self, hurry):
        self.run.write_status("done", 0, 9)

    def outcome(self):
        return 0, ""


def test_a_kill_that_comes_too_late_is_none(tmp_path):
    drawn = [Moment(5.0, TREE, False, 0.0)]
    found = training.Drill(tmp_path, ["mnist"], drawn, ["mnist"], Ending)
    found.calm.path.mkdir()
    causes = dict.fromkeys(goodput.CAUSES, 0.1)
    spent = {"first": 0, "until": 0, "paused": 1, "starts": 1, "from_step": 0, "from_samples": 0, "step": 10}
    spent |= {"samples": 0, "between": 0, "causes": causes, "saves": {}, "ranks": []}
    found.calm.time.write_text(json.dumps(spent))
    assert found.pace() == pytest.approx(0.07)
    with supervise.Asked() as asked:
        found.killed(asked)
    assert not found.kills and not found.record.exists()


WORDS = "mnist --config cpu -b 8 --max-steps 40 --save-every 4 --log-interval 2 --threads 1 --kills 2 --run f"


def drilled() -> Process:
    process = Process([sys.executable, PROGRAM, "drill", *WORDS.split()])
    try:
        return process.end(timeout=140)
    finally:
        process.kill()


@pytest.mark.slow
def test_a_drill_kills_resumes_compares_and_tells(relaunch_env):
    """Of the drill `f` the launcher is killed, then rank 0 as it saves. Then a row is another."""
    done = drilled()
    assert done.code == 0, done.out + done.err
    kills = json.loads(Path("runs/f/drill.json").read_text())["kills"]
    told = [re.sub(r"\(process \d+\)", "", kill["victim"]) for kill in kills]
    assert told == ["the launcher ", "rank 0 , at a save"]
    starts = [each["step"] for each in json.loads(Path("runs/f/killed/plan.json").read_text())["starts"]]
    assert len(starts) == 3 and starts[1] == kills[0]["step"] >= 11 and starts[2] >= 24
    one, other = (outcome_of(Path("runs/f") / name) for name in ("undisturbed", "killed"))
    assert one["metrics"] == other["metrics"] and one["model"] == other["model"]
    assert "killed 2 times and resumed, ended with the weights" in done.out
    page = Path("runs/f/page.md").read_text()
    assert "| kills survived | 2 |" in page and "restarts" in page and "--run f" in page
    assert "Wall time by cause" in Path("runs/f/page.html").read_text()

    rows = Path("runs/f/killed/metrics.jsonl")
    rows.write_text(rows.read_text().replace('"loss": ', '"loss": 1', 1))
    again = drilled()  # both are done: it compares, and writes the page
    assert again.code == 1 and "did not end as the undisturbed one: row 1 of" in again.err
    assert "did not end as the undisturbed" in Path("runs/f/page.md").read_text()
