"""What this machine must have for a start, beside what its plan asks: software, limits, names, locks, clocks.

machine.checks(plan, machine.installed())    # a list of Check, for `relaunch doctor`
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from relaunch.data_prep import owner
from relaunch.data_prep.errors import HARDWARE, STORAGE, USAGE, Failure
from relaunch.launch import facts, plan, preflight, show


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and the failure if that will not do."""

    name: str
    found: str
    failure: Failure | None = None
    skipped: bool = False

    def lines(self) -> str:
        if self.failure is None:
            return f"{'-' if self.skipped else 'ok':6}{self.name:12}{self.found}"
        fix = f"\n      fix: {self.failure.fix}" if self.failure.fix else ""
        return f"FAIL  {self.name:12}{self.failure.what}{fix}"


def check(name: str, found: str, bad: bool, code: int, what: str, fix: str) -> Check:
    return Check(name, found, Failure(code, what, fix) if bad else None)


def checks(todo: plan.Plan, versions: dict[str, str]) -> list[Check]:
    """Everything that facts alone decide. Pure, but for looking up the first machine's name."""
    accelerate, f = todo.accelerate, todo.facts
    several, gpu = todo.local > 1, not accelerate.use_cpu
    found = {
        "machines": show.plural(accelerate.machines, "machine"),
        "devices": f"{show.processes(todo)}; here: {show.gpus(todo)}",
        "precision": show.precision(todo),
        "threads": f"{todo.threads} a process" if todo.config else "",
        "batch": show.batch(todo) if todo.config else "",
        "disk": f"{f.free / 1e9:.1f} GB free",
    }
    made = [software(versions, gpu)]
    for name, look in (
        ("machines", preflight.machines),
        ("devices", preflight.devices),
        ("precision", preflight.precision),
        ("threads", preflight.threads),
        ("batch", preflight.batch),
        ("disk", preflight.disk),
    ):
        if found[name]:
            made.append(Check(name, found[name], look(todo)))
    shm = f.shared_memory
    if several:
        made.append(
            check(
                "/dev/shm",
                f"{(shm or 0) / 1e9:.1f} GB",
                gpu and (shm or 0) < 512e6,
                HARDWARE,
                f"/dev/shm has {(shm or 0) / 1e6:.0f} MB; GPU processes exchange gradients there and die of "
                "SIGBUS when it is full",
                "docker run --shm-size 1g, or a memory volume at /dev/shm",
            )
        )
    need = 1024 + 128 * todo.local  # sockets and files of each process, generously
    made.append(
        check(
            "open files",
            f"{f.open_files:,} allowed",
            f.open_files < need,
            HARDWARE,
            f"a process may have {f.open_files} files open; {need} may be needed",
            f"ulimit -n {need}",
        )
    )
    return made


def software(versions: dict[str, str], gpu: bool) -> Check:
    """`versions` by package name, without those that are not installed."""
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    missing = [name for name in ("torch", "accelerate") if name not in versions]
    if missing:
        return Check(
            "software", "", Failure(USAGE, f"{' and '.join(missing)} not installed", "pip install -e .")
        )
    old = tuple(int(n) for n in re.findall(r"\d+", versions["torch"])[:2]) < (2, 10)
    if old:
        return Check(
            "software",
            "",
            Failure(
                USAGE,
                f"torch {versions['torch']} is too old (both known escapes of its "
                "weights_only are fixed in 2.10)",
                "pip install --upgrade 'torch>=2.10'",
            ),
        )
    return check(
        "software",
        listed,
        gpu and "+cpu" in versions["torch"],
        HARDWARE,
        f"torch {versions['torch']} was built without CUDA",
        "install the CUDA build of torch",
    )


def installed() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "accelerate", "nvidia-nccl-cu12", "nvidia-nccl-cu13"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists() and (number := re.search(r"Module.*?(\d+\.\d+[.\d]*)", driver.read_text())):
        found["driver"] = number.group(1)
    return found


def name_of(host: str) -> str:
    if not facts.has_address(host):
        raise Failure(
            HARDWARE,
            f"this machine's own name, {host}, has no address: its processes may not find each other",
            f"add '127.0.0.1 {host}' to /etc/hosts",
        )
    return f"{host} resolves"


def shared_disk(runs: Path) -> str:
    """Locks keep two launches out of one run; a server's clock that is far off confuses what is newest."""
    locks = "locks hold"
    try:
        with tempfile.NamedTemporaryFile(dir=runs, prefix=".doctor-") as one, open(one.name) as two:
            try:
                fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in owner.NO_LOCKS:
                    raise
                locks = f"no locks here: a run is owned by its file {owner.NAME}"
            else:
                refuse_double(one, two, runs)
            one.write(b"x")
            one.flush()
            off = os.stat(one.name).st_mtime - time.time()
    except OSError as error:
        raise Failure(
            STORAGE,
            f"cannot write and lock files in {runs} ({error.strerror})",
            "choose another place with --run PATH",
        ) from error
    if abs(off) > 60:
        raise Failure(
            STORAGE,
            f"the clock of {runs} is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's",
            "set the clocks",
        )
    return f"{locks}, clocks agree"


def refuse_double(one, two, runs: Path) -> None:
    """Failure 73 if a file that is locked through `one` can be locked through `two`."""
    try:
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    raise Failure(
        STORAGE,
        f"two processes can lock one file in {runs}: two launches could write one run",
        "choose a --run on another disk",
    )
