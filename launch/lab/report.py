"""The report of a lab: what all labs have in common, around what is its own; HTML, and Markdown beside it.

report.write(lab, steps, ends, facts, work, "zh")    # labs/mnist/report.html
"""

from __future__ import annotations

import os
import platform
import re
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from relaunch.data_prep import VERSION, files
from relaunch.data_prep.errors import Failure
from relaunch.data_prep.names import table as aligned
from relaunch.data_prep.packed import open_packed
from relaunch.data_prep.talk import give
from relaunch.launch import machine
from relaunch.launch.facts import Facts
from relaunch.launch.lab import engine
from relaunch.launch.lab.bench import DASH, Bench, device_name, folded
from relaunch.launch.lab.steps import Lab, Step
from relaunch.launch.lab.words import Say
from relaunch.launch.runs import duration
from relaunch.trainers import records
from relaunch.trainers.pages import page
from relaunch.trainers.pages.blocks import Code, Prose, Table
from relaunch.trainers.pages.blocks import Facts as Rows

PACKAGES = ("torchvision", "accelerate", "numpy", "tensorboard", "pyarrow", "matplotlib")


def write(lab: Lab, steps: dict[str, Step], ends, here: Facts, work, lang: str) -> Path:
    """Write report.html and report.md into the lab's folder; returns the former's path."""
    bench = Bench(lab, steps, ends, here, Say(lang))
    title = bench.say(work.TITLE)
    blocks = [*lead(bench), *environment(bench), *work.blocks(bench), *end(bench, work)]
    target = lab.path("report.html")
    with files.storage(target, "--out FOLDER"):
        files.write_atomic(target, page.html(title, blocks, lang))
        files.remove(lab.path("report"))  # pictures of an earlier one
        text = page.markdown(title, blocks, lab.path("report"), lang)
        files.write_atomic(target.with_suffix(".md"), text)
    return target


def lead(bench: Bench) -> list:
    again = engine.again(bench.lab)
    made = bench.say("made", again=again, date=time.strftime("%Y-%m-%d %H:%M"))
    quick = bench.say("quick", whole=again.replace(" --quick", "")) if bench.lab.quick else ""
    return [Prose(f"{made}\n\n{quick}".strip())]


# environment --------------------------------------------------------------------------------------


def environment(bench: Bench) -> list:
    say, here = bench.say, bench.here
    gpus = [f"{here.gpu_names.count(n)} x {n}" for n in dict.fromkeys(here.gpu_names)]
    versions = {name: v for name in PACKAGES if (v := version(name))}
    driver = machine.installed().get("driver") or say("no_driver")
    rows = [
        ("cpu", cpu()),
        ("vcpus", say("vcpus_are", n=os.cpu_count() or 1, physical=here.cores)),
        ("memory", f"{here.memory / 1e9:.1f} GB"),
        ("gpu", ", ".join(gpus) or say("no_gpu")),
        ("os", f"{system()}, Linux {platform.release()}"),
        ("framework", f"PyTorch {version('torch')}, Relaunch {VERSION}, Python {platform.python_version()}"),
        ("packages", ", ".join(f"{name} {v}" for name, v in versions.items())),
        ("cuda", say("cuda_is", version=cuda() or DASH, driver=driver)),
    ]
    made: list = [bench.heading("environment"), Rows([(say(key), value) for key, value in rows])]
    trained = [name for name, step in bench.steps.items() if step.words[0] == "train" and bench.done(name)]
    if trained:
        head = [say(key) for key in ("run", "host", "device", "precision", "threads")]
        made.append(
            Table(
                [*head, "PyTorch", "accelerate", "Python"],
                [launched(bench, name) for name in trained],
                say("where_from"),
            )
        )
    return [*made, *data(bench)]


def launched(bench: Bench, name: str) -> list[str]:
    """A row of the table of runs: where it was trained, on what, by which versions."""
    plan = records.plan(bench.lab.run(name))
    versions = plan["versions"] if isinstance(plan.get("versions"), dict) else {}
    precision = plan.get("precision", "no")
    return [
        name,
        str(plan.get("host", DASH)),
        f"{plan.get('world', '?')} x {plan.get('device', '?')} ({device_name(plan)})",
        "fp32" if precision == "no" else precision,
        str(plan.get("threads", DASH)),
        *(str(versions.get(key, DASH)) for key in ("torch", "accelerate", "python")),
    ]


def data(bench: Bench) -> list:
    """The packed set: its splits and where it comes from."""
    try:
        packed = open_packed(bench.lab.data, bench.lab.set().parent)
    except Failure:
        return bench.missing("prep")
    say, text = bench.say, packed.kind == "text"
    rows = [[split, f"{n:,}"] for split, n in packed.splits.items()]
    source = packed.meta.get("source", {})
    facts = [
        (say("data"), f"{packed.name}, {packed.hash[:12]}"),
        (say("source"), f"{source['file']}, SHA-256 {str(source.get('sha256', DASH))[:12]}")
        if "file" in source
        else (say("source"), say("embedded", recipe=packed.meta.get("recipe", DASH))),
    ]
    facts += [] if text else [(say("classes"), f"{len(packed.names()):,}")]
    return [Rows(facts), bench.table(("splits", "words_count" if text else "count"), rows)]


def cpu() -> str:
    """The processor's name, as Linux has it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return f"{found[1] if found else platform.processor() or '?'} ({platform.machine()})"


def system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def cuda() -> str:
    """The CUDA version that PyTorch was built for, read from its file: importing it would take seconds."""
    spec = find_spec("torch")
    if not spec or not spec.origin:
        return ""
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return ""
    found = re.search(r"^cuda.*=\s*'([\d.]+)'", text, re.MULTILINE)
    return found[1] if found else ""


# the end ------------------------------------------------------------------------------------------


def end(bench: Bench, work) -> list:
    """The commands of all steps that are done, and what the lab refers to."""
    typed = "\n".join(
        folded(engine.typed(step, bench.steps)) for name, step in bench.steps.items() if bench.done(name)
    )
    links = "\n\n".join(f"[{i}] {text}" for i, text in enumerate(work.REFERENCES, 1))
    return [bench.heading("commands"), Code(typed), bench.heading("references"), Prose(links)]


def say_states(lab: Lab, steps: dict[str, Step], states) -> None:
    """What --dry-run prints: each step, how it stands and its command."""
    pace = engine.pace(lab, steps)
    rows = [("step", "state", "about", "command")]
    for name, step in steps.items():
        todo = states[name].kind == "todo"
        rows.append((name, states[name].kind, duration(pace * step.seconds) if todo else "", step.typed))
    give("\n".join(aligned(rows, left=4)))
    left = engine.remaining([step for name, step in steps.items() if states[name].kind == "todo"], pace)
    give(f"about {duration(left)} left" if left else "nothing left to do")
