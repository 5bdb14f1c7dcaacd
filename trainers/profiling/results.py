"""A folder of profiles: profile.json, its page, and the traces beside it. Never imports torch.

results.put(Path("profiles/mnist"), about, setting)    # replaces what it held of that config and batch size
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import USAGE, Failure
from relaunch.data_prep.names import quoted
from relaunch.data_prep.talk import tell
from relaunch.trainers import records
from relaunch.trainers.config import RunConfig
from relaunch.trainers.flags import flag, shown
from relaunch.trainers.profiling import page

ASIDE = ("batch_size", "threads", "data")  # settings in which profiles of one folder may differ


def about(config: RunConfig, data: str, versions: dict[str, str]) -> dict:
    """What all settings of a profile.json share. `data` is the packed set's name."""
    of = config.to_json()
    of |= of.pop("options")
    training = {name: value for name, value in of.items() if name not in ASIDE}
    return {
        "schema": 1,
        "workload": config.workload,
        "data": data,
        "versions": versions,
        "training": training,
        "settings": [],
    }


def held(folder: Path, found: dict) -> dict:
    """`found` with the settings that the folder holds already, if they are of the same training.

    Failure 64 if it is of another workload or data; other differences begin it anew, and say so.
    """
    old = records.profile(folder)
    if not old:
        if (path := folder / "profile.json").exists():
            tell(f"relaunch: {path} cannot be read: it is begun anew", sys.stderr)
        return found
    for name in ("workload", "data"):
        if old[name] != found[name]:
            what = f"{folder} holds a profile of {name} {old[name]}, not {found[name]}"
            raise Failure(USAGE, what, "choose another --out FOLDER")
    was, now = old.get("training"), files.parse_json(files.dump_json(found["training"]))
    if was == now:
        return found | {"settings": old["settings"]}
    was = was if isinstance(was, dict) else {}
    name = next((n for n in now if was.get(n) != now[n] and n != "code"), None)
    change = f"with {flag(name)} {shown(was.get(name))}" if name else "of other code"
    tell(f"relaunch: what {folder} held was measured {change}: it is begun anew", sys.stderr)
    return found


def trace_name(config: str, batch_size: int) -> str:
    return f"trace-{re.sub(r'[^A-Za-z0-9_.-]', '-', config)}-b{batch_size}.json.gz"


def put(folder: Path, found: dict, setting: dict) -> dict:
    """Write profile.json with one setting more; returns what it holds. OSError."""
    place = (setting["config"], setting["batch_size"])
    others = [s for s in found["settings"] if (s["config"], s["batch_size"]) != place]
    settings = sorted([*others, setting], key=lambda s: (s["config"], s["batch_size"]))
    found = found | {"settings": settings}
    files.write_atomic(folder / "profile.json", files.dump_json(found))
    kept = {s["trace"] for s in settings}
    for path in folder.glob("trace-*.json.gz"):
        if path.name not in kept:  # of settings that were dropped
            files.remove(path)
    return found


def write_page(folder: Path, found: dict) -> Path:
    """profile.html, and profile.md with its charts in profile_files/. OSError."""
    from relaunch.trainers.pages.page import html, markdown

    title, blocks = f"Profile of {found['workload']}", page.blocks(found)
    files.write_atomic(folder / "profile.html", html(title, blocks))
    files.write_atomic(folder / "profile.md", markdown(title, blocks, folder / "profile_files"))
    return folder / "profile.html"


def told(folder: Path) -> str:
    return f"written: {quoted(str(folder / 'profile.html'))}; traces for https://ui.perfetto.dev beside it"
