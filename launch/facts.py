"""What this machine has: facts, of which a plan is a pure function, and which tests invent.

facts.gather().gpus    # 0
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

from relaunch.data_prep import limits
from relaunch.launch import platforms
from relaunch.trainers import PROGRAM
from relaunch.trainers.cores import physical_cores

UNNAMED = "NVIDIA GPU"


@dataclass(frozen=True, kw_only=True)
class Facts:
    gpus: int = 0  # that a process started here would see
    gpus_installed: int = 0  # whatever CUDA_VISIBLE_DEVICES says
    gpu_names: tuple[str, ...] = ()
    mig: bool = False  # whether those visible are parts of GPUs, by name
    cores: int = 1  # physical, and usable by us
    memory: int = 0  # bytes that we may use
    shared_memory: int | None = None  # bytes of /dev/shm; None: there is none
    free: int = 1 << 40  # bytes where runs are kept
    writable: bool = True  # whether we may write there
    open_files: int = 1 << 20  # that a process may have
    host: str = "this machine"
    nodes: platforms.Nodes | None = None  # this machine among those that a platform started together
    package: str | None = "trainers"  # the name under which `-m` finds trainers here; None: it does not


def gather(runs: Path = Path("runs")) -> Facts:
    """The facts of this machine, and of the disk that `runs` lies or will lie on."""
    import resource

    names, shown = installed_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    place = next(p for p in (runs.absolute(), *runs.absolute().parents) if os.path.exists(p))
    shm, physical = Path("/dev/shm"), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Facts(
        gpus=visible(len(names), shown),
        gpus_installed=len(names),
        gpu_names=names,
        mig=(shown or "").startswith("MIG-"),
        cores=physical_cores(),
        memory=min(physical, limits.memory() or physical),
        shared_memory=shutil.disk_usage(shm).total if shm.is_dir() else None,
        free=shutil.disk_usage(place).free,
        writable=os.access(place, os.W_OK | os.X_OK),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        host=socket.gethostname(),
        nodes=platforms.find(os.environ, typed=has_terminal()),
        package=package(),
    )


def package() -> str | None:
    """How `python -m` and accelerate's -m find the package trainers of this tree from the current folder."""
    if Path.cwd() == Path(PROGRAM).parents[1]:
        return "trainers"
    top = found("relaunch", None)  # not by sys.modules: there it is this tree, however it was started
    spec = found("relaunch.trainers", top.submodule_search_locations) if top else None
    here = spec and spec.origin and Path(spec.origin).parent == Path(PROGRAM).parent
    return "relaunch.trainers" if here else None


def found(name: str, where: Sequence[str] | None) -> ModuleSpec | None:
    """What Python would import by this name, below the package that lies `where`."""
    specs = (finder.find_spec(name, where) for finder in sys.meta_path)
    return next(filter(None, specs), None)


def has_address(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def has_terminal() -> bool:
    """Whether somebody types here: also where our input and output are files."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def is_free(port: int) -> bool:
    """Whether nobody here listens on a port."""
    with socket.socket() as s:
        # connections of an ended run linger for a minute
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("", port))
        except OSError:
            return False
    return True


def visible(installed: int, setting: str | None) -> int:
    """GPUs left by CUDA_VISIBLE_DEVICES. CUDA stops at the first entry that names no device.

    Of MIG devices, however many are listed, a process is given the first alone.
    """
    if setting is None:
        return installed
    count = 0
    for entry in setting.replace(" ", "").split(","):
        if installed and entry.startswith("MIG-"):
            return count or 1
        by_number = re.fullmatch(r"\d+", entry) and int(entry) < installed
        if not installed or not (by_number or entry.startswith("GPU-")):
            break
        count += 1
    return count


def installed_gpus(root: Path = Path("/")) -> tuple[str, ...]:
    """Names of the NVIDIA GPUs of this machine or container: of the driver's files, else of nvidia-smi.

    In a sandbox (gVisor, bubblewrap) there may be neither: then the device nodes are counted. Where CUDA does
    not start on them, the worker says why.
    """
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    nodes = [p for p in (root / "dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)]
    if files and nodes:  # a container may see files of GPUs whose device nodes it was not given
        found = [re.search(r"Model:\s*(.+)", f.read_text()) for f in files]
        return tuple(m.group(1).strip() if m else UNNAMED for m in found)[: len(nodes)]
    if shutil.which("nvidia-smi"):  # Windows' Linux has no such files
        try:
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.TimeoutExpired):
            listed = ""
        if names := re.findall(r"^GPU \d+: (.+?) \(UUID", listed, re.MULTILINE):
            return tuple(names)
    return (UNNAMED,) * len(nodes)
