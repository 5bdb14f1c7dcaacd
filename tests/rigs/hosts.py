"""Two hosts on this machine for tests, a wire between: each has an address, a name, a loopback and a folder.

    python tests/rigs/hosts.py FOLDER    # up; prints how to enter them; Ctrl-C takes them down

Needs root, for network namespaces. What runs in a host is found by its namespace's own list, by nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("ip", "unshare")


def missing() -> str:
    """Why there can be no hosts here; empty: there can. Installs what is missing where root may."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if not all(map(shutil.which, PROGRAMS)) and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "iproute2", "util-linux"],
            capture_output=True,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        )
    if absent := [p for p in PROGRAMS if not shutil.which(p)]:
        return f"no {', '.join(absent)} here: apt-get install iproute2 util-linux"
    probe = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True)
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode else ""


class Host:
    """One of the two: the other finds it by its host `name`; its programs start in `folder`."""

    def __init__(self, name: str, tag: str, address: str, folder: Path):
        self.name, self.address, self.folder = name, address, folder
        self.space, self.wire = f"{tag}{name}", f"{tag}{name}"[-15:]
        folder.mkdir(parents=True)

    def start(self, *command, environment: dict[str, str]) -> subprocess.Popen:
        """Start a program here; its output goes into NAME.out and NAME.err beside the host's folder."""
        logs = [self.folder.with_name(f"{self.name}.{kind}") for kind in ("out", "err")]
        shell = ["unshare", "--uts", "sh", "-c", f'hostname {self.name}; cd "$0"; exec "$@"']
        inside = [*shell, str(self.folder), *map(str, command)]
        with open(logs[0], "a") as out, open(logs[1], "a") as err:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.space, *inside],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )

    def said(self, kind: str = "err") -> str:
        path = self.folder.with_name(f"{self.name}.{kind}")
        return path.read_text() if path.exists() else ""

    def running(self) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.space, check=False).split()]

    def kill(self) -> None:
        """Everything that runs here, at once: a machine switched off, whose kernel still says goodbye."""
        for _ in range(50):
            for pid in self.running():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if not self.running():
                return
            time.sleep(0.1)


class Hosts:
    """with Hosts(folder) as (n0, n1): …"""

    def __init__(self, folder: Path):
        tag = f"rh{os.getpid() % 100000}"  # two rigs on a machine must not meet
        net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.hosts = [Host(f"n{i}", tag, f"{net}.{i + 1}", folder / f"n{i}") for i in (0, 1)]

    def __enter__(self) -> list[Host]:
        try:
            names = "127.0.0.1 localhost\n" + "".join(f"{h.address} {h.name}\n" for h in self.hosts)
            for host in self.hosts:
                ip("netns", "add", host.space)
                etc = Path("/etc/netns") / host.space  # `ip netns exec` shows it as /etc
                etc.mkdir(parents=True)
                (etc / "hosts").write_text(names)
            a, b = self.hosts
            veth = f"link add {a.wire} netns {a.space} type veth peer name {b.wire} netns {b.space}"
            ip(*veth.split())
            for host in self.hosts:
                ip("-n", host.space, "addr", "add", f"{host.address}/24", "dev", host.wire)
                ip("-n", host.space, "link", "set", host.wire, "up")
                ip("-n", host.space, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self.hosts

    def __exit__(self, *error) -> None:
        for host in self.hosts:
            host.kill()
            ip("netns", "del", host.space, check=False)
            shutil.rmtree(Path("/etc/netns") / host.space, ignore_errors=True)


def cut(host: Host) -> None:
    """Cut the wire: nobody is told, packets just do not come."""
    ip("-n", host.space, "link", "set", host.wire, "down")


def ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with Hosts(Path(sys.argv[1]).absolute()) as found:
        for host in found:
            enter = f"unshare --uts sh -c 'hostname {host.name}; exec bash'"
            print(f"{host.name} ({host.address}): ip netns exec {host.space} {enter}")
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
