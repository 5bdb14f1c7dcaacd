"""`relaunch drill --submit slurm` on a real SLURM: jobs that are killed on their node, and resumed.

pytest -m cluster tests/launch/submit/test_drill_jobs.py      # as root; about a minute
"""

import json

import pytest

from rigs.cluster import SMALL

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
WORDS = "--config cpu --max-steps 60 --save-every 10 --kills 2 --submit slurm --time 10 --run smoke".split()


def test_a_job_is_killed_resumed_and_ends_the_same(cluster):
    """Rank 0 from within its node, then all of a job's processes: each is another job that goes on."""
    pace = ["--env", "RELAUNCH_FAULT=step=*,do=sleep:0.15"]
    said = cluster.relaunch("drill", *SMALL, *WORDS, *pace)
    assert "killed 2 times and resumed, ended with the weights" in said
    kills = json.loads((cluster.run_of("smoke") / "drill.json").read_text())["kills"]
    assert [kill["victim"].split(" ")[0:2] for kill in kills] == [["rank", "0"], ["the", "processes"]]
    killed = json.loads((cluster.run_of("smoke/killed") / "plan.json").read_text())
    assert killed["host"] in ("n1", "n2") and len(killed["starts"]) == 3
    assert cluster.weights("smoke/killed", 60) == cluster.weights("smoke/undisturbed", 60)
