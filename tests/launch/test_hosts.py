"""Two hosts with own addresses, names and disks train what one host trains; each end is a line and a code."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from relaunch.data_prep.errors import DATA, DIED, HARDWARE, HUNG, PREEMPTED, USAGE, Failure
from relaunch.launch import accelerate_config, plan, preflight
from relaunch.launch.facts import Facts
from rigs.hosts import Hosts, cut, missing
from rigs.runs import sha256, status, steps

STEPS, TIMEOUT, RUN = 90, 20, "runs/two"
TRAIN = [
    sys.executable,
    "-m",
    "launch",
    "train",
    "mnist",
    "--batch-size",
    "16",
    "--max-steps",
    str(STEPS),
    "--epochs",
    "99",
    "--threads",
    "1",
    "--config",
    "cpu2",
    "--num-processes",
    "4",
    "--run",
    RUN,
    "--resume",
    "auto",
]
MEETING = pytest.mark.parametrize("rendezvous", accelerate_config.RENDEZVOUS)
cluster = [pytest.mark.cluster, pytest.mark.timeout(300)]


def needs_hosts(test):
    for mark in cluster:
        test = mark(test)
    return test


class Pair:
    """Two hosts, and the launchers started on them."""

    def __init__(self, hosts, environment: dict):
        self.hosts, self.environment, self.launchers, self.port = hosts, environment, [], 29500

    def start(self, rendezvous: str = "static", only=(0, 1), **environment) -> "Pair":
        self.port += 1  # a second start need not wait for what the kernel keeps of the first
        flags = [
            "--num-machines",
            2,
            "--main-process-ip",
            "n0",
            "--main-process-port",
            self.port,
            "--rdzv-backend",
            rendezvous,
            "--timeout",
            TIMEOUT,
        ]
        self.launchers = [
            host.start(*TRAIN, *flags, "--machine-rank", i, environment=self.environment | environment)
            for i, host in enumerate(self.hosts)
            if i in only
        ]
        return self

    @property
    def run(self):
        """Rank 0's: of the other host's disk nothing is asked."""
        return self.hosts[0].folder / RUN

    def reach(self, step: int) -> "Pair":
        while not (self.run / "checkpoints").exists() or (steps(self.run) or [0])[-1] < step:
            assert all(p.poll() is None for p in self.launchers), self.said()
            time.sleep(0.05)
        return self

    def end(self) -> tuple[list[int], list[float]]:
        """Each launcher's code, and seconds from now to its end; asserts that nothing is left running."""
        began, took = time.monotonic(), {}
        while len(took) < len(self.launchers):
            for p in self.launchers:
                if p.poll() is not None:
                    took.setdefault(p.pid, time.monotonic() - began)
            time.sleep(0.05)
            assert time.monotonic() - began < 120, self.said()
        assert not any(host.running() for host in self.hosts)
        return [p.returncode for p in self.launchers], [took[p.pid] for p in self.launchers]

    def ours(self, i: int) -> str:
        """The line that a host's launcher ended with, the only one of its kind."""
        lines = [line for line in self.hosts[i].said().splitlines() if line.startswith("relaunch: ")]
        assert len(lines) == 1, self.said()
        return lines[0]

    def said(self) -> str:
        return "\n".join(host.said("out") + host.said() for host in self.hosts)


@pytest.fixture(scope="module")
def here():
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def pair(here, relaunch_env, tmp_path):
    with Hosts(tmp_path / "hosts") as hosts:
        yield Pair(hosts, dict(os.environ))


@pytest.fixture(scope="module")
def one_host(here, sets, tmp_path_factory):
    """SHA-256 of weights and optimizer after the same training by four processes on one host."""
    folder = tmp_path_factory.mktemp("one")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "RELAUNCH_"))}
    done = subprocess.run(
        TRAIN,
        cwd=folder,
        capture_output=True,
        text=True,
        env=kept | {"RELAUNCH_DATA": str(sets)},
    )
    assert done.returncode == 0, done.stderr
    return hashes(folder / RUN)


def hashes(run) -> list[str]:
    assert steps(run)[-1] == STEPS and status(run)["state"] == "done"
    return [
        sha256(run / "checkpoints" / f"step-{STEPS:09d}" / f"{what}.safetensors")
        for what in ("model", "optimizer")
    ]


@needs_hosts
@MEETING
def test_two_hosts_train_what_one_trains_also_stopped_in_between(pair, one_host, rendezvous):
    if rendezvous == "static":
        pair.start(rendezvous).reach(12).launchers[1].send_signal(
            signal.SIGTERM
        )  # on the second host: both save and leave
        assert pair.end()[0] == [PREEMPTED, PREEMPTED]
        assert status(pair.run)["state"] == "preempted" and steps(pair.run)[-1] < STEPS
    assert pair.start(rendezvous).end()[0] == [0, 0]
    assert hashes(pair.run) == one_host
    assert f"a process that is missing ends the others after {TIMEOUT} s" in pair.hosts[1].said("out")
    there = {str(p.relative_to(pair.hosts[1].folder / RUN)) for p in pair.hosts[1].folder.rglob("*.*")}
    assert there == {"logs/rank-2.log", "logs/rank-3.log"}, "the run but for them is on rank 0's disk alone"


@needs_hosts
@MEETING
def test_a_cut_link_ends_both_in_time_with_the_missing_named(pair, rendezvous):
    pair.start(rendezvous).reach(12)
    cut(pair.hosts[1])
    codes, seconds = pair.end()
    assert codes == [HUNG, HUNG] and max(seconds) < TIMEOUT + 2, seconds  # 2: for a machine that is busy
    assert pair.ours(0).startswith(
        "relaunch: 76 ranks 2, 3 (on n1) are missing: the others waited 10 s in vain in "
    )
    assert pair.ours(1).startswith(
        "relaunch: 76 ranks 0, 1 (on n0) are cut off with their machine: waited 10 s in vain (stacks: "
    )
    assert {k: status(pair.run)[k] for k in ("state", "code")} == {"state": "failed", "code": 76}
    assert "ranks 2, 3 (on n1)" in status(pair.run)["reason"]
    print(
        f"{rendezvous}: a cut link ended the hosts after {seconds[0]:.1f} and {seconds[1]:.1f} s, "
        f"--timeout {TIMEOUT}"
    )


@needs_hosts
def test_a_killed_host_ends_the_other_in_seconds_and_the_run_goes_on(pair, one_host):
    pair.start().reach(12)
    pair.hosts[1].kill()
    codes, seconds = pair.end()
    assert codes == [DIED, -signal.SIGKILL] and seconds[0] < 15, seconds
    assert pair.ours(0).startswith(
        "relaunch: 1 ranks 2, 3 (on n1) are gone: "
    ) and "--run runs/two --resume auto" in pair.ours(0)
    assert status(pair.run)["state"] == "failed" and status(pair.run)["code"] == DIED
    print(f"a killed host ended the other after {seconds[0]:.1f} s")
    assert pair.start().end()[0] == [0, 0]
    assert hashes(pair.run) == one_host


@needs_hosts
@MEETING
def test_the_first_host_killed_ends_the_second_in_seconds(pair, rendezvous):
    pair.start(rendezvous).reach(12)
    pair.hosts[0].kill()
    codes, seconds = pair.end()
    assert codes == [-signal.SIGKILL, DIED] and seconds[1] < 15, seconds
    assert pair.ours(1).startswith("relaunch: 1 ranks 0, 1 (on n0) are gone with their machine")
    print(f"{rendezvous}: the first host's kill ended the second after {seconds[1]:.1f} s")


@needs_hosts
def test_a_host_that_does_not_come_is_waited_for_as_long_as_was_said(pair):
    pair.launchers = (
        pair.start(only=(1,), RELAUNCH_DATA="/nonexistent").launchers + pair.start(only=(0,)).launchers
    )
    codes, seconds = pair.end()
    assert codes == [DATA, HUNG] and seconds[1] < TIMEOUT + 20, (
        seconds
    )  # 20: for accelerate that imports torch first
    assert pair.ours(0).startswith(
        "relaunch: 76 the rendezvous of 2 machines at n0:29502 failed (each waits 20 s for the others); "
    )
    assert not (pair.hosts[0].folder / RUN).exists()


@needs_hosts
def test_a_port_that_is_taken_is_one_line(pair):
    holder = pair.hosts[0].start(
        sys.executable,
        "-c",
        "import socket, time; s = socket.create_server(('', 29501)); time.sleep(99)",
        environment=pair.environment,
    )
    time.sleep(2)
    pair.start(only=(0,)).launchers[0].wait(60)
    assert pair.launchers[0].returncode == HARDWARE
    assert (
        pair.ours(0) == "relaunch: 69 port 29501 is taken on this machine, the first; "
        "choose another: --main-process-port N on every machine"
    )
    assert not (pair.hosts[0].folder / "runs").exists()
    holder.terminate()
    holder.wait(10)


# without hosts ------------------------------------------------------------------------------------


def planned(path, **typed) -> plan.Plan:
    asked = accelerate_config.read(str(path))
    return plan.make(
        "train",
        [],
        asked,
        accelerate_config.override(asked, machines=2, processes=4, address="localhost", **typed),
        Facts(),
        timeout=90,
    )


def test_c10d_of_a_config_is_told_to_accelerate_which_overlooks_it(tmp_path):
    text = (accelerate_config.FOLDER / "cpu2.yaml").read_text()
    path = tmp_path / "two.yaml"
    path.write_text(text.replace("rdzv_backend: static", "rdzv_backend: c10d"))
    words = planned(path).command
    assert words[words.index("--rdzv_backend") + 1] == "c10d" and "timeout=90,join_timeout=90" in words
    assert "--rdzv_backend" not in planned(accelerate_config.FOLDER / "cpu2.yaml").command
    path.write_text(text.replace("rdzv_backend: static", "rdzv_backend: etcd"))
    with pytest.raises(Failure) as failure:
        accelerate_config.read(str(path))
    assert failure.value.code == USAGE and "etcd" in failure.value.what


def test_a_taken_port_matters_on_the_first_of_several_machines():
    with socket.create_server(("", 0)) as s:
        taken = s.getsockname()[1]
        assert preflight.port(planned("cpu2", port=taken)).code == HARDWARE
        assert preflight.port(planned("cpu2", port=taken, machine_rank=1)) is None
    assert preflight.port(planned("cpu2", port=taken)) is None
