"""What containers grant: control groups of both versions, as their files say it."""

import os
from pathlib import Path

import pytest

from relaunch.data_prep import limits
from relaunch.trainers.cores import physical_cores

pytestmark = pytest.mark.pure
V2 = {"proc/self/cgroup": "0::/\n"}
INSIDE = {"proc/self/cgroup": "0::/kubepods/pod1/a\n"}
V1 = {
    "proc/self/cgroup": "9:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n3:cpuset:/docker/a\n1:name=systemd:/\n"
}


def tree(folder: Path, files: dict) -> Path:
    for name, text in files.items():
        path = folder / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files, quota, memory",
    [
        ({}, None, None),
        (V2 | {"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        (V2 | {"cpu.max": "150000 100000\n", "memory.max": "2147483648\n"}, 1.5, 2 << 30),
        # the host's path, and the container's own group at the top
        (INSIDE | {"cpu.max": "50000 100000\n", "memory.max": "1000\n"}, 0.5, 1000),
        # a group within a group: the tightest counts
        (INSIDE | {"kubepods/cpu.max": "400000 100000", "kubepods/pod1/a/cpu.max": "800000 100000"}, 4, None),
        (INSIDE | {"kubepods/memory.max": "9000", "kubepods/pod1/memory.max": "max"}, None, 9000),
        (
            V1
            | {
                "cpu,cpuacct/docker/a/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
                "memory/docker/a/memory.limit_in_bytes": "5000000000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            3,
            5_000_000_000,
        ),
        (V1 | {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, None),
        (V1 | {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2, None),
        (V2 | {"cpu.max": "\0\n", "memory.max": ""}, None, None),
        (V2 | {"cpu.max": "100000 0", "memory.max": "-5"}, None, None),
        ({"proc/self/cgroup": "nonsense\n::\n"}, None, None),
    ],
)
def test_what_is_granted(tmp_path, files, quota, memory):
    root = tree(tmp_path, files)
    assert (limits.quota(root), limits.memory(root)) == (quota, memory)


def test_quotas_count_as_cores(tmp_path, monkeypatch):
    """Threads are rounded down, as all of a step wait for the slowest; decoding is rounded up."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1000, 1008)))
    for granted, threads, decoding in ((50_000, 1, 1), (250_000, 2, 3), (9_900_000, 8, 8)):
        root = tree(tmp_path, V2 | {"cpu.max": f"{granted} 100000\n"})
        assert (physical_cores(root), limits.cpus(root)) == (threads, decoding)
    assert physical_cores(tree(tmp_path, V2 | {"cpu.max": "max 100000\n"})) == 8


def test_this_machine_is_read():
    assert limits.cpus() >= 1 and physical_cores() >= 1
    assert limits.memory() is None or limits.memory() > 1 << 20
    assert limits.available() > 1 << 20


def test_what_is_free(tmp_path):
    root = tree(tmp_path, {"proc/meminfo": "MemTotal:  2000 kB\nMemFree:  5 kB\nMemAvailable:    1000 kB\n"})
    assert limits.available(root) == 1_024_000
    assert limits.available(tree(tmp_path / "old", {"proc/meminfo": "MemTotal: 2000 kB\n"})) is None
    assert limits.available(tmp_path / "none") is None
