"""What people and programs write, changed at random: it is read, or refused with one line and a code.

Checkpoints' manifests, a run's small files, safetensors' headers, accelerate's configs, command lines. Each
case is made of its number: `python tests/storm.py fuzz --cases 1 --seed 1234` is one of each again.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import re
import shutil
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from relaunch.data_prep.errors import Failure, nameable
from relaunch.launch import __main__ as verbs
from relaunch.launch import accelerate_config, checkpoints, command, runs
from relaunch.trainers import begin, config, logged, records, workloads
from relaunch.trainers.rundir import RunDir
from relaunch.trainers.weights import checkpoint, foreign
from relaunch.trainers.weights.checkpoint import State
from relaunch.trainers.weights.state import load_weights
from rigs.saved import saved_run

ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    10**30,
    -(2**63),
    2**64,
    1e308,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "8",
]
ODD += [
    "x" * 5000,
    "../../x",
    "/",
    "a\nb",
    "\x1b[31m",
    "\0",
    "é\ud800",
    "%s{}",
    [],
    {},
    [[]],
    {"a": {}},
    [0] * 50,
]
BYTES = [
    b"",
    b"\0" * 99,
    b"\xff\xfe",
    b"[" * 50_000,
    b"{}",
    b"null",
    b"1e999",
    b"9" * 5000,
    b'"',
    b"\\",
    b"\r\n",
]
WORDS = [
    "",
    "-1",
    "0",
    "1",
    "3",
    "1e999",
    "nan",
    "9" * 30,
    "0.5",
    "../x",
    "a b",
    "\x1b[31m",
    "é",
    "\udcff",
    "--",
    "-",
]
WORDS += [
    "-b",
    "x" * 3000,
    "%s{}",
    "{0}",
    "mnist",
    "auto",
    "best",
    "run",
    "run@10",
    "no",
    "bf16",
    "cpu2",
    "5m",
    "@f",
]


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """Some bits, a part lost, doubled, or replaced by what is odd."""
    for _ in range(chance.choice((1, 1, 2, 5))):
        begin, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
        end = min(end, begin + chance.choice((1, 4, 30, 10**6)))
        part = content[begin:end]
        kind = chance.randrange(4)
        if kind == 0:
            part = bytes(byte ^ 1 << chance.randrange(8) for byte in part[:3]) + part[3:]
        elif kind == 1:
            part = b""
        elif kind == 2:
            part += part
        else:
            part = chance.choice(BYTES)
        content = content[:begin] + part + content[end:]
    return content


def changed_value(value, chance: random.Random):
    """A tree of dicts and lists with odd values, names and gaps in it."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 3))):
        node = value
        while True:
            places = list(node) if isinstance(node, dict) else range(len(node))
            if not places:
                break
            place = chance.choice(list(places))
            if isinstance(node[place], (dict, list)) and node[place] and chance.random() < 0.7:
                node = node[place]
                continue
            kind = chance.randrange(4)
            if kind == 0:
                del node[place]
            elif kind == 1 and isinstance(node, dict):
                node[str(chance.choice(ODD))[:99]] = node.pop(place)
            else:
                node[place] = copy.deepcopy(chance.choice(ODD))
            break
    return value


def changed_json(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        return changed_bytes(content, chance)
    return json.dumps(changed_value(json.loads(content), chance)).encode()


def said(call: Callable, codes: tuple[int, ...]) -> tuple[str, object]:
    """(what is wrong with how `call` ended, what it returned): codes that it may give up with."""
    out = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(out):
        try:
            found, lines = call(), out.getvalue().splitlines()
        except Failure as failure:
            if failure.code not in codes:
                return f"code {failure.code}: {failure.line()}", None
            found, lines = None, [*out.getvalue().splitlines(), failure.line()]
        except SystemExit as leaves:
            found, lines = None, []
            if leaves.code:
                return f"it left with {leaves.code}", None
        except Exception:
            return traceback.format_exc(limit=-4), None
    odd = [line for line in lines if not line.startswith("relaunch: ") or not line.isprintable()]
    return f"it said {odd[0]!r}" if odd else "", found


class Manifests:
    """The newest of two checkpoints has another MANIFEST.json: it is passed by, unless it says the same."""

    def __init__(self, folder: Path):
        self.run = RunDir(folder)
        for step in (10, 20):
            facts = {name: step for name in checkpoint.FACTS}
            state = State({"weight": torch.full((9,), float(step))}, {}, {**facts, "best": None})
            checkpoint.save(self.run, state, keep=2)
        self.path = self.run.checkpoint(20) / "MANIFEST.json"
        self.whole = self.path.read_bytes()

    def case(self, chance: random.Random) -> str:
        self.path.write_bytes(changed_json(self.whole, chance))
        wrong, found = said(lambda: checkpoint.newest_valid(self.run), ())
        if wrong or found == self.run.checkpoint(10):
            return wrong
        now, whole = json.loads(self.path.read_bytes()), json.loads(self.whole)
        same = all(now[name] == whole[name] for name in ("schema", "files", *checkpoint.FACTS))
        return "" if found == self.run.checkpoint(20) and same else f"{found} was taken"


class Records:
    """A small file of a run is another: it is listed, shown and gone on with, or refused with a line."""

    def __init__(self, folder: Path):
        os.chdir(folder)
        self.run = saved_run(Path("runs/run"))
        causes = {"causes": dict.fromkeys(records.goodput.CAUSES, 1.5)}
        time = {"schema": 1, "first": 1.0, "until": 9.0, "paused": 0, "starts": 1, "between": 0.0, **causes}
        time |= {
            "step": 80,
            "samples": 640,
            "from_step": 0,
            "from_samples": 0,
            "ranks": [],
            "peak_memory_mb": 9.0,
        }
        time |= {"saves": {"80": causes["causes"]}, "writes": {"count": 1, "seconds": 0.1}}
        self.run.time.write_text(json.dumps(time))
        self.files = [self.run.config, self.run.plan, self.run.status, self.run.metrics, self.run.time]
        self.whole = {path: path.read_bytes() for path in self.files}
        assert self.read() == ("", None)

    def case(self, chance: random.Random) -> str:
        path = chance.choice(self.files)
        content = self.whole[path]
        if path == self.run.metrics:
            rows = content.splitlines(keepends=True)
            place = chance.randrange(len(rows))
            rows[place] = changed_json(rows[place], chance) + b"\n"
            content = b"".join(rows)
        path.write_bytes(content if path == self.run.metrics else changed_json(content, chance))
        try:
            wrong, _ = self.read()
            return wrong and f"{path.name}: {path.read_bytes()[:2000]!r}: {wrong}"
        finally:
            path.write_bytes(self.whole[path])

    def read(self) -> tuple[str, object]:
        calls = [
            lambda: runs.main_runs([]) and None,
            lambda: runs.main_runs(["show", "run"]) and None,
            lambda: checkpoints.main(["run", "ls"]) and None,
            lambda: logged.changed(self.run) and None,
            lambda: records.signs(self.run) and None,
            lambda: begin.begin(config.parse("mnist --data digits --run run --resume auto".split())) and None,
        ]
        wrong = [said(call, (64, 65))[0] for call in calls]
        return "".join(wrong), None


class Headers:
    """A safetensors file with another header, from elsewhere, for a model: it is taken whole, or refused."""

    def __init__(self, folder: Path):
        self.path, self.model = folder / "other.safetensors", torch.nn.Linear(3, 2)
        save_file(self.model.state_dict(), self.path)
        content = self.path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        self.header, self.rest = content[8 : 8 + size], content[8 + size :]

    def case(self, chance: random.Random) -> str:
        header = changed_json(self.header, chance)
        size = chance.choice(
            (len(header),) * 8 + (0, 2**63, 2**64 - 1, len(header) - 1, 10**8, len(header) + 9)
        )
        self.path.write_bytes(struct.pack("<Q", size) + header + self.rest)

        def read():
            weights, _ = foreign.fit(foreign.read(self.path), self.model.state_dict())
            load_weights(self.model, weights, str(self.path))

        return said(read, (65,))[0]


class Configs:
    """An accelerate config: it is read, or refused with a line."""

    def __init__(self, folder: Path):
        self.path = folder / "mine.yaml"
        self.path.touch()
        self.texts = [path.read_bytes() for path in sorted(accelerate_config.FOLDER.glob("*.yaml"))]

    def case(self, chance: random.Random) -> str:
        text = chance.choice(self.texts)
        if chance.random() < 0.4:
            self.path.write_bytes(changed_bytes(text, chance))
        else:
            value = changed_value(yaml.safe_load(text), chance)
            self.path.write_text(yaml.safe_dump(value), errors="surrogatepass")
        return said(lambda: accelerate_config.read(str(self.path)), (64,))[0]


class Lines:
    """Command lines of `train`, and of what reads runs: understood, or refused with a line."""

    def __init__(self, folder: Path):
        os.chdir(folder)
        saved_run(Path("runs/run"))
        parsers = [command.flags()]
        parsers += [
            config.workload_parser(name, config.TRAIN, workloads.load(name)) for name in workloads.names()
        ]
        self.flags = sorted({s for parser in parsers for a in parser._actions for s in a.option_strings})

    def case(self, chance: random.Random) -> str:
        words = [chance.choice([*workloads.names(), *WORDS][:20]) if chance.random() < 0.1 else "mnist"]
        for _ in range(chance.randrange(6)):
            flag = chance.choice(self.flags)
            if chance.random() < 0.1:
                flag = flag[: chance.randrange(1, len(flag) + 1)] + chance.choice(("", "x", "_"))
            value = chance.choice(WORDS)
            words += (
                [f"{flag}={value}"] if chance.random() < 0.3 else [flag, value][: chance.choice((1, 2, 2, 2))]
            )
        if chance.random() < 0.2:
            words = [
                chance.choice(("run", "show", "ls", "verify", *WORDS)) for _ in range(chance.randrange(4))
            ]
            words = [chance.choice(("runs", "checkpoints", "stop", chance.choice(WORDS))), *words]
            wrong = said(lambda: verbs.run(words) and None, (64, 65))[0]
        else:

            @nameable()
            def start():
                typed, rest = command.split(words)
                begin.begin(command.job(rest))

            wrong = said(start, (64, 65))[0]
        return wrong and f"{words}: {wrong}"


KINDS = {
    "manifests": Manifests,
    "a run's small files": Records,
    "headers of safetensors": Headers,
    "accelerate's configs": Configs,
    "command lines": Lines,
}


def storm(folder: Path, cases: int = 10_000, seed: int = 0) -> Iterator[tuple[str, int, list[str]]]:
    """(what was changed, cases, what is wrong)."""
    for name, kind in KINDS.items():
        place = folder / re.sub("[^a-z]", "-", name)
        place.mkdir()
        with contextlib.chdir(folder):
            target, wrong = kind(place), []
            there = {path for path in folder.rglob("*")}
            for number in range(seed, seed + cases):
                if found := target.case(random.Random(f"{name} {number}")):
                    wrong.append(f"{name}, case {number}: {found}")
            if left := {path for path in folder.rglob("*")} ^ there:
                wrong.append(f"{name}: these came or went: {sorted(map(str, left))[:5]}")
        shutil.rmtree(place)
        yield f"fuzz of {name}", cases, wrong
