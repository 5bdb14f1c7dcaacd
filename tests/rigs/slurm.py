"""A real SLURM on this machine for tests: nodes with own addresses, host names and fake GPUs, no systemd.

    python tests/rigs/slurm.py FOLDER    # up; prints what to export; Ctrl-C takes it down

Needs root, because every node lives in network, UTS and mount namespaces of its own. Everything is kept under
FOLDER; what was started is ended by the process ids written there and the namespaces' lists, nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("slurm-wlm", "slurm-wlm-basic-plugins", "munge", "iproute2")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "ip", "nsenter", "unshare")

CONF = """\
ClusterName=rig
SlurmctldHost={host}({net}.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobSubmitPlugins=lua
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
SlurmdParameters=config_overrides
SlurmdTimeout=20
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=15
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=60
PartitionName=strict Nodes=ALL MaxTime=60 State=UP PriorityTier=1 GraceTime=0
PartitionName=urgent Nodes=ALL MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=paid Nodes=ALL MaxTime=60 State=UP
"""

# sites that charge refuse a job without an account in a plugin like this; the controller itself says so
LUA = """\
function slurm_job_submit(job, parts, uid)
  if job.partition == "paid" and job.account == nil then return 2045 end
  return slurm.SUCCESS
end
function slurm_job_modify(job, record, parts, uid) return slurm.SUCCESS end
return slurm.SUCCESS
"""


def missing() -> str:
    """Why there can be no rig here; empty: there can. Installs the packages where root may."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if not all(shutil.which(p) for p in PROGRAMS) and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
            capture_output=True,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )
    if absent := [p for p in PROGRAMS if not shutil.which(p)]:
        return f"no {', '.join(absent)} here: apt-get install {' '.join(PACKAGES)}"
    probe = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode else ""


class Rig:
    def __init__(self, root: Path, nodes: int = 2, gpus: int = 2):
        self.root, self.nodes, self.gpus = root, nodes, gpus
        self.tag = f"rl{os.getpid() % 100000}"  # interfaces and namespaces of two rigs must not meet
        self.net = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.environ = os.environ | {"SLURM_CONF": str(root / "slurm.conf")}
        self.environ["PATH"] += ":/usr/sbin:/sbin"

    def __enter__(self):
        try:
            self.write()
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *error):
        self.down()

    def run(self, *command, check: bool = True) -> str:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=self.environ)
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout.strip()

    def write(self):
        for name in ("state", "spool", "log", "run", "munge", "fake"):
            (self.root / name).mkdir(parents=True)
        os.chmod(self.root / "munge", 0o700)
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        lines = [
            f"NodeName=n{i} NodeAddr={self.net}.{10 + i} Port=17820 CPUs=16 RealMemory=4000 "
            f"Gres=gpu:{self.gpus} State=UNKNOWN"
            for i in range(1, self.nodes + 1)
        ]
        head, tail = CONF.format(
            host=socket.gethostname().split(".")[0], net=self.net, port=port, root=self.root
        ).split("PartitionName", 1)
        (self.root / "slurm.conf").write_text(head + "\n".join(lines) + "\nPartitionName" + tail)
        (self.root / "job_submit.lua").write_text(LUA)
        for i in range(self.gpus):  # a GPU must be a device file: /dev/null's number does
            os.mknod(self.root / f"fake/nvidia{i}", 0o20666, os.makedev(1, 3))
        (self.root / "gres.conf").write_text(
            f"NodeName=n[1-{self.nodes}] Name=gpu File={self.root}/fake/nvidia[0-{self.gpus - 1}]\n"
        )
        key = self.root / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        names = [f"{self.net}.1 {socket.gethostname()}"] + [
            f"{self.net}.{10 + i} n{i}" for i in range(1, self.nodes + 1)
        ]
        (self.root / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names]) + "\n")

    def up(self):
        r = self.root
        self.run(
            "munged",
            "--force",
            f"--key-file={r}/munge/key",
            f"--socket={r}/run/munge.sock",
            f"--pid-file={r}/run/munged.pid",
            f"--log-file={r}/log/munged.log",
            f"--seed-file={r}/munge/seed",
        )
        self.run("ip", "link", "add", f"{self.tag}b", "type", "bridge")
        self.run("ip", "addr", "add", f"{self.net}.1/24", "dev", f"{self.tag}b")
        self.run("ip", "link", "set", f"{self.tag}b", "up")
        for i in range(1, self.nodes + 1):
            space, link = f"{self.tag}n{i}", f"{self.tag}v{i}"
            self.run("ip", "netns", "add", space)
            self.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            self.run("ip", "link", "set", link, "master", f"{self.tag}b", "up")
            self.run("ip", "-n", space, "addr", "add", f"{self.net}.{10 + i}/24", "dev", "eth0")
            self.run("ip", "-n", space, "link", "set", "eth0", "up")
            self.run("ip", "-n", space, "link", "set", "lo", "up")
        self.run("slurmctld", "-c")
        for i in range(1, self.nodes + 1):
            self.start_node(i)
        self.wait(
            lambda: (
                self.run("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D", check=False)
                == str(self.nodes)
            ),
            60,
        )

    def start_node(self, i: int):
        """Not `ip netns exec`: it mounts /sys anew, and slurmd then misses the control groups."""
        self.run(
            "nsenter",
            f"--net=/run/netns/{self.tag}n{i}",
            "unshare",
            "--uts",
            "--mount",
            "bash",
            "-c",
            f"hostname n{i}; mount --bind {self.root}/hosts /etc/hosts; exec slurmd -N n{i}",
        )

    def kill_node(self, i: int):
        """Everything on a node at once, as when its power fails."""
        for pid in self.run("ip", "netns", "pids", f"{self.tag}n{i}", check=False).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def cut(self, a: int, b: int):
        """Nothing passes between two nodes any more, and nobody is told; the controller reaches both."""
        for one, other in ((a, b), (b, a)):
            nowhere = f"{self.net}.{10 + other} lladdr 02:00:00:00:00:01 dev eth0 nud permanent"
            self.run("ip", "-n", f"{self.tag}n{one}", "neigh", "replace", *nowhere.split())

    def mend(self, a: int, b: int):
        for one, other in ((a, b), (b, a)):
            self.run(
                "ip", "-n", f"{self.tag}n{one}", "neigh", "del", f"{self.net}.{10 + other}", "dev", "eth0"
            )

    @contextmanager
    def silent(self):
        """The controller answers nobody in here."""
        pid = int((self.root / "run/slurmctld.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def down(self):
        if (self.root / "run/slurmctld.pid").exists():
            self.run("scancel", "--user=root", check=False)
            time.sleep(1)
        for i in range(1, self.nodes + 1):
            self.kill_node(i)
        for name in ("slurmctld", "munged"):
            try:
                pid = int((self.root / f"run/{name}.pid").read_text())
                os.kill(pid, signal.SIGTERM)
                self.wait(lambda: not Path(f"/proc/{pid}").exists(), 10)
            except (OSError, ValueError):
                pass
        for i in range(1, self.nodes + 1):
            self.run("ip", "link", "del", f"{self.tag}v{i}", check=False)
            self.run("ip", "netns", "del", f"{self.tag}n{i}", check=False)
        self.run("ip", "link", "del", f"{self.tag}b", check=False)

    def wait(self, what, seconds: float):
        deadline = time.monotonic() + seconds
        while not (value := what()):
            if time.monotonic() > deadline:
                raise TimeoutError((self.root / "log/slurmctld.log").read_text()[-2000:])
            time.sleep(0.3)
        return value


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell starts what is in its background deaf to it
    with Rig(Path(sys.argv[1]).absolute()) as rig:
        print(f"export SLURM_CONF={rig.environ['SLURM_CONF']}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
