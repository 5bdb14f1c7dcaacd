"""Is this machine fit for that config and workload? One line a check, with the fix under what fails; then a rehearsal.

relaunch doctor cifar10 --config 8gpu --emulate
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from relaunch.data_prep.errors import DATA, HARDWARE, STORAGE, USAGE, Failure
from relaunch.data_prep.files import storage
from relaunch.launch import accelerate_config, estimate, facts, plan, preflight, rehearse, show, start
from relaunch.trainers import config

HELP = """\
usage: relaunch doctor [WORKLOAD [its flags]] [--config NAME] [--emulate] [--num-processes N] …

Checks this machine against a config and a workload, then rehearses the start: the processes meet, take a step, save and
load. Nothing is left behind. The exit code is 0, or that of the first check that failed.

  relaunch doctor                                 this machine, and the config that fits it
  relaunch doctor cifar10 --config 8gpu           before the real start
  relaunch doctor cifar10 --config 8gpu --emulate eight processes on a machine without GPUs
"""


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
        "batch": show.batch(todo) if todo.config else "",
        "disk": f"{f.free / 1e9:.1f} GB free",
    }
    made = [software(versions, gpu)]
    for name, look in (
        ("machines", preflight.machines),
        ("devices", preflight.devices),
        ("precision", preflight.precision),
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
                f"/dev/shm has {(shm or 0) / 1e6:.0f} MB; GPU processes exchange gradients there and die of SIGBUS when it is full",
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


def attempt(name: str, look: Callable[[], str]) -> Check:
    """A check that looks at the machine itself: what it found, or the Failure that it raised."""
    try:
        return Check(name, look())
    except Failure as failure:
        return Check(name, "", failure)


def data(settings: config.RunConfig, root: str | None) -> str:
    from relaunch.data_prep import packed

    known = start.data_of(settings, root)
    if known.train is None:
        return f"{known.name} will be packed at the start"
    try:
        packed.verify(packed.open_packed(settings.data, packed.data_root(root)))
    except PermissionError as error:
        raise Failure(
            DATA,
            f"{error.filename} belongs to somebody else and cannot be read",
            "ask its owner for read access",
        ) from error
    return f"{known.where}: {known.train:,} in train, hash verified"


def port(accelerate: accelerate_config.AccelerateConfig) -> str:
    if accelerate.machines == 1:
        return "a free one is chosen at the start"
    number = accelerate.port or 29500
    return f"{number} is free" if accelerate.machine_rank == 0 else f"{number} of the first machine"


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
    with storage(runs, "--run PATH"):
        with tempfile.NamedTemporaryFile(dir=runs, prefix=".doctor-") as one, open(one.name) as two:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                pass
            else:
                raise Failure(
                    STORAGE,
                    f"two processes can lock one file in {runs}: two launches could write one run",
                    "choose a --run on another disk",
                )
            one.write(b"x")
            one.flush()
            off = os.stat(one.name).st_mtime - time.time()
    if abs(off) > 60:
        raise Failure(
            STORAGE,
            f"the clock of {runs} is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this machine's",
            "set the clocks",
        )
    return "locks hold, clocks agree"


def room(todo: plan.Plan, rest: list[str]) -> str:
    """Free space against the checkpoints that will be kept, and memory against the estimate."""
    size = start.size_of(todo, rest)
    if size is None:
        return estimate.say(None)
    copies = todo.config.keep + 2  # the best, and the one being written
    if todo.facts.free < size.checkpoint * copies:
        raise Failure(
            STORAGE,
            f"{copies} checkpoints of {size.checkpoint / 1e6:.0f} MB need more than the {todo.facts.free / 1e6:.0f} MB that are free",
            "free some space, lower --keep, or choose another place with --run PATH",
        )
    if todo.accelerate.use_cpu and todo.facts.memory < size.memory * todo.local:
        raise Failure(
            HARDWARE,
            f"{todo.local} processes of about {size.memory / 1e9:.1f} GB need more than this machine's "
            f"{todo.facts.memory / 1e9:.1f} GB",
            "use fewer with --num-processes, or a smaller batch",
        )
    return estimate.say(size)


def rehearsal(todo: plan.Plan, flags: list[str], rest: list[str], fits: bool, runs: Path) -> Check:
    if not fits:
        return Check("rehearsal", "skipped: correct the above first", skipped=True)
    if todo.accelerate.machines > 1:
        return Check(
            "rehearsal",
            "skipped: it takes all machines; --emulate rehearses their processes on this one",
            skipped=True,
        )
    done = rehearse.run(flags, todo.accelerate.processes, rest or None, runs)
    if done.code:
        said = re.sub(r"^relaunch: \d+ ", "", done.said)
        return Check("rehearsal", "", Failure(done.code, f"failed after {done.seconds:.0f} s: {said}"))
    device = "cpu" if todo.accelerate.use_cpu else "cuda"
    asked = (todo.accelerate.processes, device, show.precision(todo))
    got = (done.world, done.device, "fp32" if done.precision == "no" else done.precision)
    words = "{} x {} in {}".format
    return check(
        "rehearsal",
        f"{words(*got)} met, took 2 steps, saved and loaded between them, in {done.seconds:.0f} s",
        asked != got,
        HARDWARE,
        f"asked for {words(*asked)}, got {words(*got)}",
        "",
    )


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    typed, rest = start.split(argv)
    todo, job = start.draft("train" if rest else "evaluate", typed, rest)
    place = Path(todo.place.run if todo.place else "runs/any").absolute()
    runs = next(p for p in place.parents if p.exists())
    results = []

    def report(result: Check):
        print(result.lines(), flush=True)
        results.append(result)

    for result in checks(todo, installed()):
        report(result)
    if todo.config:
        report(attempt("data", lambda: data(todo.config, job.launch.data_root)))
        if not results[-1].failure:
            todo = dataclasses.replace(todo, data=start.data_of(todo.config, job.launch.data_root))
            report(
                Check(
                    "steps",
                    f"{todo.epoch_steps:,} an epoch" if todo.epoch_steps else estimate.say(None),
                    preflight.steps(todo),
                )
            )
            report(attempt("room", lambda: room(todo, rest)))
    report(Check("port", port(todo.accelerate), preflight.port(todo)))
    report(attempt("host name", lambda: name_of(todo.facts.host)))
    report(attempt("run folder", lambda: shared_disk(runs)))
    report(rehearsal(todo, start.words(typed), rest, not any(r.failure for r in results), runs))
    return next((r.failure.code for r in results if r.failure), 0)
